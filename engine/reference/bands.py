"""Price bands, and the pause that a taker causes who meets the exec band.

inside: |price - reference| × 10^6 <= reference × ppm. The reference is the latest of the listing's, a phase command's
and the last trade. The exec band stays where it was when the command began: `trade` notes the reference that its first
trade replaces.
"""

from __future__ import annotations

from engine.messages import layout
from engine.messages.codes import ABSENT, EventKind, Phase, PhaseReason
from engine.reference.model import MILLION, Market, State, saturated

__all__ = ["change_phase", "in_entry_band", "in_exec_band", "pause"]


def _inside(price: int, reference: int, ppm: int) -> bool:
    return ppm == 0 or reference == ABSENT or abs(price - reference) * MILLION <= reference * ppm


def in_entry_band(market: Market, price: int) -> bool:
    """Whether an order may have that limit."""
    return _inside(price, market.band_reference, market.entry_band_ppm)


def in_exec_band(s: State, market: int, price: int) -> bool:
    """Whether the command being applied may trade at that price."""
    m = s.markets[market]
    return _inside(price, s.exec_references.get(market, m.band_reference), m.exec_band_ppm)


def change_phase(s: State, market: int, phase: Phase, reason: PhaseReason) -> None:
    """The market is in that phase now, and no pause is on."""
    m = s.markets[market]
    m.phase, m.pause_at, m.pause_sequence = phase, 0, 0
    s.emit(
        layout.PHASE_CHANGED, EventKind.PHASE_CHANGED, market=market, phase=phase, reason=reason,
        reference_price=m.band_reference,
    )  # fmt: skip


def pause(s: State, market: int, phase: Phase, reason: PhaseReason) -> None:
    """A phase (halt, then auction) that a tick ends."""
    change_phase(s, market, phase, reason)
    m = s.markets[market]
    m.pause_at, m.pause_sequence = saturated(s.time, m.pause_ns), s.sequence
