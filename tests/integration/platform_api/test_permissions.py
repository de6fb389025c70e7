"""What a permission opens, and that each is asked for."""

import ast
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import platform_api
from platform_api.identity.service import IdentityService
from platform_api.permissions import ROLES
from tests.integration.platform_api.test_works import story
from tests.support.licences import apply, issued, keyed, owner_of_work, studio, terms_for

UNBUILT = {
    "comment": "comments",
    "create_products": "products", "manage_inventory": "products", "verify_authenticity": "products",
    "manage_campaigns": "campaigns",
    "manage_notifications": "notifications of staff",
    "manage_users": "lists of accounts for staff", "view_user_details": "lists of accounts for staff",
    "platform_settings": "settings kept in the database",
    "resolve_disputes": "disputes", "resolve_payment_issues": "disputes",
}  # fmt: skip
"""Permissions of slices that have no routes yet."""
EVERYBODYS = {"trade"}
"""Of the role that no account is without, and of no other: to ask for it would close nothing."""
ASKING = {"permitted", "check_may", "may", "lock_own"}


def asked():
    known = frozenset().union(*ROLES.values())
    for path in sorted(Path(platform_api.__file__).parent.rglob("*.py")):
        if path.name == "permissions.py":
            continue
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call):
                continue
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", None)
            if name in ASKING:
                for part in (node for argument in call.args for node in ast.walk(argument)):
                    if isinstance(part, ast.Constant) and part.value in known:
                        yield part.value


def test_every_permission_is_asked_for_or_of_what_is_not_built():
    known = frozenset().union(*ROLES.values()) - {"*"}
    assert known - set(asked()) == UNBUILT.keys() | EVERYBODYS


async def test_who_lacks_a_permission_is_told_how_to_get_it(world):
    _, bearer = await world.sign_in()
    for path, words in (
        ("/v1/license-applications", "secondary_creator or studio has it, which the exchange's operator gives (`by"),
        ("/v1/works", "; POST /v1/creators makes a creator."),
    ):
        answer = await world.refused(403, "FORBIDDEN", "permission_missing", "POST", path, headers=bearer, json={})
        assert words in answer.json()["error"]["message"]


async def test_who_is_no_creator_any_more_edits_sells_and_licenses_nothing(world):
    await world.sql("INSERT INTO exchange.asset VALUES (900, 'USDC', 6, true) ON CONFLICT DO NOTHING")
    owner_id, owner, work = await owner_of_work(world)
    draft = await story(world, owner, "Draft")
    chapters = f"/v1/works/{draft['id']}/chapters"
    text = {"title": "One", "body": "The letter was heavier than it looked. " * 4}
    chapter = await world.data("POST", chapters, headers=owner, json=text)
    price = {"kind": "purchase", "asset": "USDC", "price": "10"}
    offer = await world.data("POST", f"/v1/works/{work['id']}/offers", headers=owner, json=price)
    planned = {"work_id": work["id"], "window_type": "svod", "territories": ["PG"], "starts_at": "2199-01-01T00:00:00Z"}
    window = await world.data("POST", "/v1/windows", headers=owner, json=planned)
    terms = await terms_for(world, owner, work)
    buyer_id, buyer = await studio(world)
    application = await apply(world, buyer, terms)
    held = await issued(world, owner, work, buyer_id)
    async with world.kernel.database.transaction() as db:
        roles = world.kernel.service(IdentityService).roles
        assert await roles.revoke(db, UUID(owner_id), "creator", actor=None, from_command_line=True)
    (row,) = await world.sql("SELECT permission_version FROM identity.account WHERE id = $1::text::uuid", owner_id)
    caller = world.kernel.signer.read(owner["authorization"].split()[1])
    token = world.kernel.signer.issue(replace(caller, version=row["permission_version"]))  # as a refresh gives it
    fresh = {"authorization": f"Bearer {token}"}
    shown = await world.data("GET", f"/v1/works/{draft['id']}", headers=fresh)
    assert shown["title"] == "Draft", "it is theirs, and they see it"
    inside, part = f"/v1/works/{work['id']}", f"/v1/chapters/{chapter['id']}"
    lines = [{"account_id": owner_id, "role": "producer", "bps": 10_000}]
    for method, path, body in (
        ("PATCH", inside, {"title": "X"}),
        ("DELETE", f"/v1/works/{draft['id']}", None),
        ("POST", f"/v1/works/{draft['id']}/publish", None),
        ("POST", f"{inside}/archive", None),
        ("POST", f"{inside}/verification", {"statement": "Mine."}),
        ("POST", chapters, text),
        ("PATCH", part, {"title": "Two"}),
        ("DELETE", part, None),
        ("POST", f"{part}/publish", None),
        ("POST", f"{part}/unpublish", None),
        ("POST", f"{inside}/assets", {"role": "poster", "file_id": str(uuid4())}),
        ("DELETE", f"{inside}/assets/{uuid4()}", None),
        ("PUT", f"{inside}/collaborators", {"collaborators": []}),
        ("POST", f"{inside}/offers", price),
        ("PATCH", f"/v1/offers/{offer['id']}", {"price": "11"}),
        ("PUT", f"{inside}/royalty-rules", {"lines": lines}),
        ("POST", "/v1/windows", planned | {"window_type": "avod"}),
        ("PATCH", f"/v1/windows/{window['id']}", {"territories": ["FJ"]}),
        ("POST", f"{inside}/license-terms", {"license_type": "standard"}),
        ("PATCH", f"/v1/license-terms/{terms['id']}", {"base_fee": "7"}),
        ("DELETE", f"/v1/license-terms/{terms['id']}", None),
        ("POST", f"/v1/license-applications/{application['id']}/approve", None),
        ("POST", f"/v1/license-applications/{application['id']}/reject", {"reason": "No."}),
        ("POST", f"/v1/licenses/{held['id']}/renew", None),
        ("POST", f"/v1/licenses/{held['id']}/works", {"work_id": work["id"]}),
    ):
        await world.refused(403, "FORBIDDEN", "permission_missing", method, path, headers=keyed(fresh), json=body)
    ended = await world.data("DELETE", f"/v1/windows/{window['id']}", headers=fresh)
    assert ended["status"] == "cancelled", "what takes something back stays open"
