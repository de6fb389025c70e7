"""What a new exchange lists before its first order: a dollar coin, three creators' tokens, the house accounts.

The commands are ordinary ones of the rulebook, sent by the operator through the gateway. Each may be sent again: a
listing repeated is refused `exists`, an account repeated changes nothing, a deposit repeated is `duplicate`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["HOUSE_ACCOUNTS", "QUOTE", "TOKENS", "Token", "genesis_commands"]

QUOTE = "USDC"

HOUSE_ACCOUNTS = ("platform:revenue", "platform:promo", "platform:gas")


@dataclass(frozen=True, slots=True)
class Token:
    """A creator's token as it is listed. Prices are decimal strings in USDC."""

    symbol: str
    creator: str
    start_price: str
    tick: str = "0.01"
    lot: str = "0.01"

    @property
    def market(self) -> str:
        return f"{self.symbol}-{QUOTE}"


TOKENS = (
    Token("INK", "a novelist who writes in instalments", "12.40"),
    Token("REEL", "a film maker", "48.15"),
    Token("VERSE", "a poet with an audio show", "3.75"),
)


def genesis_commands() -> Iterator[dict[str, Any]]:
    """The commands in the order in which they must be sent."""
    yield {"op": "asset", "asset": QUOTE, "scale": 6, "settled": True}
    for token in TOKENS:
        yield {"op": "asset", "asset": token.symbol, "scale": 4, "settled": True}
        yield {
            "op": "market", "market": token.market, "base": token.symbol, "quote": QUOTE,
            "tick": token.tick, "lot": token.lot, "max_price": "10000", "max_size": "1000000",
        }  # fmt: skip
    for account in HOUSE_ACCOUNTS:
        yield {"op": "account", "account": account, "overdraft": "forced"}
