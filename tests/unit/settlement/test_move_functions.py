"""Every public function of the published package, and every way it aborts, in the Move VM.

Each is called as a transaction would call it. What the sources and the bytecode offer is read from them: a function or
an abort code that is new and has no call here fails the last two tests.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from settlement.chain.encoding import (
    CLOCK_ID,
    Row,
    VaultHeader,
    address_text,
    dynamic_field_id,
    type_tag,
    u64,
    u128,
    vector,
    vector_u8,
)
from settlement.chain.localsui import movevm
from settlement.chain.localsui.contract import MoveAbort, Vault
from settlement.chain.localsui.movevm import MoveExecutor, coin_module, load_modules, published_modules, relocate
from settlement.chain.rights import ArbiterCap, Grant, License, Offer, Registry, Till, Work, WorkCap

sui_sandbox = pytest.importorskip("sui_sandbox", reason="the Move VM wheel is not installed")

PACKAGE, COIN = b"\xc0" * 32, b"\xcc" * 32
P = address_text(PACKAGE)
NAME, CODE = coin_module(12)
T = f"{address_text(COIN)}::{NAME}::{NAME.upper()}"
A, B, LATE, FULL, EMPTY = (bytes([n]) * 32 for n in (0xA1, 0xB2, 0xC3, 0xD4, 0xE5))
SENDER = bytes(32)
"""The wheel's sender is always 0x0."""
ADMIN, OPERATOR = b"\x02" * 32, b"\x03" * 32
HASH, TERMS, NOW = b"\7" * 32, b"\x08" * 32, 77
ROWS = {
    A: Row(300, 0, 9, 50, 60), B: Row(200), SENDER: Row(10, exit_amount=4, exit_ready_ms=1),
    LATE: Row(0, exit_amount=4, exit_ready_ms=NOW + 1), FULL: Row(2**64 - 1),
    EMPTY: Row(0, exit_amount=4, exit_ready_ms=1),
}  # fmt: skip
HEADER = VaultHeader(
    b"\1" * 32, 1, False, ADMIN, OPERATOR, 5, 0, 3, 3_600_000, b"\x31" * 32, b"\x32" * 32, 33, 34, 35, 0, 510,
    b"\4" * 32, len(ROWS),
)  # fmt: skip
OLD = msgspec.structs.replace(HEADER, version=0)
PAUSED = msgspec.structs.replace(HEADER, paused=True)
OTHER = msgspec.structs.replace(HEADER, id=b"\x39" * 32, rows_id=b"\x38" * 32, row_count=0)
REGISTRY = Registry(b"\x10" * 32, b"\x11" * 32, 1, 1)
ARBITER = ArbiterCap(b"\x12" * 32, REGISTRY.id)
WORK = Work(b"\x20" * 32, HASH, "Song", "u", (A, B), (9_000, 1_000), 5, False, b"\x21" * 32, 3)
CAP = WorkCap(b"\x22" * 32, WORK.id)
OFFER = Offer(b"\x30" * 32, WORK.id, "u", TERMS, 100, 1_000, 2, True, True, True)
LICENSE = License(b"\x40" * 32, WORK.id, TERMS, 5, 1_005, True)
GRANTS = {LICENSE.id: Grant(True, 0), b"\x41" * 32: Grant(False, 0), b"\x42" * 32: Grant(True, 9)}
FIRM, GONE = list(GRANTS)[1:]
TILL = Till(b"\x50" * 32, 70, b"\x51" * 32, 1)
COMMIT = [u64(5), u64(0), u64(1), vector_u8(HEADER.chain)]
SAID = [vector_u8(HASH), u64(9), vector_u8(TERMS)]
PAIR = [vector([A, B]), vector([u64(7), u64(7)]), vector([b"\1", b"\0"])]
OFFERED = [vector_u8(b"u"), vector_u8(TERMS), u64(1), u64(1), u64(1), b"\1", b"\1"]
ISSUED = [A, vector_u8(TERMS), u64(1), b"\0", b"\0"]
SOURCES = Path(movevm.__file__).parents[2] / "move" / "exchange" / "sources"
ABORT_CODES = {
    f"{path.stem}.{name}": int(code)
    for path in SOURCES.glob("*.move")
    for name, code in re.findall(r"^const (E\w+): u64 = (\d+);", path.read_text(), re.MULTILINE)
}


@dataclass
class Call:
    """`objects` by name; `answer`: the BCS that comes back, None: not looked at; `abort`: MODULE.NAME of the code."""

    module: str
    function: str
    objects: str = ""
    pures: list[bytes] = field(default_factory=list)
    answer: list[bytes] | None = None
    abort: str = ""
    covers: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.module}.{self.function}" + (self.abort and f"-{self.abort}")


def _row(who: bytes) -> list[bytes]:
    return [ROWS[who].encode()]


CALLS = [
    Call("settlement", "open", "admin", [OPERATOR, u64(1), u64(3_600_000)]),
    Call("settlement", "open", "admin", [OPERATOR, u64(1), u64(1)], abort="settlement.EBadDelay"),
    Call("settlement", "new_operator", "admin"),
    Call("settlement", "set_operator", "vault admin", [A]),
    Call("settlement", "set_paused", "vault admin", [b"\1"]),
    Call("settlement", "migrate", "old admin"),
    Call("settlement", "deposit", "vault coin", [A, vector_u8(b"r" * 64)]),
    Call("settlement", "deposit_many", "vault coin", [vector([A, B]), vector([u64(60), u64(40)])]),
    Call("settlement", "withdraw", "vault operator", [A, B, u64(300), u64(3)]),
    Call("probe", "commit_batch", "vault operator clock", [*COMMIT, *SAID, *PAIR, vector([])],
         covers=("settlement.commit_batch",)),
    Call("probe", "commit_in_two", "vault operator clock", [*COMMIT, *SAID, *PAIR, *PAIR, vector([])],
         covers=("settlement.begin", "settlement.apply", "settlement.finish")),
    Call("probe", "apply_elsewhere", "vault other operator clock", [u64(5), vector_u8(HEADER.chain), vector_u8(HASH)],
         abort="settlement.EWrongVault"),
    Call("probe", "finish_elsewhere", "vault other operator clock", [u64(5), vector_u8(HEADER.chain), vector_u8(HASH)],
         abort="settlement.EWrongVault"),
    Call("probe", "request_exit", "vault clock", [u64(5), vector([])], covers=("settlement.request_exit",)),
    Call("settlement", "cancel_exit", "vault"),
    Call("probe", "claim_exit", "vault clock", [vector([])], covers=("settlement.claim_exit",)),
    Call("settlement", "balance_of", "vault", [A], [u64(300)]),
    Call("settlement", "balance_of", "vault", [HASH], [u64(0)]),
    Call("settlement", "row_of", "vault", [A], _row(A)),
    Call("probe", "row_views", "vault", [A], [u64(300), u64(0), u64(9), u64(50), u64(60)],
         covers=("row.balance", "row.debt", "row.exited", "row.exit_amount", "row.exit_ready_ms")),
    Call("settlement", "row_of", "vault", [HASH], abort="settlement.EUnknownAccount"),
    Call("settlement", "has_account", "vault", [A], [b"\1"]),
    Call("settlement", "has_account", "vault", [HASH], [b"\0"]),
    Call("settlement", "next_seq", "vault", [], [u64(5)]),
    Call("settlement", "next_withdrawal", "vault", [], [u64(3)]),
    Call("settlement", "chain", "vault", [], [vector_u8(HEADER.chain)]),
    Call("settlement", "last_root", "vault", [], [vector_u8(HEADER.last_root)]),
    Call("settlement", "last_liabilities", "vault", [], [u64(33)]),
    Call("settlement", "deficit", "vault", [], [u128(0)]),
    Call("settlement", "pool_value", "vault", [], [u64(510)]),
    Call("settlement", "is_paused", "vault", [], [b"\0"]),
    Call("shares", "are_whole", "", [vector([u64(10_000)])], [b"\1"]),
    Call("shares", "are_distinct", "", [vector([A, A])], [b"\0"]),
    Call("shares", "split", "", [u64(5), vector([u64(3_333), u64(3_333), u64(3_334)])],
         [vector([u64(2), u64(1), u64(2)])]),
    Call("rights_probe", "plain_register", "registry clock",
         [vector_u8(TERMS), vector_u8(b"t"), vector_u8(b"u"), vector([A]), vector([u64(10_000)])],
         covers=("copyright_registry.register",)),
    Call("copyright_registry", "set_disputed", "registry arbiter work", [b"\1"]),
    Call("copyright_registry", "set_shares", "work cap", [vector([A]), vector([u64(10_000)])]),
    Call("copyright_registry", "assert_controls", "cap work"),
    Call("copyright_registry", "assert_controls", "strange work", abort="copyright_registry.EWrongWork"),
    Call("copyright_registry", "find", "registry", [vector_u8(HASH)], [b"\1" + WORK.id]),
    Call("copyright_registry", "find", "registry", [vector_u8(TERMS)], [b"\0"]),
    Call("copyright_registry", "is_disputed", "work", [], [b"\0"]),
    Call("copyright_registry", "creators", "work", [], [vector([A, B])]),
    Call("copyright_registry", "shares_bps", "work", [], [vector([u64(9_000), u64(1_000)])]),
    Call("copyright_registry", "has_license", "work", [LICENSE.id], [b"\1"]),
    Call("copyright_registry", "is_revocable", "work", [LICENSE.id], [b"\1"]),
    Call("copyright_registry", "revoked_ms", "work", [LICENSE.id], [u64(0)]),
    Call("license", "make_offer", "work cap", OFFERED),
    Call("license", "close_offer", "offer work cap"),
    Call("rights_probe", "plain_buy", "offer work till coin clock", [A], covers=("license.buy",)),
    Call("rights_probe", "plain_issue", "work cap clock", [A, vector_u8(TERMS), u64(1), b"\0", b"\0"],
         covers=("license.issue",)),
    Call("rights_probe", "revoke", "work cap clock", [LICENSE.id], covers=("license.revoke",)),
    Call("license", "hand_over", "license", [B]),
    Call("license", "is_valid", "license work clock", [], [b"\1"]),
    Call("license", "is_valid", "stray work clock", [], abort="license.EWrongWork"),
    Call("license", "work", "license", [], [WORK.id]),
    Call("license", "expires_ms", "license", [], [u64(1_005)]),
    Call("royalty", "open"),
    Call("royalty", "pay", "till work coin"),
    Call("royalty", "claim", "till", [A]),
    Call("royalty", "claim", "till", [B], abort="royalty.ENothingDue"),
    Call("royalty", "due_of", "till", [A], [u64(70)]),
    Call("royalty", "due_of", "till", [B], [u64(0)]),
    Call("royalty", "pool_value", "till", [], [u64(70)]),
]  # fmt: skip
REFUSALS = [
    Call("settlement", "migrate", "vault admin", abort="settlement.EWrongVersion"),
    Call("settlement", "withdraw", "paused operator", [A, B, u64(1), u64(3)], abort="settlement.EPaused"),
    Call("settlement", "set_paused", "vault foreign_admin", [b"\1"], abort="settlement.EWrongCap"),
    Call("probe", "commit_batch", "vault operator clock", [u64(4), *COMMIT[1:], *SAID, *PAIR, vector([])],
         abort="settlement.EWrongSequence"),
    Call("settlement", "deposit_many", "vault coin", [vector([A, B]), vector([u64(100)])],
         abort="settlement.ELengthMismatch"),
    Call("settlement", "withdraw", "vault operator", [A, B, u64(310), u64(3)], abort="settlement.EInsufficient"),
    Call("settlement", "deposit_many", "vault coin", [vector([A, B]), vector([u64(60), u64(41)])],
         abort="settlement.ENotConserved"),
    Call("probe", "commit_batch", "vault operator clock",
         [*COMMIT, vector_u8(HASH[1:]), *SAID[1:], *PAIR, vector([])], abort="settlement.EBadHash"),
    Call("probe", "finish_twice", "vault operator clock", [u64(5), u64(1), u64(1), vector_u8(HEADER.chain),
         vector_u8(HASH)], abort="settlement.EWrongSequence"),
    Call("probe", "finish_twice", "vault operator clock", [u64(5), u64(2), u64(2), vector_u8(HEADER.chain),
         vector_u8(HASH)], abort="settlement.EWrongPart"),
    Call("friend_probe", "claim_exit", "vault clock", [B, vector([])], abort="settlement.ENoExit"),
    Call("friend_probe", "claim_exit", "vault clock", [LATE, vector([])], abort="settlement.EExitNotReady"),
    Call("friend_probe", "claim_exit", "vault clock", [EMPTY, vector([])], abort="settlement.ENothingHeld"),
    Call("probe", "request_exit", "vault clock", [u64(0), vector([])], abort="settlement.EZeroAmount"),
    Call("settlement", "deposit", "vault coin", [FULL, vector_u8(b"")], abort="settlement.EOverflow"),
    Call("probe", "commit_batch", "vault operator clock", [*COMMIT[:3], vector_u8(HASH), *SAID, *PAIR, vector([])],
         abort="settlement.EWrongPrevious"),
    Call("settlement", "withdraw", "vault operator", [A, B, u64(1), u64(2)], abort="settlement.EWithdrawalReplay"),
    Call("probe", "commit_batch", "vault operator clock",
         [u64(5), u64(1), u64(2), COMMIT[3], *SAID, *PAIR, vector([])], abort="settlement.EWrongPart"),
    Call("settlement", "deposit", "vault coin", [A, vector_u8(b"r" * 65)], abort="settlement.EBadReference"),
    *(
        Call("rights_probe", "plain_register", "registry clock",
             [vector_u8(content), vector_u8(title), vector_u8(b"u"), vector(who), vector([u64(n) for n in shares])],
             abort=f"copyright_registry.{name}")
        for name, content, title, who, shares in (
            ("EAlreadyRegistered", HASH, b"t", [A], [10_000]),
            ("EBadHash", TERMS[1:], b"t", [A], [10_000]),
            ("EBadShares", TERMS, b"t", [A], [9_999]),
            ("ETooManyCreators", TERMS, b"t", [], []),
            ("EDuplicateCreator", TERMS, b"t", [A, A], [5_000, 5_000]),
            ("ETextTooLong", TERMS, b"t" * 1_025, [A], [10_000]),
        )
    ),
    Call("copyright_registry", "set_disputed", "registry foreign_arbiter work", [b"\1"],
         abort="copyright_registry.EWrongRegistry"),
    Call("rights_probe", "plain_issue", "disputed cap clock", ISSUED, abort="license.EDisputed"),
    Call("rights_probe", "plain_buy", "dear work till coin clock", [A], abort="license.EWrongPrice"),
    Call("rights_probe", "plain_buy", "closed work till coin clock", [A], abort="license.EClosed"),
    Call("rights_probe", "plain_buy", "sold_out work till coin clock", [A], abort="license.ESoldOut"),
    Call("license", "hand_over", "bound", [B], abort="license.ENotTransferable"),
    Call("license", "make_offer", "work cap", [*OFFERED[:2], u64(0), *OFFERED[3:]], abort="license.EBadTerms"),
    Call("rights_probe", "revoke", "work cap clock", [TERMS], abort="license.EUnknownLicense"),
    Call("rights_probe", "revoke", "work cap clock", [FIRM], abort="license.EIrrevocable"),
    Call("rights_probe", "revoke", "work cap clock", [GONE], abort="license.ERevoked"),
    Call("royalty", "pay", "till work nothing", abort="royalty.EZeroAmount"),
]  # fmt: skip
GENERIC = {
    ("license", "make_offer"), ("license", "close_offer"), ("rights_probe", "plain_buy"), ("royalty", "open"),
    ("royalty", "pay"), ("royalty", "claim"), ("royalty", "due_of"), ("royalty", "pool_value"),
}  # fmt: skip
NOT_GENERIC = {("settlement", "new_operator")}


@pytest.fixture(scope="module")
def machine() -> MoveExecutor:
    executor = MoveExecutor()
    executor.add_coin(COIN, NAME, CODE)
    return executor


def _objects() -> dict[str, tuple[bytes, str, bytes, bool]]:
    """Name → id, type, contents, whether it is shared."""
    coin, nothing, foreign_admin = b"\x60" * 32, b"\x61" * 32, b"\x62" * 32
    vault, generic = f"{P}::settlement::Vault<{T}>", f"<{T}>"
    strange, stray = WorkCap(b"\x23" * 32, HASH), msgspec.structs.replace(LICENSE, work=HASH)
    headers = {"vault": HEADER, "old": OLD, "other": OTHER, "paused": PAUSED}
    offers = {"offer": {}, "dear": {"price": 101}, "closed": {"open": False}, "sold_out": {"supply_left": 0}}
    works = {"work": WORK, "disputed": msgspec.structs.replace(WORK, disputed=True)}
    foreign_arbiter = ArbiterCap(b"\x13" * 32, HASH)
    bound = msgspec.structs.replace(LICENSE, transferable=False)
    return {
        **{name: (header.id, vault, header.encode(), True) for name, header in headers.items()},
        **{
            name: (OFFER.id, f"{P}::license::Offer{generic}", msgspec.structs.replace(OFFER, **terms).encode(), True)
            for name, terms in offers.items()
        },
        **{name: (w.id, f"{P}::copyright_registry::Work", w.encode(), True) for name, w in works.items()},
        "foreign_admin": (foreign_admin, f"{P}::settlement::AdminCap", foreign_admin, False),
        "foreign_arbiter": (
            foreign_arbiter.id, f"{P}::copyright_registry::ArbiterCap", foreign_arbiter.encode(), False,
        ),
        "nothing": (nothing, f"0x2::coin::Coin{generic}", nothing + u64(0), False),
        "bound": (bound.id, f"{P}::license::License", bound.encode(), False),
        "admin": (ADMIN, f"{P}::settlement::AdminCap", ADMIN, False),
        "operator": (OPERATOR, f"{P}::settlement::OperatorCap", OPERATOR, False),
        "coin": (coin, f"0x2::coin::Coin{generic}", coin + u64(100), False),
        "clock": (CLOCK_ID, "0x2::clock::Clock", CLOCK_ID + u64(NOW), True),
        "registry": (REGISTRY.id, f"{P}::copyright_registry::Registry", REGISTRY.encode(), True),
        "arbiter": (ARBITER.id, f"{P}::copyright_registry::ArbiterCap", ARBITER.encode(), False),
        "cap": (CAP.id, f"{P}::copyright_registry::WorkCap", CAP.encode(), False),
        "strange": (strange.id, f"{P}::copyright_registry::WorkCap", strange.encode(), False),
        "license": (LICENSE.id, f"{P}::license::License", LICENSE.encode(), False),
        "stray": (stray.id, f"{P}::license::License", stray.encode(), False),
        "till": (TILL.id, f"{P}::royalty::Till{generic}", TILL.encode(), True),
    }  # fmt: skip


def _children() -> dict[str, list[dict[str, Any]]]:
    def table(parent: bytes, tag: bytes, kind: str, entries: dict[bytes, bytes]) -> dict[str, list[dict[str, Any]]]:
        children = []
        for key, value in entries.items():
            identity = dynamic_field_id(parent, key, tag)
            field_type = f"0x2::dynamic_field::Field<{kind}>"
            children.append(movevm._child(identity, field_type, identity + key + value))
        return {address_text(parent): children}

    rows = movevm._children(Vault(HEADER, T, PACKAGE, dict(ROWS)), list(ROWS)) or {}
    identity, grant = "0x2::object::ID", f"{P}::copyright_registry::Grant"
    works = table(REGISTRY.works, type_tag("vector<u8>"), f"vector<u8>, {identity}", {vector_u8(HASH): WORK.id})
    grants = {key: value.encode() for key, value in GRANTS.items()}
    licenses = table(WORK.licenses, type_tag(identity), f"{identity}, {grant}", grants)
    return rows | works | licenses | table(TILL.due, type_tag("address"), "address, u64", {A: u64(70)})


def _run(machine: MoveExecutor, call: Call) -> list[bytes]:
    known = _objects()
    given = [
        movevm._object(identity, kind, contents, is_shared=shared, mutable=shared and name != "clock")
        for name, (identity, kind, contents, shared) in ((name, known[name]) for name in call.objects.split())
    ]
    is_generic = (call.module, call.function) in GENERIC or (
        call.module in ("settlement", "probe", "friend_probe") and (call.module, call.function) not in NOT_GENERIC
    )
    build = machine._friendly if call.module in ("rights_probe", "friend_probe") else machine._published
    code = [relocate(each, PACKAGE) for each in build]
    bytecodes = {P: code, address_text(COIN): [machine._coins[address_text(COIN)][1]]}
    types = [T] if is_generic else []
    reply = machine._call(P, call.module, call.function, types, given, call.pures, _children(), bytecodes)
    return [base64.b64decode(value) for value in reply["return_values"][0]]


@pytest.mark.parametrize("call", CALLS + REFUSALS, ids=str)
def test_the_function_runs(machine: MoveExecutor, call: Call) -> None:
    if call.abort:
        with pytest.raises(MoveAbort) as abort:
            _run(machine, call)
        assert (abort.value.module, abort.value.code) == (call.abort.partition(".")[0], ABORT_CODES[call.abort])
        return
    answer = _run(machine, call)
    assert call.answer is None or answer == call.answer


def test_no_public_function_is_left_out(tmp_path: Any) -> None:
    folder = tmp_path / "bytecode_modules"
    folder.mkdir()
    for name, code in zip(published_modules(), load_modules("exchange", published_modules()), strict=True):
        (folder / f"{name}.mv").write_bytes(code)
    modules = sui_sandbox.extract_interface(bytecode_dir=str(tmp_path))["modules"]
    public = {
        (module, name)
        for module, body in modules.items()
        for name, function in body["functions"].items()
        if function["visibility"] == "public"
    }
    good = [call for call in CALLS if not call.abort]
    run = {(call.module, call.function) for call in good}
    run |= {(module, name) for call in good for module, name in (each.split(".") for each in call.covers)}
    assert not public - run


def test_no_abort_code_is_left_out() -> None:
    assert ABORT_CODES.keys() == {call.abort for call in CALLS + REFUSALS} - {""}
