"""What a launch is made of: the checks of its numbers, and the finished commands for the core. Pure.

    launch:ID:asset     the token, settled on Sui
    launch:ID:account   `launch:SYM`, which trades without fees: the platform's share is of the proceeds
    launch:ID:payee     `pay:ACCOUNT`, where the proceeds go
    launch:ID:market    SYM-USDC, collecting orders
    launch:ID:mint      the whole supply, from outside into `launch:SYM`
    launch:ID:share     what is not for sale, to the creator
    launch:ID:sale      the sell order of `launch:SYM` at the start price (client id `sale`)

Each has its ref and is refused after `not_after`, so it acts at most once however often it is sent. An order has no
ref: its client id does the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from platform_api.errors import ApiError, ErrorCode
from platform_api.money import decimal_text
from platform_api.tokens.models import TokenRequest

__all__ = [
    "DECIMALS", "PHASES", "QUOTE", "RESERVED_WORDS", "SYMBOL", "Command", "launch_commands", "phase_commands",
    "proceeds_command", "terms",
]  # fmt: skip

SYMBOL = re.compile(r"[A-Z][A-Z0-9]{2,9}", re.ASCII)
RESERVED_WORDS = frozenset({
    "ADMIN", "BASE", "BOND", "BTC", "BYLINE", "CASH", "COIN", "DAI", "ETH", "EUR", "EURC", "FEE", "FEES", "FRAC", "GAS",
    "GBP", "JPY", "NONE", "NULL", "PGK", "PYUSD", "QUOTE", "SUI", "SYSTEM", "TEST", "TOKEN", "TRUE", "USD", "USDC",
    "USDT", "WAL", "WBTC", "WETH",
})  # fmt: skip
"""Currencies, assets of other chains, and words that would be read as something else."""

QUOTE = "USDC"
DECIMALS = 4
TICK, LOT = "0.0001", "0.01"
PRICE_MAX, SIZE_MAX = 10_000, 10_000_000
"""Price × size stays far below what the core's 64 bits hold (rulebook, section 1)."""
EXEC_BAND_PPM = 250_000
"""How far from the last price an order trades before it stops (docs/decisions/0056)."""
SALE = "sale"
REF_KEPT = timedelta(days=7)
PHASES: Mapping[str, str] = {"open": "continuous", "halt": "halt", "resume": "continuous", "close": "closed"}
"""Step → phase of the market."""

Command = tuple[str, str, dict[str, Any]]
"""(step, ref, body)"""


def terms(body: TokenRequest) -> tuple[int, int]:
    """Total supply and size of the sale in units. Raises ApiError VALIDATION_ERROR."""
    supply, sale = int(body.total_supply), int(body.sale_size)
    if body.symbol in RESERVED_WORDS:
        raise _wrong("symbol", "reserved_word", "is a word that is kept")
    if supply > SIZE_MAX:
        raise _wrong("total_supply", "too_large", f"must be at most {SIZE_MAX:,}")
    if sale > supply:
        raise _wrong("sale_size", "too_large", "must not be more than total_supply")
    if not 0 < _ticks(body.start_price) <= _ticks(str(PRICE_MAX)):
        raise _wrong("start_price", "bad_price", f"must be above 0 and at most {PRICE_MAX:,}")
    return supply * 10**DECIMALS, sale * 10**DECIMALS


def launch_commands(token: Mapping[str, Any]) -> Iterator[Command]:
    """In the order in which they must be sent. `token` is the row of the document."""
    symbol, market, until = token["symbol"], token["market"], _until(token["created_at"])
    account, price = f"launch:{symbol}", token["start_price"]
    amounts = {
        name: decimal_text(units, token["decimals"])
        for name, units in (
            ("supply", token["total_supply"]), ("sale", token["sale_size"]),
            ("share", token["total_supply"] - token["sale_size"]),
        )
    }  # fmt: skip
    bodies: dict[str, dict[str, Any]] = {
        "asset": {"op": "asset", "asset": symbol, "scale": token["decimals"], "settled": True},
        "account": {"op": "account", "account": account, "taker_ppm": 0, "maker_ppm": 0},
        "payee": {"op": "account", "account": f"pay:{token['account_id']}", "overdraft": "forced"},
        "market": {
            "op": "market", "market": market, "base": symbol, "quote": token["quote_asset"], "tick": TICK, "lot": LOT,
            "max_price": str(PRICE_MAX), "max_size": str(SIZE_MAX), "phase": "preopen", "reference_price": price,
            "exec_band_ppm": EXEC_BAND_PPM,
        },
        "mint": {"op": "deposit", "account": account, "asset": symbol, "amount": amounts["supply"], "code": "launch"},
        "share": {
            "op": "transfer", "code": "launch",
            "legs": [{"from": account, "asset": symbol, "amount": amounts["share"],
                      "to": f"user:{token['account_id']}"}],
        },
    }  # fmt: skip
    if amounts["share"] == "0":
        del bodies["share"]
    for step, body in bodies.items():
        ref = f"launch:{token['id']}:{step}"
        yield step, ref, body | {"ref": ref, "not_after": until}
    order = {
        "op": "place", "account": account, "client_id": SALE, "market": market, "side": "sell", "type": "limit",
        "tif": "gtc", "size": amounts["sale"], "price": price,
    }  # fmt: skip
    yield "sale", f"launch:{token['id']}:sale", order


def phase_commands(market: str, step: str, ref: str, at: datetime) -> Iterator[Command]:
    """Opening goes through an auction of what was collected; in a market that is open already there is none."""
    if step == "open":
        yield "uncross", f"{ref}:uncross", {"op": "uncross", "market": market}
    yield step, ref, {"op": "phase", "market": market, "phase": PHASES[step], "ref": ref, "not_after": _until(at)}


def proceeds_command(
    token: Mapping[str, Any], units: int, scale: int, platform_bps: int, ref: str, at: datetime
) -> Command:
    """Receivers in ascending order, so ties of the split go to the earlier by rule."""
    leg = {
        "from": f"launch:{token['symbol']}", "asset": token["quote_asset"], "amount": decimal_text(units, scale),
        "shares": [
            {"to": f"pay:{token['account_id']}", "weight": 10_000 - platform_bps},
            {"to": "platform:revenue", "weight": platform_bps},
        ],
    }  # fmt: skip
    body = {"op": "transfer", "legs": [leg], "ref": ref, "not_after": _until(at), "code": "launch"}
    return "proceeds", ref, body


def launch_ref(token_id: UUID, number: str) -> str:
    return f"launch:{token_id}:out:{number}"


def _ticks(price: str) -> int:
    whole, _, rest = price.partition(".")
    return int(whole + rest.ljust(4, "0"))


def _until(at: datetime) -> int:
    """From the document, never from the clock of a later try. Nanoseconds since 1970."""
    return int((at + REF_KEPT).timestamp()) * 10**9


def _wrong(field: str, reason: str, rule: str) -> ApiError:
    return ApiError(ErrorCode.VALIDATION_ERROR, f"{field}: {rule}", reason=reason, field=field)
