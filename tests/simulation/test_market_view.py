"""The reader of market data in the world can fail: planted faults of a book, of a stream and of a client are named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from byline.client.market_data import BookGap, LocalBook
from marketdata.publisher import Publisher
from tests.simulation.world import run_seed

SEED = 3


def i9() -> str:
    return "; ".join(one.text for one in run_seed(SEED).violations if one.invariant == "I9")


def test_f41_a_client_that_passes_over_a_gap_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    real = LocalBook.apply

    def blind(self: LocalBook, message: dict[str, Any], **more: Any) -> bool:
        try:
            return real(self, message, **more)
        except BookGap:
            self.ready = True
            return True

    monkeypatch.setattr(LocalBook, "apply", blind)
    monkeypatch.setattr(LocalBook, "check_head", lambda self, seq: None)
    assert "the next message did not show it" in i9()


def test_f42_a_change_that_a_flush_forgets_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    real, count = Publisher.apply, 0

    def forgetful(self: Publisher, slots: np.ndarray) -> None:
        nonlocal count
        real(self, slots)
        count += 1
        if count % 10 == 0:
            self._changes.clear()

    monkeypatch.setattr(Publisher, "apply", forgetful)
    assert "the checksum differs" in i9()
