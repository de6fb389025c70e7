"""The adversary's commands on orders and markets, as records: place, cancel, replace, phases, safeguards, time.

Every value is taken near what the book now is, so that it matters; one record in fifty gets a field spoilt.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from bench.adversary_money import MARKETS, NAMES_OF_MARKETS
from engine.messages import layout
from engine.messages.codes import (
    ABSENT,
    INVALID,
    NIL,
    CommandKind,
    OrderType,
    Phase,
    SelfTrade,
    Side,
    TimeInForce,
)
from engine.messages.encode import place_record, session_word
from engine.messages.layout import OrderFlag, PlaceFlag

if TYPE_CHECKING:
    from bench.adversary import Adversary

__all__ = ["OrderCommands"]

T = TypeVar("T")

_TIFS = {
    OrderType.LIMIT: (
        *(TimeInForce.DEFAULT,) * 4, *(TimeInForce.GTC,) * 9, TimeInForce.IOC, TimeInForce.IOC, *(TimeInForce.FOK,) * 3,
        *(TimeInForce.GTD,) * 3,
    ),
    OrderType.MARKET: (TimeInForce.DEFAULT, TimeInForce.DEFAULT, TimeInForce.IOC),
    OrderType.STOP: (TimeInForce.DEFAULT, TimeInForce.GTC, TimeInForce.GTD),
    OrderType.STOP_LIMIT: (
        TimeInForce.DEFAULT, TimeInForce.GTC, TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK, TimeInForce.FOK,
        TimeInForce.GTD,
    ),
}  # fmt: skip
_STOPS = (OrderType.STOP, OrderType.STOP_LIMIT)
_MODES = (*(SelfTrade.CANCEL_NEWEST,) * 2, *(SelfTrade.CANCEL_OLDEST,) * 4, SelfTrade.CANCEL_BOTH,
          *(SelfTrade.DECREMENT,) * 4, *(SelfTrade.NONE,) * 3)  # fmt: skip
_SIZES = (1, 2, 3, 3, 5, 9, 25)
_BUDGETS = (1, 77, 500, 1_777, 5_000, 5_003, 12_345, 33_333, 33_333, 299_999, 2**62)
_SESSIONS = (session_word("s1"), session_word("s2"))
_PHASES = (*(Phase.CONTINUOUS,) * 3, *(Phase.AUCTION,) * 5, *(Phase.PREOPEN,) * 3, Phase.HALT, Phase.HALT,
           Phase.CANCEL_ONLY, Phase.CLOSED)  # fmt: skip
_ODD = (0, -1, 1, 2, ABSENT, INVALID, 2**62, 2**63 - 1, 10**6, 1 << 40)
_ODD_BYTES = (0, 1, 2, 3, 4, 5, 6, 255)
_PLACE_NUMBERS = tuple(72 + 8 * i for i in range(5))  # price, size, stop_price, display_size, expires_at
_REPLACE_NUMBERS = (72, 80, 88)


class OrderCommands:
    def __init__(self, adversary: Adversary) -> None:
        self._a = adversary
        self._random = adversary.random

    # ------------------------------------------------------------ orders

    def place(self) -> bytearray:
        chance = self._random.random
        account, market = self._trader(), int(chance() * len(MARKETS))
        side, kind = int(chance() * 2), self._kind()
        partner = self._partner() if chance() < self._a.mood.pair else None
        if partner is not None:
            account, market, name, side, other = partner
            if chance() < 0.93:
                kind = OrderType.LIMIT if other in _STOPS else _STOPS[chance() < 0.5]
        tif = self._pick(_TIFS[kind])
        if partner is not None and chance() < 0.9:
            tif = TimeInForce.GTC
        flags, size, stop, display, expires = PlaceFlag(0), self._size(market), ABSENT, ABSENT, ABSENT
        price = self._price(market) if kind in (OrderType.LIMIT, OrderType.STOP_LIMIT) else ABSENT
        if kind in _STOPS:
            stop = self._stop_price(market, side)
        elif kind == OrderType.LIMIT and chance() < 0.1:
            flags |= PlaceFlag.POST_ONLY
        if kind in (OrderType.MARKET, OrderType.STOP) and side == Side.BUY and chance() < 0.4:
            flags |= PlaceFlag.BUDGET
            size = self._pick(_BUDGETS)
        if chance() < (self._a.mood.iceberg if kind == OrderType.LIMIT else 0.01):
            display, size = self._pick((1, 1, 2, 3)), size if size > 900 else size * self._pick((1, 2, 4))
            tif = TimeInForce.GTC if chance() < 0.8 else tif
        if tif == TimeInForce.GTD:
            expires = self._a.later(-70, 3, 30, 100, 400, 900, 2**62)
        if partner is not None:
            flags |= PlaceFlag.HAS_OCO
        client_id = self._client_id(account) if chance() < 0.97 else self._known_id(account)
        record = place_record(
            account, market, client_id, side, kind, tif, price, size, flags=flags, stp=self._pick(_MODES),
            session=self._pick(_SESSIONS) if chance() < 0.1 else 0, stop_price=stop, display_size=display,
            expires_at=expires, slots=1 if partner is None else 2,
        )  # fmt: skip
        if partner is not None:
            record[layout.SLOT_BYTES : layout.SLOT_BYTES + len(name)] = name
        if chance() < 0.04:
            self._spoil(record, _PLACE_NUMBERS, (120, 121, 122, 123))
        return record

    def cancel(self) -> bytearray:
        record = bytearray(layout.SLOT_BYTES)
        self._name_order(record, CommandKind.CANCEL)
        return record

    def replace(self) -> bytearray:
        record, chance = bytearray(layout.SLOT_BYTES), self._random.random
        account, market, kind = self._name_order(record, CommandKind.REPLACE)
        price = self._price(market) if kind != OrderType.STOP and chance() < 0.55 else ABSENT
        size = self._size(market) if chance() < 0.5 else ABSENT
        stop = self._stop_price(market, int(chance() * 2)) if chance() < (0.4 if kind in _STOPS else 0.02) else ABSENT
        renames = chance() < 0.3 or (price == ABSENT and size == ABSENT and stop == ABSENT)
        name = (self._known_id(account) if chance() < 0.15 else self._client_id(account)) if renames else b""
        struct.pack_into("<qqq32s", record, 72, price, size, stop, name)
        if chance() < 0.03:
            self._spoil(record, _REPLACE_NUMBERS, ())
        return record

    def mass_cancel(self) -> bytearray:
        chance, record = self._random.random, bytearray(layout.SLOT_BYTES)
        given = (chance() < 0.95) | (chance() < 0.5) << 1
        account, market = (self._trader() if given & 1 else NIL), (self._market() if given & 2 else NIL)
        session = self._pick(_SESSIONS) if chance() < 0.4 else 0
        side = self._pick((Side.BUY, Side.SELL, 255, 255))
        _head(record, CommandKind.MASS_CANCEL)
        struct.pack_into("<IIQBB", record, 32, account, market, session, side, given)
        return record

    # ------------------------------------------------------------ markets

    def phase(self) -> bytearray:
        chance, market = self._random.random, self._market()
        if chance() < 0.1:
            return self._a.encode({
                "op": "phase", "market": self._pick(NAMES_OF_MARKETS), "phase": self._pick(_PHASES).word,
                "ref": self._a.fresh_name("r"), "not_after": self._a.later(-70, 500),
            })  # fmt: skip
        reference = self._price(market) if chance() < 0.3 else ABSENT
        return self._to(market, self._pick(_PHASES) if chance() < 0.98 else 6, reference)

    def reopen(self, market: int) -> bytearray:
        """Back to where orders trade, by one way or another."""
        chance, phase = self._random.random(), self._a.phases[market]
        if phase in (Phase.PREOPEN, Phase.AUCTION):
            return self._uncross(market) if chance < 0.6 else self._to(market, Phase.CONTINUOUS, ABSENT)
        if phase == Phase.HALT and chance < 0.6:
            return self.tick()
        return self._to(market, Phase.CONTINUOUS if chance < 0.8 else Phase.AUCTION, ABSENT)

    def uncross(self) -> bytearray:
        return self._uncross(self._market())

    def _uncross(self, market: int) -> bytearray:
        record = bytearray(layout.SLOT_BYTES)
        _head(record, CommandKind.UNCROSS)
        struct.pack_into("<IB3xq", record, 32, market, 0, ABSENT)
        return record

    def _to(self, market: int, phase: int, reference: int) -> bytearray:
        record = bytearray(layout.SLOT_BYTES)
        _head(record, CommandKind.PHASE)
        struct.pack_into("<IB3xq", record, 32, market, phase, reference)
        return record

    # ------------------------------------------------------------ safeguards and time

    def kill(self) -> bytearray:
        return self._of_account(CommandKind.KILL)

    def rearm(self, account: int | None = None) -> bytearray:
        return self._of_account(CommandKind.REARM, account)

    def cancel_after(self) -> bytearray:
        record = self._of_account(CommandKind.CANCEL_AFTER)
        struct.pack_into("<q", record, 40, 0 if self._random.random() < 0.15 else self._a.later(-70, 0, 5, 40, 40, 300))
        return record

    def poison(self) -> bytearray:
        record = self._of_account(CommandKind.POISON)
        client_id = self._client_id(int.from_bytes(record[32:36], "little"))
        if self._random.random() < 0.2 and self._a.recent:
            client_id = self._pick(self._a.recent)[1]
        struct.pack_into("<32s", record, 40, client_id)
        self._a.poisoned = [*self._a.poisoned[-9:], (int.from_bytes(record[32:36], "little"), client_id)]
        return record

    def tick(self) -> bytearray:
        self._a.time += self._pick((0, 5, 30, 30, 100, 700))
        record = bytearray(layout.SLOT_BYTES)
        _head(record, CommandKind.TICK)
        return record

    def cut(self) -> bytearray:
        record = bytearray(layout.SLOT_BYTES)
        _head(record, CommandKind.CUT)
        return record

    def garbage(self) -> bytearray:
        return self._a.encoder.malformed()

    def _of_account(self, kind: CommandKind, account: int | None = None) -> bytearray:
        record = bytearray(layout.SLOT_BYTES)
        _head(record, kind)
        struct.pack_into("<I", record, 32, self._trader() if account is None else account)
        return record

    # ------------------------------------------------------------ values

    def _pick(self, values: Sequence[T]) -> T:
        return values[int(self._random.random() * len(values))]

    def _trader(self) -> int:
        return self._pick(self._a.traders) if self._random.random() < 0.99 else self._pick((0, 1, 8, 9, NIL))

    def _market(self) -> int:
        return int(self._random.random() * len(MARKETS)) if self._random.random() < 0.98 else self._pick((7, NIL))

    def _kind(self) -> OrderType:
        chance = self._random.random() * 100
        limit, market, stop, _ = self._a.mood.types
        if chance < limit:
            return OrderType.LIMIT
        if chance < limit + market:
            return OrderType.MARKET
        return OrderType.STOP if chance < limit + market + stop else OrderType.STOP_LIMIT

    def _middle(self, market: int) -> int:
        """Between the market's own price and the last: prices move, but not away."""
        anchor = MARKETS[market][1] if market < len(MARKETS) else 1
        return (self._a.last_price.get(market, anchor) * 3 + anchor) // 4

    def _price(self, market: int) -> int:
        spread = self._a.mood.spread
        return max(1, self._middle(market) + int((self._random.random() * 2 - 1) * (spread + 1)))

    def _stop_price(self, market: int, side: int) -> int:
        """Mostly where it waits; now and then met at once."""
        away = int(self._random.random() * 6) - 1
        return max(1, self._middle(market) + (away if side == Side.BUY else -away))

    def _size(self, market: int) -> int:
        if self._random.random() < 0.01:
            return self._pick((999, 1000, 1001, 1002))
        return self._pick(_SIZES) * (1 if market != 1 else 2)

    def _client_id(self, account: int) -> bytes:
        client_id = self._a.fresh_name("c").encode()
        recent = self._a.recent
        if len(recent) < 80:
            recent.append((account, client_id))
        else:
            recent[int(self._random.random() * 80)] = account, client_id
        return client_id if self._random.random() < 0.997 else b""

    def _known_id(self, account: int) -> bytes:
        """An id of the account that was sent or poisoned before, if one is at hand."""
        known = [client_id for owner, client_id in (*self._a.recent, *self._a.poisoned * 2) if owner == account]
        return self._pick(known) if known else b"p1"

    def _partner(self) -> tuple[int, int, bytes, int, int] | None:
        order_id = self._a.some_order()
        if order_id is None:
            return None
        return self._a.open[order_id] if self._random.random() < 0.95 else (*self._a.open[order_id][:2], b"none", 0, 1)

    def _name_order(self, record: bytearray, kind: CommandKind) -> tuple[int, int, int]:
        """Mostly an order that is open; now and then a closed one, nobody's, another's, or by both ids."""
        chance, order_id = self._random.random(), self._a.some_order()
        if order_id is None or chance < 0.04:
            account, client_id = self._pick(self._a.recent) if self._a.recent else (2, b"c1")
            _head(record, kind)
            struct.pack_into("<II32s", record, 32, account, 0, client_id)
            return account, 0, OrderType.LIMIT
        order = self._a.open[order_id]
        account, flags, name = order.account, OrderFlag(0), order.client_id
        if chance < 0.4:
            flags, name = OrderFlag.BY_ORDER_ID, struct.pack("<Q", order_id)
        elif chance < 0.41:
            flags = OrderFlag.BY_ORDER_ID | OrderFlag.BOTH_IDS
        elif chance < 0.43:
            account = self._trader()
        _head(record, kind, flags)
        struct.pack_into("<II32s", record, 32, account, 0, name)
        return account, order.market, order.type

    def _spoil(self, record: bytearray, numbers: tuple[int, ...], words: tuple[int, ...]) -> None:
        """One field gets a value that it may not have."""
        chance = self._random.random()
        if words and chance < 0.4:
            record[self._pick(words)] = self._pick(_ODD_BYTES)
        elif words and chance < 0.5:
            record[6] ^= self._pick((PlaceFlag.POST_ONLY, PlaceFlag.BUDGET, PlaceFlag.NO_SIZE, PlaceFlag.BOTH_SIZES))
        elif words and chance < 0.55:
            struct.pack_into("<I", record, 36, self._pick((7, NIL)))
        else:
            struct.pack_into("<q", record, self._pick(numbers), self._pick(_ODD))


def _head(record: bytearray, kind: CommandKind, flags: int = 0) -> None:
    struct.pack_into("<BBH", record, 4, kind, len(record) // layout.SLOT_BYTES, flags)
