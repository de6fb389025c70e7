"""A simulated client on a binary session: its orders leave as records, and what it is told is turned into words.

What it says and hears goes to the auditor as the objects of a JSON session: so the same facts, told as records to one
client and as JSON to the drop copy, must be the same to the letter. The words come from the decoder of the event log
(`engine.messages.decode`), which the JSON sessions do not use. A trade's other side is blank in a record, and left out
here. Of another account in a leg a record has its index alone: that is the place in `names`, which are given.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.messages import edge, layout
from engine.messages.codes import NIL, AccountStatus, Overdraft, Phase
from engine.messages.decimals import parse_decimal
from engine.messages.decode import EventDecoder
from engine.messages.directory import AccountEntry, AssetEntry, Directory, MarketEntry
from engine.messages.edge import EdgeCode, MessageType
from engine.messages.encode import CommandEncoder
from tests.simulation.client import BINARY, COMMANDS, Json, SimulatedClient, text_frame
from tests.simulation.network import MS

__all__ = ["RecordClient"]

OUTLIVES = (1 << 64) - 1
"""The session of an order that does not end with its connection."""
ORDERS = {kind.word for kind in edge.ORDER_KINDS}
_HEADS = {MessageType.ACK: edge.ACK, MessageType.TOLD: edge.TOLD, MessageType.REFUSAL: edge.REFUSAL}


class _OwnSide(EventDecoder):
    """Decodes events as one account is told them: of a trade its own side alone."""

    def _account(self, index: int) -> str:
        return "" if index == NIL else super()._account(index)

    def own(self, slots: bytes) -> Json:
        """The words of one event."""
        [event] = self.decode(slots)
        for side in ("maker", "taker"):
            if event.get(f"{side}_account") == "":
                event = {name: value for name, value in event.items() if not name.startswith(f"{side}_")}
        return event


class RecordClient(SimulatedClient):
    """Asks for the directory when it signs in first, and hears nothing of what came meanwhile until it has it."""

    protocol = edge.PROTOCOL.encode()
    has_receipts = COMMANDS - ORDERS  # a record has no room to ask for one

    def __init__(self, *arguments: Any, names: list[str], **options: Any) -> None:
        """`names`: of all accounts, in the order in which they are made."""
        super().__init__(*arguments, **options)
        self.records = 0
        """How many commands went as records."""
        self._directory = Directory()
        for index, name in enumerate(names, len(self._directory.accounts)):
            account = AccountEntry(index, name, AccountStatus.ACTIVE, Overdraft.NEVER, 0, 0, 0, 0, bytes(32), "")
            self._directory.define(account)
        self._decoder = _OwnSide(self._directory)
        self._encoder = CommandEncoder(self._directory, self._decoder.orders)
        self._knows_names = False
        self._waiting: list[Json | bytes] = []
        """What came before the directory did."""
        self._told: dict[bytes, Json] = {}
        """By its slots: what a resume tells again has the words that it had, though its order may have closed."""
        self._frame_of: list[bytes] = []
        """Records that leave in one frame."""

    # ------------------------------------------------------------ what it says

    def _send(self, message: Json) -> None:
        record = self._record(message) if message["op"] in ORDERS and self._knows_names else None
        if record is None:
            self._flush()
            super()._send(message)
            return
        self.records += 1
        self._frame_of.append(record)
        if len(self._frame_of) == 1:
            delay_ms, link = self.random.choice([0, 0, 0, 3]), self.link
            self.network.schedule.later(delay_ms * MS, lambda: self._flush() if self.link is link else None)

    def _flush(self) -> None:
        if self._frame_of and self.link is not None:
            self.link.send(text_frame(b"".join(self._frame_of), BINARY))
        self._frame_of.clear()

    def _record(self, message: Json) -> bytes:
        """Of a number that is none INVALID stands in the record, which the gateway refuses as it does the text."""
        command = {"account": self.accounts[0]} | message
        rid, outlives = command.pop("rid"), command.pop("cancel_on_disconnect", None) is False
        record = self._encoder.encode(command)
        record[8:16] = rid.to_bytes(8, "little")
        if outlives:
            at = (layout.PLACE.fields or {})["session"][1]
            record[at : at + 8] = OUTLIVES.to_bytes(8, "little")
        return bytes(record)

    def _gone(self, *, quietly: bool = False) -> None:
        self._frame_of.clear()
        self._waiting.clear()
        super()._gone(quietly=quietly)

    # ------------------------------------------------------------ what it hears

    def _hear(self, message: Json) -> None:
        if self._knows_names or message.get("type") == "hello":
            super()._hear(message)
        elif message.get("type") == "directory":
            self._learn(message)
            self._knows_names = True
            super()._hear(message)
            waiting, self._waiting = self._waiting, []
            for one in waiting:
                self._hear_records(one) if isinstance(one, bytes) else super()._hear(one)
        else:
            self._waiting.append(message)
            if message.get("type") == "signed_in":
                told = [self._directory.accounts[index].name for index in message["account_indices"]]
                assert told == message["accounts"], f"{self.name}: indices of {told} for {message['accounts']}"
                self.say({"op": "directory"})

    def _hear_records(self, payload: bytes) -> None:
        if not self._knows_names:
            self._waiting.append(payload)
            return
        at = 0
        while at < len(payload):
            kind = MessageType(payload[at])
            head = np.frombuffer(payload, _HEADS[kind], 1, at)[0]
            at += head.itemsize
            size = int(head["slots"]) * layout.SLOT_BYTES
            slots = payload[at : at + size]
            assert len(slots) == size, f"{self.name}: a message of records ends before its slots"
            at += size
            self._hear(self._words(kind, head, slots))

    def _words(self, kind: MessageType, head: Any, slots: bytes) -> Json:
        if kind is MessageType.REFUSAL:
            return {"rid": int(head["rid"]), "type": "error", "code": EdgeCode(int(head["code"])).word}
        event: Json = {}
        if slots:
            if slots not in self._told:
                self._told[slots] = self._decoder.own(slots)
            event = self._told[slots]
        if kind is MessageType.TOLD:
            return dict(event)
        times = {name: int(head[name]) for name in ("t_in", "t_durable", "t_matched", "t_out")}
        ack = {"rid": int(head["rid"]), "sequence": int(head["sequence"]), "chain": f"{head['chain']:016x}"}
        return ack | event | times

    def _learn(self, answer: Json) -> None:
        directory = self._directory
        for row in answer["assets"]:
            directory.define(AssetEntry(row["index"], row["asset"], row["scale"], settled=False))
        for row in answer["markets"]:
            directory.define(_market(row, directory))


def _market(row: Json, directory: Directory) -> MarketEntry:
    """What is not told of a market is not needed to translate."""
    base, quote = (directory.assets_by_name[row[name]] for name in ("base", "quote"))
    tick, lot = parse_decimal(row["tick"]), parse_decimal(row["lot"])
    assert tick is not None and lot is not None
    return MarketEntry(
        row["index"], row["market"], base, quote, *tick, *lot, k=0, u=0, min_size=0, max_size=0, max_price=0,
        taker_ppm=0, maker_ppm=0, entry_band_ppm=0, exec_band_ppm=0, pause_ns=0, phase=Phase.CONTINUOUS,
        reference_price=0,
    )  # fmt: skip
