"""The ledger over what the real core publishes: every balance event agrees, totals equal the core's own."""

from __future__ import annotations

import random

import numpy as np
import pytest

from engine.messages import layout
from engine.messages.codes import ABSENT, CommandKind, OrderType
from settlement.ledger import Ledger
from settlement.netting import Netting

core_module = pytest.importorskip("engine.core", reason="the core is not compiled")


class _Sender:
    def __init__(self) -> None:
        self.core = core_module.Core()
        self.events: list[np.ndarray] = []

    def send(self, dtype: np.dtype, kind: CommandKind, *extensions: np.ndarray, **fields: object) -> np.ndarray:
        head = np.zeros(1, dtype)
        head["kind"], head["slots"] = kind, 1 + len(extensions)
        head["sequence"], head["ts"] = self.core.sequence + 1, 1_700_000_000_000_000_000 + self.core.sequence
        for name, value in fields.items():
            head[name] = value
        record = np.concatenate([head.view(layout.EVENT), *(item.view(layout.EVENT) for item in extensions)])
        events = self.core.apply(record.tobytes()).copy()
        self.events.append(events.reshape(-1).view(layout.EVENT))
        return self.events[-1]


def test_the_ledger_agrees_with_the_core() -> None:
    sender, rng = _Sender(), random.Random(4)
    for name in ("USDC", "MAYA"):
        sender.send(layout.ASSET, CommandKind.ASSET, name=name, scale=6, settled=1)
    extra = np.zeros(1, layout.MARKET_EXTRA)
    extra["tick"], extra["tick_decimals"], extra["lot"], extra["lot_decimals"] = 1, 2, 1, 2
    sender.send(layout.MARKET, CommandKind.MARKET, extra, name="MAYA-USDC", base=1, quote=0)
    for number in range(2, 12):
        sender.send(layout.ACCOUNT, CommandKind.ACCOUNT, name=f"user:{number}")
        for asset in (0, 1):
            sender.send(
                layout.DEPOSIT, CommandKind.DEPOSIT, ref=f"d{number}-{asset}", account=number, asset=asset,
                amount=10**12, not_after=ABSENT, place=0,
            )  # fmt: skip
    for number in range(400):
        sender.send(
            layout.PLACE, CommandKind.PLACE, account=rng.randrange(2, 12), market=0, client_id=f"c{number}",
            price=rng.randrange(90, 111), size=rng.randrange(1, 50), stop_price=ABSENT, display_size=ABSENT,
            expires_at=ABSENT, side=rng.randrange(2), type=OrderType.LIMIT,
        )  # fmt: skip
        if number % 150 == 149:
            who = rng.randrange(2, 12)
            sender.send(
                layout.DEPOSIT, CommandKind.DEPOSIT, ref=f"late{number}", account=who, asset=0, amount=5,
                not_after=ABSENT, place=0,
            )  # fmt: skip
            sender.send(layout.COMMAND, CommandKind.CUT)
    ledger, netting, cuts = Ledger(), Netting(pay_pending=False), 0
    for cut in ledger.feed(np.concatenate(sender.events)):
        batch = netting.seal(ledger, cut, 0)
        assert all(sum(amount for _, amount in coin.entries) == 0 for coin in batch.parts[0].coins)
        ledger.start_period()
        cuts += 1
    assert cuts == 2
    balances = sender.core.balances()
    assert len(balances) > 20
    for row in balances:
        assert ledger.total(int(row["account"]), int(row["asset"])) == int(row["available"]) + int(row["held"])
