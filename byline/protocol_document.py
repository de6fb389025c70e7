"""docs/protocol/asyncapi.json: both sockets of the exchange in AsyncAPI 3.0, generated from the clients' message types.

    python -m byline.protocol_document            writes it
    python -m byline.protocol_document --check    exit 1 if what is there differs

The types (`byline.client.messages`, `requests` and `market_messages`) are the definition; a test holds the document to
them, another the messages to what a running exchange says, and a third the fields of requests to those that it takes.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from byline.client import market_messages, messages, requests

__all__ = ["PATH", "document", "text"]

PATH = Path(__file__).parent.parent / "docs" / "protocol" / "asyncapi.json"


def document() -> dict[str, Any]:
    """The whole AsyncAPI document as plain values."""
    trading = [*messages.EVENTS.values(), *messages.ANSWERS.values()]
    feed = [*dict.fromkeys(market_messages.CHANNELS.values()), *market_messages.REPLIES.values()]
    asked = list(requests.REQUESTS.values())
    components: dict[str, Any] = {"FeedRequest": _feed_request()}
    for prefix, kinds in (("", trading), ("Request", asked), ("Feed", feed)):
        refs, found = msgspec.json.schema_components(
            kinds, ref_template="#/components/schemas/" + prefix + "{name}"
        )
        assert len(refs) == len(kinds)
        components |= {f"{prefix}{name}": schema for name, schema in found.items()}
    channels = {
        "orderEntry": _channel(
            "/", "orderEntry", [kind.__name__ for kind in trading], [f"Request{kind.__name__}" for kind in asked]
        ),
        "marketData": _channel("/", "marketData", [f"Feed{kind.__name__}" for kind in feed], ["FeedRequest"]),
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Byline", "version": "1",
            "description": "Order entry (byline.json.v1) and market data. The rules are in docs/rulebook.md, "
            "docs/protocol/order-entry.md and docs/protocol/market-data.md. Fields may be added; ignore unknown ones.",
        },
        "servers": {
            "orderEntry": {"host": "127.0.0.1:7401", "protocol": "ws", "description": "Sign in first."},
            "marketData": {"host": "127.0.0.1:7402", "protocol": "ws", "description": "Public."},
        },
        "channels": channels,
        "operations": {
            f"{verb}{name[0].upper()}{name[1:]}": {
                "action": action, "channel": {"$ref": f"#/channels/{name}"},
                "messages": [
                    {"$ref": f"#/channels/{name}/messages/{message}"}
                    for message in channel["messages"]
                    if (message.startswith("Request") or message == "FeedRequest") == (action == "receive")
                ],
            }
            for name, channel in channels.items() for verb, action in (("to", "receive"), ("from", "send"))
        },
        "components": {"schemas": components},
    }  # fmt: skip


def text() -> str:
    """The document as the file has it."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


def _channel(address: str, server: str, said: list[str], asked: list[str]) -> dict[str, Any]:
    return {
        "address": address,
        "servers": [{"$ref": f"#/servers/{server}"}],
        "messages": {name: {"payload": {"$ref": f"#/components/schemas/{name}"}} for name in said + asked},
    }


def _feed_request() -> dict[str, Any]:
    return {
        "type": "object", "title": "FeedRequest", "required": ["type"],
        "properties": {
            "type": {"enum": ["subscribe", "unsubscribe", "replay", "history", "ping"]},
            "channel": {"type": "string"}, "depth": {"enum": [0, 1, 5, 10, 25, 50, 100, 500]},
            "mode": {"enum": ["lossless", "conflated", "latest"]}, "interval_ms": {"type": "integer"},
            "from": {"type": "integer"}, "to": {"type": "integer"}, "before": {"type": "integer"},
            "limit": {"type": "integer"}, "rid": {"type": ["integer", "string"]},
        },
    }  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Write or check the file; the exit code."""
    parser = argparse.ArgumentParser(description="Write docs/protocol/asyncapi.json from the message types.")
    parser.add_argument("--check", action="store_true", help="only compare; exit 1 if the file differs")
    if not parser.parse_args(argv).check:
        PATH.write_text(text())
        return 0
    if PATH.exists() and PATH.read_text() == text():
        return 0
    print(f"{PATH} differs from the message types: run python -m byline.protocol_document", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
