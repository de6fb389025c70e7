"""Every transition is in the table and no other happens; the stores survive cuts and refuse damage."""

from __future__ import annotations

import itertools
from pathlib import Path

import msgspec
import pytest

from engine.messages.errors import DataDirectoryBusy, JournalCorrupt, JournalFailed
from settlement.batch import (
    TRANSITIONS,
    Halted,
    Life,
    Listed,
    PartExecuted,
    PartRefused,
    Resumed,
    Sealed,
    Sent,
    SignedPart,
    State,
    Step,
    Stopped,
    StoredEvent,
)
from settlement.chain.port import CoinPart, Execution, Part, Payout, Signed, VaultListing
from settlement.netting import Batch
from settlement.store import FileBatchStore, last_sealed, listings

PART = Part(
    1, 0, 1, b"r" * 32, b"t" * 32, [CoinPart("USDC", bytes(32), [(b"a" * 32, -1)], [], [Payout("w", b"", b"", 3)])]
)
BATCH = Batch(1, 1, 9, b"h" * 16, 5, 6, b"r" * 32, b"t" * 32, 2, 1, [PART], {"USDC": 7})
SIGNED = Signed(b"raw", b"signature", "digest")
EVENTS: dict[Step, StoredEvent] = {
    Step.SEAL: Sealed(1, BATCH),
    Step.SIGN: SignedPart(2, 1, SIGNED),
    Step.SEND: Sent(3, 1),
    Step.REFUSED: PartRefused(4, 1, "stale"),
    Step.EXECUTED: PartExecuted(5, 1, Execution("digest", True, None, "", 9, 1)),
    Step.DISAGREE: Halted(6, 1, "why"),
    Step.RESUME: Resumed(7, 1, "looked at"),
}
NO_STEPS: list[StoredEvent] = [Listed(8, VaultListing("USDC", "0x1::a::A", "0x2", 1, 3)), Stopped(9, "why")]


@pytest.mark.parametrize(("state", "step"), list(itertools.product(State, EVENTS)))
def test_only_the_table_moves_a_batch(state: State, step: Step) -> None:
    life = Life(BATCH, state=state)
    if (state, step) in TRANSITIONS:
        life.take(EVENTS[step])
        assert life.state is TRANSITIONS[state, step]
    else:
        with pytest.raises(ValueError, match=f"{step.value} in state {state.value}"):
            life.take(EVENTS[step])
        assert life == Life(BATCH, state=state)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", NO_STEPS)
def test_what_is_no_event_of_a_batch_moves_none(state: State, event: StoredEvent) -> None:
    life = Life(BATCH, state=state)
    with pytest.raises(ValueError, match="is no event of a batch"):
        life.take(event)
    assert life == Life(BATCH, state=state)


def test_a_resumed_batch_is_signed_anew_and_keeps_what_was_signed() -> None:
    life = Life(BATCH)
    for step in (Step.SEAL, Step.SIGN, Step.SEND, Step.DISAGREE):
        life.take(EVENTS[step])
    assert (life.state, life.error) == (State.HALTED, "why")
    life.take(EVENTS[Step.RESUME])
    assert (life.state, life.signed, life.digests, life.error) == (State.SEALED, None, ["digest"], "")


def test_parts_go_one_by_one() -> None:
    batch = Batch(1, 1, 9, b"", 5, 6, b"", b"", 0, 0, [PART, PART], {})
    life = Life(batch)
    for step in (Step.SEAL, Step.SIGN, Step.SEND, Step.EXECUTED):
        life.take(EVENTS[step])
    assert (life.state, life.part, life.signed) == (State.SEALED, 1, None)
    for step in (Step.SIGN, Step.SEND, Step.EXECUTED):
        life.take(EVENTS[step])
    assert (life.state, life.final_ts, len(life.executions)) == (State.FINAL, 5, 2)


def test_the_store_gives_back_what_it_took(tmp_path: Path) -> None:
    store = FileBatchStore(tmp_path / "batches.log")
    for event in (*EVENTS.values(), *NO_STEPS):
        store.append(event)
    with pytest.raises(DataDirectoryBusy):
        FileBatchStore(tmp_path / "batches.log")
    store.close()
    with pytest.raises(JournalFailed):
        store.append(EVENTS[Step.SEND])
    again = FileBatchStore(tmp_path / "batches.log")
    assert [event for _, event in again.events()] == [*EVENTS.values(), *NO_STEPS]
    again.close()


def test_vaults_are_found_among_all_else_and_no_other_record_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, decoded, decode = tmp_path / "batches.log", [], msgspec.msgpack.decode
    assert listings(path) == {}
    store = FileBatchStore(path)
    vaults = {name: VaultListing(name, "0x1::a::A", f"0x{name}", 1, 3) for name in ("Sealed", "USDC", "Listed")}
    for event in (*(Listed(2**63, vault) for vault in vaults.values()), *EVENTS.values(), Stopped(9, "Listed")):
        store.append(event)
    store.close()

    def counted(payload, **more):  # type: ignore[no-untyped-def]
        decoded.append(payload)
        return decode(payload, **more)

    monkeypatch.setattr(msgspec.msgpack, "decode", counted)
    assert listings(path) == vaults and 3 <= len(decoded) <= 4


def test_the_last_sealed_batch_is_found_without_reading_all_before_it(tmp_path: Path) -> None:
    path, pointer = tmp_path / "batches.log", tmp_path / "batches.sealed"
    assert last_sealed(path) == (0, 0)
    store, pointers = FileBatchStore(path), []
    for number in (1, 2, 3):
        store.append(Sealed(number, msgspec.structs.replace(BATCH, number=number, last_sequence=10 * number)))
        store.append(EVENTS[Step.SEND])
        pointers.append(pointer.read_bytes())
        assert last_sealed(path) == (number, 10 * number)
    store.close()
    damaged = [b"", b"{}", *(b'{"offset":%d,"number":1,"last_sequence":10}' % offset for offset in (3, -5, 1 << 40))]
    for other in (*damaged, pointers[0], pointers[1].replace(b"20", b"90")):
        pointer.write_bytes(other)  # damaged, of another log, or of a moment before the power went
        assert last_sealed(path) == (3, 30)
    pointer.unlink()
    assert last_sealed(path) == (3, 30)
    whole = path.read_bytes()
    path.write_bytes(whole[:20] + bytes([whole[20] ^ 1]) + whole[21:])
    with pytest.raises(JournalCorrupt):
        last_sealed(path)
    pointer.write_bytes(pointers[2])
    assert last_sealed(path) == (3, 30), "what is damaged before it was not read"
    path.write_bytes(whole[:-1])
    with pytest.raises(JournalCorrupt, match="not whole"):
        last_sealed(path)
