"""Commands that move money in the core, sent until the core has answered."""

from platform_api.kernel.context import Context, Kernel
from platform_api.ledger.commands import MoneyCommands

__all__ = ["CONTEXT"]


async def _upkeep(kernel: Kernel) -> None:
    await kernel.service(MoneyCommands).sweep()


CONTEXT = Context("ledger", (), MoneyCommands, upkeep=_upkeep)
