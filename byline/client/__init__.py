"""Python client library. `Trader` places and follows orders and survives its connection; `TradingClient` is one
connection. Market data: `byline.client.market_data`. Typed messages: `byline.client.messages`. Docs: docs/clients.md.

from byline.client import Trader, generate_key

async with Trader("ws://127.0.0.1:7401", key) as trader:
    order = await trader.place("CRT-USD", "my-1", "buy", "limit", size="10", price="1.25")
    print(order.state, order.filled)
    await trader.cancel("my-1")
"""

from byline.client.errors import (
    CommandError,
    ConnectionLost,
    EventsMissed,
    OutcomeUnknownError,
    Rejected,
    SignInFailed,
    TradingError,
)
from byline.client.keys import generate_key, load_key, public_key, sign_in_signature
from byline.client.receipts import ReceiptInvalid, verify_receipt
from byline.client.tracker import OrderTracker, TrackedOrder
from byline.client.trader import DuplicateId, Forgotten, NeverReceived, Trader
from byline.client.trading import TradingClient

__all__ = [
    "CommandError",
    "ConnectionLost",
    "DuplicateId",
    "EventsMissed",
    "Forgotten",
    "NeverReceived",
    "OrderTracker",
    "OutcomeUnknownError",
    "ReceiptInvalid",
    "Rejected",
    "SignInFailed",
    "TrackedOrder",
    "Trader",
    "TradingClient",
    "TradingError",
    "generate_key",
    "load_key",
    "public_key",
    "sign_in_signature",
    "verify_receipt",
]
