"""A core with one market and the commands to drive it, for tests of matching and money.

BTC has scale 0, USD scale 0, tick 1, lot 1: so k = u = 1 and a notional is price × size.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.core import Core, CoreLimits
from engine.messages import layout
from engine.messages.codes import (
    ABSENT,
    CancelReason,
    CommandKind,
    EventKind,
    OrderType,
    RejectCode,
    SelfTrade,
    Side,
    TimeInForce,
)

BTC, USD = 0, 1
FUNDS = 10_000_000
DTYPES = {
    EventKind.ACCEPTED: layout.ACCEPTED, EventKind.REJECTED: layout.REJECTED, EventKind.DUPLICATE: layout.DUPLICATE,
    EventKind.TRADE: layout.TRADE, EventKind.CANCELED: layout.CANCELED, EventKind.REPLACED: layout.REPLACED,
    EventKind.PREVENTED: layout.PREVENTED, EventKind.BALANCE: layout.BALANCE,
    EventKind.TRANSFERRED: layout.MONEY_EVENT, EventKind.PENDED: layout.MONEY_EVENT,
    EventKind.POSTED: layout.MONEY_EVENT, EventKind.VOIDED: layout.MONEY_EVENT, EventKind.CUT: layout.CUT,
    EventKind.DONE: layout.EVENT,
    EventKind.PHASE_CHANGED: layout.PHASE_CHANGED,
    EventKind.UNCROSSED: layout.UNCROSSED,
}  # fmt: skip


class World:
    """Sends commands, checks the whole core after each, and keeps the events of the last one."""

    def __init__(self, *, accounts: int = 3, taker_ppm: int = 0, maker_ppm: int = 0, limits: CoreLimits | None = None):
        self.core = Core(limits)
        self.sequence = 0
        self.ids = 0
        self.now = 0
        for name in (b"BTC", b"USD"):
            self.send(CommandKind.ASSET, layout.ASSET, name=name)
        self.market(b"BTC-USD", taker_ppm=taker_ppm, maker_ppm=maker_ppm)
        self.accounts = [self.account(b"trader-%d" % i) for i in range(accounts)]
        for account in self.accounts:
            for asset in (BTC, USD):
                self.deposit(account, asset, FUNDS, f"fund-{account}-{asset}")

    def record(
        self, kind: CommandKind, dtype: np.dtype, extensions: tuple[np.ndarray, ...] = (), **fields: Any
    ) -> bytes:
        head = np.zeros(1, dtype)
        head["kind"], head["slots"] = kind, 1 + sum(len(part.view(layout.COMMAND)) for part in extensions)
        head["sequence"], head["ts"] = self.sequence + 1, self.now
        for name, value in fields.items():
            head[name] = value
        return head.tobytes() + b"".join(part.tobytes() for part in extensions)

    def send(
        self, kind: CommandKind, dtype: np.dtype, extensions: tuple[np.ndarray, ...] = (), **fields: Any
    ) -> list[np.void]:
        slots = self.core.apply(self.record(kind, dtype, extensions, **fields))
        self.sequence += 1
        self.core.check()
        events = []
        at = 0
        while at < len(slots):
            event = slots[at : at + 1]
            events.append(event.view(DTYPES[EventKind(int(event["kind"][0]))])[0])
            at += int(event["slots"][0])
        assert [int(event["index"]) for event in events] == list(range(len(events)))
        return events

    def market(self, name: bytes, **terms: int) -> list[np.void]:
        extra = np.zeros(1, layout.MARKET_EXTRA)
        extra["tick"] = extra["lot"] = 1
        mask = 0
        for field, value in terms.items():
            extra[field] = value
            mask |= layout.MarketMask[
                {"ENTRY_BAND_PPM": "ENTRY_BAND", "EXEC_BAND_PPM": "EXEC_BAND"}.get(field.upper(), field.upper())
            ]
        return self.send(CommandKind.MARKET, layout.MARKET, (extra,), name=name, base=BTC, quote=USD, mask=mask)

    def account(self, name: bytes, **fields: int) -> int:
        event = self.send(CommandKind.ACCOUNT, layout.ACCOUNT, name=name, **fields)[0]
        assert event["kind"] == EventKind.DONE, RejectCode(int(event["reason"]))
        return int(event["account"])

    def deposit(self, account: int, asset: int, amount: int, ref: str, **fields: Any) -> list[np.void]:
        fields = {"not_after": ABSENT, **fields}
        return self.send(
            CommandKind.DEPOSIT, layout.DEPOSIT, ref=ref.encode(), account=account, asset=asset, amount=amount, **fields
        )

    def transfer(self, ref: str, parts: list[tuple[int, int, int, int, int, int]], **fields: Any) -> list[np.void]:
        """Parts are (source, asset, amount, target, leg, weight or 0 for a plain leg)."""
        slots = np.zeros((len(parts) + 3) // 4 * 4, layout.PART)
        for i, (source, asset, amount, target, leg, weight) in enumerate(parts):
            slots[i]["source"], slots[i]["asset"], slots[i]["amount"] = source, asset, amount
            slots[i]["target"], slots[i]["leg"] = target, leg
            slots[i]["weight"], slots[i]["is_share"] = weight, weight > 0
        fields = {"expires_at": ABSENT, "not_after": ABSENT, **fields}
        return self.send(
            CommandKind.TRANSFER, layout.TRANSFER, (slots,), ref=ref.encode(), part_count=len(parts),
            leg_count=len({part[4] for part in parts}), **fields,
        )  # fmt: skip

    def decide(self, kind: CommandKind, ref: str, not_after: int = ABSENT) -> list[np.void]:
        return self.send(kind, layout.POST, ref=ref.encode(), not_after=not_after)

    def place(
        self, account: int, side: Side, price: int | None, size: int, *, client_id: str | None = None,
        tif: TimeInForce = TimeInForce.DEFAULT, flags: int = 0, stp: SelfTrade = SelfTrade.CANCEL_NEWEST,
        market: int = 0,
    ) -> list[np.void]:  # fmt: skip
        if client_id is None:
            self.ids += 1
            client_id = f"c{self.ids}"
        return self.send(
            CommandKind.PLACE, layout.PLACE, account=account, market=market, client_id=client_id.encode(), side=side,
            price=ABSENT if price is None else price, size=size,
            type=OrderType.MARKET if price is None else OrderType.LIMIT,
            tif=tif, flags=flags, stp=stp, stop_price=ABSENT, display_size=ABSENT, expires_at=ABSENT,
        )  # fmt: skip

    def cancel(self, account: int, order: int | str) -> list[np.void]:
        flags = layout.OrderFlag.BY_ORDER_ID if isinstance(order, int) else 0
        text = order.to_bytes(8, "little") if isinstance(order, int) else order.encode()
        return self.send(CommandKind.CANCEL, layout.CANCEL, account=account, client_id=text, flags=flags)

    def replace(self, account: int, order: int | str, **fields: Any) -> list[np.void]:
        flags = layout.OrderFlag.BY_ORDER_ID if isinstance(order, int) else 0
        text = order.to_bytes(8, "little") if isinstance(order, int) else order.encode()
        fields = {"price": ABSENT, "size": ABSENT, "stop_price": ABSENT, **fields}
        return self.send(CommandKind.REPLACE, layout.REPLACE, account=account, client_id=text, flags=flags, **fields)

    def tick(self, now: int) -> list[np.void]:
        self.now = now
        return self.send(CommandKind.TICK, layout.COMMAND)

    def balance(self, account: int, asset: int) -> tuple[int, int]:
        for row in self.core.balances():
            if row["account"] == account and row["asset"] == asset:
                return int(row["available"]), int(row["held"])
        return 0, 0

    def book(self) -> str:
        """The open orders as text: `buy 100: 5 3 | sell 101: 2`, best first, queues in order."""
        levels: dict[tuple[int, int], list[int]] = {}
        for row in self.core.open_orders():
            levels.setdefault((int(row["side"]), int(row["price"])), []).append(int(row["leaves"]))
        return " | ".join(
            f"{Side(side).word} {price}: {' '.join(map(str, sizes))}" for (side, price), sizes in levels.items()
        )


class Told(World):
    """Remembers its records, to tell them to another core."""

    def __init__(self, **terms: Any) -> None:
        self.told: list[bytes] = []
        super().__init__(**terms)

    def record(self, *args: Any, **fields: Any) -> bytes:
        self.told.append(super().record(*args, **fields))
        return self.told[-1]


def words(events: list[np.void]) -> list[str]:
    """Events as short words: `accepted`, `trade 3@100`, `canceled ioc 2`, `rejected bad_size`."""
    out = []
    for event in events:
        kind = EventKind(int(event["kind"]))
        if kind == EventKind.TRADE:
            out.append(f"trade {event['size']}@{event['price']}")
        elif kind == EventKind.CANCELED:
            out.append(f"canceled {CancelReason(int(event['reason'])).word} {event['leaves']}")
        elif kind == EventKind.REJECTED:
            out.append(f"rejected {RejectCode(int(event['reason'])).word}")
        else:
            out.append(kind.word)
    return out
