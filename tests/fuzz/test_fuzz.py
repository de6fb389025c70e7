"""A short run of each fuzzer (F45–F49 in part): corpus, well-formed inputs, and a fixed number of their mutants."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.core import Core
from tests.fuzz import targets
from tests.fuzz.mutate import mutants
from tests.fuzz.targets import TARGETS, seeds_of

CORPUS = Path(__file__).parent / "corpus"
RUNS = {"binary": 300, "snapshot": 150, "localsui": 300, "marketdata": 400, "session": 400, "journal": 250}


def corpus_of(name: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPUS / name).glob("*")) if path.is_file()]


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_f45_f47_nothing_but_a_refusal_leaves_a_reader_of_bytes(name: str) -> None:
    target, inputs = TARGETS[name], seeds_of(name) + corpus_of(name)
    for data in mutants(inputs, len(inputs) + RUNS.get(name, 1000), seed=20_261_121):
        try:
            target(data)
        except BaseException as error:
            raise AssertionError(f"{name}: {type(error).__name__}: {error}: {data[:200].hex()}") from error


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_well_formed_inputs_are_understood(name: str) -> None:
    """A target that refuses everything would find nothing: its mutants must reach what lies behind."""
    assert any(TARGETS[name](data) for data in seeds_of(name))
    mutated = list(mutants(seeds_of(name), 600, seed=1))[len(seeds_of(name)) :]
    assert any(TARGETS[name](data) for data in mutated), "mutants never get behind the first check"


def test_each_target_has_a_corpus_and_some_of_it_is_understood() -> None:
    """Real bytes, each as a writer of the exchange made it or a client sent it."""
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
    assert [name for name in TARGETS if not any(TARGETS[name](data) for data in corpus_of(name))] == []


def test_mutants_of_a_snapshot_get_behind_its_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some are read to the end, though no writer made them: a reader that breaks there is found."""
    real, whole = targets._restored, {data[128:] for data in seeds_of("snapshot") + corpus_of("snapshot")}

    def broken(body: bytes) -> Core | None:
        core = real(body)
        if core is not None and body not in whole:
            raise ZeroDivisionError("planted")
        return core

    monkeypatch.setattr(targets, "_restored", broken)
    with pytest.raises(AssertionError, match="snapshot: ZeroDivisionError"):
        test_f45_f47_nothing_but_a_refusal_leaves_a_reader_of_bytes("snapshot")


def test_a_message_in_fragments_and_a_record_that_was_changed_are_read_to_the_end() -> None:
    """Checksums made to fit let a mutant of a record get behind them."""
    fragments, reserved = seeds_of("session")[-2:]
    assert TARGETS["session"](fragments) and not TARGETS["session"](reserved)
    assert not TARGETS["session"](fragments[:-1]), "they are one message: its last byte is the last fragment's"
    whole = bytearray(next(data for data in seeds_of("journal") if data[0] == 7))
    whole[1 + 4096 + 20] ^= 1  # in the time of the first record
    assert TARGETS["journal"](bytes(whole))
    whole[0] = 1
    assert not TARGETS["journal"](bytes(whole))


def test_mutants_are_many_and_the_same_for_the_same_seed() -> None:
    one, two = (list(mutants([b"abc" * 50, b"{}"], 500, seed)) for seed in (1, 1))
    assert one == two and len(one) == 500 and len(set(one)) > 450
    assert list(mutants([b"abc" * 50], 50, 2)) != one[:50]


def _broken(*_: object, **__: object) -> object:
    raise ZeroDivisionError("planted")


@pytest.mark.parametrize(
    ("name", "broken", "how", "seen"),
    [
        ("journal", "persistence.segments._check_end", _broken, "ZeroDivisionError"),
        ("json", "gateway.wire.json.parse", _broken, "ZeroDivisionError"),
        ("part", "persistence.backup.PartHeader.unpack", _broken, "ZeroDivisionError"),
        ("localsui", "settlement.chain.encoding.Reader.u64", _broken, "ZeroDivisionError"),
        ("session", "gateway.session._only_removes", _broken, "ZeroDivisionError"),
        ("marketdata", "marketdata.session.Session._rid_of", _broken, "ZeroDivisionError"),
        ("binary", "tests.unit.gateway.test_binary.first_fault", lambda *_: None, "ValueError|AssertionError"),
    ],
)  # fmt: skip
def test_a_planted_fault_is_found(
    name: str, broken: str, how: Callable[..., object], seen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each target must be able to fail: with its reader broken the same short run finds it."""
    monkeypatch.setattr(broken, how)
    with pytest.raises(AssertionError, match=f"{name}: ({seen})"):
        test_f45_f47_nothing_but_a_refusal_leaves_a_reader_of_bytes(name)
