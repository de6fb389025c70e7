"""Commands that move money in the core, sent until the core has answered."""

from platform_api.kernel.context import Context
from platform_api.ledger.commands import MoneyCommands

__all__ = ["CONTEXT"]

CONTEXT = Context("ledger", (), MoneyCommands)
