"""Roles and what they permit. `security.permitted` is the guard for routes.

Every account is a `member`. Further roles are grants (`identity.role_grant`); an account may hold several and has the
union of what they permit. An admin's six groups may be narrowed by departments:

    department  groups of permissions
    content     content, licences
    payments    transactions
    users       users
    analytics   view_analytics, generate_reports
    (none)      all six: users, content, licences, transactions, platform, system

`super_admin` permits everything and is granted by the command line alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["DEPARTMENTS", "EVERYTHING", "ROLES", "Grant", "how_to_get", "may", "permissions_of"]

EVERYTHING = "*"

_USERS = frozenset({"manage_users", "view_user_details", "suspend_users", "verify_users"})
_CONTENT = frozenset({"verify_ip", "moderate_content", "resolve_disputes"})
_LICENCES = frozenset({"approve_licenses", "revoke_licenses", "view_license_details"})
_TRANSACTIONS = frozenset({"view_transactions", "process_refunds", "resolve_payment_issues"})
_PLATFORM = frozenset({"platform_settings", "view_analytics", "manage_notifications"})
_SYSTEM = frozenset({"audit_logs", "generate_reports", "system_maintenance"})

ROLES = MappingProxyType({
    "member": frozenset({"purchase_products", "verify_authenticity", "comment", "follow", "trade"}),
    "creator": frozenset({"create_ip", "edit_own", "delete_own", "manage_licenses", "view_analytics", "launch_token"}),
    "secondary_creator": frozenset({"apply_license", "create_products", "manage_inventory"}),
    "studio": frozenset({"apply_license", "manage_seats", "manage_windows", "manage_campaigns"}),
    "moderator": frozenset({"verify_ip", "moderate_content", "edit_any_work", "delete_any_work", "view_user_details"}),
    "admin": _USERS | _CONTENT | _LICENCES | _TRANSACTIONS | _PLATFORM | _SYSTEM,
    "operator": frozenset({"manage_markets", "operate_settlement"}),
    "super_admin": frozenset({EVERYTHING}),
})  # fmt: skip

DEPARTMENTS = MappingProxyType({
    "content": _CONTENT | _LICENCES,
    "payments": _TRANSACTIONS,
    "users": _USERS,
    "analytics": frozenset({"view_analytics", "generate_reports"}),
})  # fmt: skip

_KNOWN = frozenset().union(*ROLES.values())


@dataclass(frozen=True, slots=True)
class Grant:
    """A role in force. Departments narrow an admin and mean nothing elsewhere."""

    role: str
    departments: tuple[str, ...] = ()


def permissions_of(grants: Iterable[Grant]) -> frozenset[str]:
    """What an account with these grants may do; a member's permissions are always among them."""
    found = set(ROLES["member"])
    for grant in grants:
        if grant.role == "admin" and grant.departments:
            for department in grant.departments:
                found |= DEPARTMENTS[department]
        else:
            found |= ROLES[grant.role]
    return frozenset(found)


def how_to_get(permission: str) -> str:
    """Which roles permit it, and who gives them, in a sentence. No account gives itself another role than creator."""
    roles = [role for role, permitted in ROLES.items() if permission in permitted]
    named = " or ".join(roles)
    own = "; POST /v1/creators makes a creator" if "creator" in roles else ""
    return f"The role {named} has it, which the exchange's operator gives (`byline people grant`){own}."


def may(permissions: frozenset[str], permission: str) -> bool:
    """Is `permission` among them? Raises KeyError for one that no role grants: a typing error of ours."""
    if permission not in _KNOWN:
        raise KeyError(permission)
    return permission in permissions or EVERYTHING in permissions
