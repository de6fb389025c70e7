"""Everything that identity offers, to its routes and to other contexts."""

from __future__ import annotations

from platform_api.identity.keys import Keys
from platform_api.identity.owner_letters import OwnerLetters
from platform_api.identity.people import People
from platform_api.identity.roles import Roles
from platform_api.identity.sessions import Sessions
from platform_api.identity.suspensions import Suspensions
from platform_api.identity.wallets import Wallets
from platform_api.kernel.context import Kernel

__all__ = ["IdentityService"]


class IdentityService:
    """One part for each concern; they share nothing but the tables."""

    def __init__(self, kernel: Kernel) -> None:
        self.letters = OwnerLetters(kernel)
        self.people = People(kernel, self.letters)
        self.keys = Keys(kernel, self.letters)
        self.sessions = Sessions(kernel, self.keys)
        self.suspensions = Suspensions(kernel, self.sessions, self.keys)
        self.wallets = Wallets(kernel, self.sessions, self.letters)
        self.roles = Roles(kernel.events, kernel.audit)
