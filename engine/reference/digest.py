"""The state hash as docs/state-hash.md defines it: one mix per entity, summed modulo 2^128.

`state_hash` computes it from everything there is, `RunningHash` from what noticed a change since it was asked last.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from engine.messages import layout
from engine.reference.model import State, words
from engine.reference.noticed import Key

__all__ = ["RunningHash", "content_digest", "mix", "state_hash"]

_M64 = 2**64 - 1
_M128 = 2**128 - 1


def _splitmix(count: int) -> list[int]:
    state, outputs = 0, []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & _M64
        z = ((state ^ state >> 30) * 0xBF58476D1CE4E5B9) & _M64
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) & _M64
        outputs.append(z ^ z >> 31)
    return outputs


_K = _splitmix(64)
_PAIRS = tuple(zip(_K[:60:2], _K[1:60:2], strict=True))


def mix(*values: int) -> int:
    """128 bits of at most 60 words; a negative one is its two's complement."""
    assert len(values) <= 60
    values += (0,) * (len(values) % 2)
    total = 0
    for left, right, (left_key, right_key) in zip(values[::2], values[1::2], _PAIRS, strict=False):
        total += ((left + left_key) & _M64) * ((right + right_key) & _M64)
    low, high = total & _M64, total >> 64 & _M64
    p = (low ^ _K[60]) * (high ^ _K[61])
    p_low, p_high = p & _M64, p >> 64
    q = (p_low ^ high ^ _K[62]) * (p_high ^ low ^ _K[63])
    return (p + q) & _M128


def content_digest(record: bytes) -> int:
    """Of a command: the same content, the same number. Sequence, time, chain and crc do not enter."""
    digest = 0
    for slot in range(len(record) // layout.SLOT_BYTES):
        content = list(words(record[slot * layout.SLOT_BYTES : (slot + 1) * layout.SLOT_BYTES], 16))
        if slot == 0:
            content[0] >>= 32  # without the crc
            content[1] = content[2] = content[3] = 0
        digest = mix(0xC0, digest & _M64, digest >> 64, slot, *content)
    return digest


def state_hash(s: State) -> bytes:
    """16 bytes, little endian, from everything there is."""
    keys: list[Key] = []
    for tag, rows in ((2, s.assets), (3, s.markets), (4, s.accounts)):
        keys.extend((tag, index) for index in range(len(rows)))
    for tag, table in ((5, s.balances), (6, s.orders), (7, s.ids), (8, s.refs), (10, s.poisons)):
        keys.extend((tag, key) for key in table)
    return _bytes(_mix_clock(s) + sum(_mix_entity(s, key) for key in keys))


class RunningHash:
    """The state hash kept up to date: only what noticed a change is mixed again."""

    def __init__(self, s: State) -> None:
        self._state = s
        self._mixed: dict[Key, int] = {}
        self._sum = 0

    def value(self) -> bytes:
        """The same 16 bytes as `state_hash`."""
        s = self._state
        for key in (*s.changes, *self._older_names()):
            mixed = _mix_entity(s, key)
            self._sum += mixed - self._mixed.get(key, 0)
            self._mixed[key] = mixed
            if not mixed:
                del self._mixed[key]
        s.changes.clear()
        return _bytes(_mix_clock(s) + self._sum)

    def _older_names(self) -> set[Key]:
        """The ids of changed orders: which of them is the newest is told by the order."""
        orders = (self._state.orders.get(key) for tag, key in self._state.changes if tag == 6)
        return {(7, (o.account, client_id)) for o in orders if o is not None for client_id in o.client_ids}


def _bytes(total: int) -> bytes:
    return (total & _M128).to_bytes(16, "little")


def _mix_clock(s: State) -> int:
    return mix(1, s.sequence, s.time, s.batch, s.batch_first)


def _mix_entity(s: State, key: Key) -> int:
    """What the entity adds to the sum; 0 if there is none of that key."""
    return sum(mix(*entity) for entity in _entity(s, *key))


def _entity(s: State, tag: int, key: Any) -> Iterator[tuple[int, ...]]:
    """The words of an entity, and of the postings that a pending ref has."""
    match tag:
        case 2:
            asset = s.assets[key]
            yield 2, key, *words(asset.name, 8), asset.scale, asset.settled
        case 3:
            m = s.markets[key]
            yield (
                3, key, *words(m.name, 8), m.base | m.quote << 32, m.tick, m.lot,
                m.tick_decimals | m.lot_decimals << 8, m.k, m.u, m.min_size, m.max_size, m.max_price, m.taker_ppm,
                m.maker_ppm, m.entry_band_ppm, m.exec_band_ppm, m.pause_ns, m.phase, m.reference_price, m.last_price,
                m.trade_count, m.band_reference, m.pause_at, m.pause_sequence,
            )  # fmt: skip
        case 4:
            a = s.accounts[key]
            yield (
                4, key, *words(a.name, 8), a.status | a.overdraft << 8 | a.killed << 16, a.mask, a.taker_ppm,
                a.maker_ppm, a.max_open_orders, *words(a.row, 4), *words(a.stp_group, 8), a.cancel_after,
                a.cancel_after_sequence,
            )  # fmt: skip
        case 5:
            balance, (account, asset_index) = s.balances[key], key
            if balance.available or balance.held:
                yield 5, account | asset_index << 32, balance.available, balance.held
        case 6 if key in s.orders:
            o = s.orders[key]
            yield (
                6, o.order_id, o.account | o.market << 32, *words(o.client_ids[-1], 4),
                o.side | o.type << 8 | o.tif << 16 | o.flags << 24 | o.stp << 32,
                o.price, o.size, o.leaves, o.join, o.taker_ppm, o.maker_ppm, o.credit, o.session, o.stop_price,
                o.display_size, o.shown, o.expires_at, 0 if o.partner is None else o.partner.order_id,
            )  # fmt: skip
        case 7 if key in s.ids:
            entry = s.ids[key]
            if entry.order is None or entry.order.client_ids[-1] != entry.client_id:
                yield (
                    7, entry.account | entry.market << 32, *words(entry.client_id, 4), entry.order_id, entry.status,
                    entry.filled, entry.closing,
                )  # fmt: skip
        case 8 if key in s.refs:
            ref = s.refs[key]
            yield (
                8, *words(key, 8), ref.digest & _M64, ref.digest >> 64, ref.status, ref.first_sequence, ref.not_after,
                ref.expires_at, len(ref.moves), *words(ref.code, 2), *words(ref.memo, 8),
            )  # fmt: skip
            for number, move in enumerate(ref.moves):
                yield 9, ref.first_sequence, number, move.source | move.target << 32, move.asset, move.amount
        case 10:
            account, client_id = key
            yield 10, account, *words(client_id, 4)
