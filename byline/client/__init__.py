"""Python client library for order entry.

from byline.client import TradingClient, generate_key

async with await TradingClient.connect("ws://127.0.0.1:7401", key) as client:
    ack = await client.place("CRT-USD", "my-1", "buy", "limit", size="10", price="1.25")
    await client.cancel(client_id="my-1")
    async for event in client.events():
        print(event["event"], event)
"""

from byline.client.keys import generate_key, load_key, public_key, sign_in_signature
from byline.client.receipts import ReceiptInvalid, verify_receipt
from byline.client.trading import (
    CommandError,
    ConnectionLost,
    OutcomeUnknownError,
    Rejected,
    SignInFailed,
    TradingClient,
    TradingError,
)

__all__ = [
    "CommandError",
    "ConnectionLost",
    "OutcomeUnknownError",
    "ReceiptInvalid",
    "Rejected",
    "SignInFailed",
    "TradingClient",
    "TradingError",
    "generate_key",
    "load_key",
    "public_key",
    "sign_in_signature",
    "verify_receipt",
]
