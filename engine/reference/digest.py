"""The state hash as docs/state-hash.md defines it: one mix per entity, summed modulo 2^128."""

from __future__ import annotations

from collections.abc import Iterator

from engine.messages import layout
from engine.reference.model import State, words

__all__ = ["content_digest", "mix", "state_hash"]

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


def mix(*values: int) -> int:
    """128 bits of at most 60 words."""
    assert len(values) <= 60
    values += (0,) * (len(values) % 2)
    total = 0
    for i in range(0, len(values), 2):
        total += ((values[i] + _K[i]) & _M64) * ((values[i + 1] + _K[i + 1]) & _M64)
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
    """16 bytes, little endian."""
    total = sum(mix(*(value & _M64 for value in entity)) for entity in _entities(s))
    return (total & _M128).to_bytes(16, "little")


def _entities(s: State) -> Iterator[tuple[int, ...]]:
    yield 1, s.sequence, s.time, s.batch, s.batch_first
    for index, asset in enumerate(s.assets):
        yield 2, index, *words(asset.name, 8), asset.scale, asset.settled
    for index, m in enumerate(s.markets):
        yield (
            3, index, *words(m.name, 8), m.base | m.quote << 32, m.tick, m.lot, m.tick_decimals | m.lot_decimals << 8,
            m.k, m.u, m.min_size, m.max_size, m.max_price, m.taker_ppm, m.maker_ppm, m.entry_band_ppm, m.exec_band_ppm,
            m.pause_ns, m.phase, m.reference_price, m.last_price, m.trade_count, m.band_reference, m.pause_at,
            m.pause_sequence,
        )  # fmt: skip
    for index, a in enumerate(s.accounts):
        yield (
            4, index, *words(a.name, 8), a.status | a.overdraft << 8 | a.killed << 16, a.mask, a.taker_ppm, a.maker_ppm,
            a.max_open_orders, *words(a.row, 4), *words(a.stp_group, 8), a.cancel_after,
            a.cancel_after_sequence,
        )  # fmt: skip
    for (account, asset_index), balance in s.balances.items():
        if balance.available or balance.held:
            yield 5, account | asset_index << 32, balance.available, balance.held
    for o in s.orders.values():
        yield (
            6, o.order_id, o.account | o.market << 32, *words(o.client_ids[-1], 4),
            o.side | o.type << 8 | o.tif << 16 | o.flags << 24 | o.stp << 32,
            o.price, o.size, o.leaves, o.join, o.taker_ppm, o.maker_ppm, o.credit, o.session, o.stop_price,
            o.display_size, o.shown, o.expires_at, 0 if o.partner is None else o.partner.order_id,
        )  # fmt: skip
    for entry in s.ids.values():
        if entry.order is None or entry.order.client_ids[-1] != entry.client_id:
            yield (
                7, entry.account | entry.market << 32, *words(entry.client_id, 4), entry.order_id, entry.status,
                entry.filled,
            )  # fmt: skip
    for name, ref in s.refs.items():
        yield (
            8, *words(name, 8), ref.digest & _M64, ref.digest >> 64, ref.status, ref.first_sequence, ref.not_after,
            ref.expires_at, len(ref.moves), *words(ref.code, 2), *words(ref.memo, 8),
        )  # fmt: skip
        for number, move in enumerate(ref.moves):
            yield 9, ref.first_sequence, number, move.source | move.target << 32, move.asset, move.amount
    for index, a in enumerate(s.accounts):
        for client_id in a.poisons:
            yield 10, index, *words(client_id, 4)
