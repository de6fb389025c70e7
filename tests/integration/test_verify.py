"""`verify` over batches that the settler really had executed: what is true passes, whatever is altered is refused."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncpg
import msgspec
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console

from byline.client import TradingClient
from byline.client.messages import decode
from byline.journal_publication import batch_files
from byline.operator import gateway_url, open_operator
from byline.verify_tools import read_proofs, verify_files
from engine.messages.codes import CommandKind, EventKind
from engine.messages.errors import SettingsInvalid, Unavailable
from settlement.batch_file import BatchFile, read_batch_file
from settlement.chain.encoding import VaultHeader, base58_text, transaction_digest
from settlement.chain.keys import OperatorKey
from settlement.chain.reader import NodeReader
from settlement.committed import commitments
from settlement.merkle import Proof
from settlement.proof_desk import ProofClient, ProofProblem, serve_proofs
from settlement.verify import Refuted, verify_batch
from tests.support.exchange import rest_of
from tests.support.settlement_bench import MARKET, Bench, opened_market
from tests.support.settlement_events import EXTERNAL
from tests.support.waiting import HANG_S, answers, until
from tests.unit.platform_api.test_sui_signature import Wallet

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
replace = msgspec.structs.replace


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def settled(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Three final batches, their files, proofs of the second and third, and the node."""
    directory = tmp_path_factory.mktemp("verify")
    bench, (log, buyer, seller) = Bench(directory), opened_market()
    await bench.node_up()
    for number in range(3):
        log.trade(MARKET, seller, buyer, 3 + number, 50, 1)
        log.cut()
    async with bench.settler(log) as settler:
        await until(lambda: len(bench.finals()) == 3, what="three final batches")
        owed = settler.netting.liabilities
        proofs = {number: owed.prove(number, "user:buyer") for number in (2, 3)}
        stop, desk = asyncio.Event(), ProofClient(directory)
        serving = asyncio.create_task(serve_proofs(directory, lambda: owed, lambda: settler.final_batch, stop))
        await until((directory / "run" / "proofs.sock").exists, what="the desk")
        assert await desk.prove("user:buyer", 2) == proofs[2] and await desk.prove("user:buyer", None) == proofs[3]
        for account, batch, reason in (("user:x", 2, "no_balance"), ("user:buyer", 4, "unknown_batch")):
            with pytest.raises(ProofProblem, match=reason):
                await desk.prove(account, batch)
        stop.set()
        await serving
        with pytest.raises(Unavailable):
            await desk.prove("user:buyer", 2)
    files = {record.number: record.file for record in bench.records if record.status == "final"}
    yield SimpleNamespace(
        files={number: read_batch_file(file) for number, file in files.items()}, raw=files, proofs=proofs,
        url=f"http://127.0.0.1:{bench.port}",
    )  # fmt: skip
    await bench.node_down()


class Lying(NodeReader):
    """A node that answers otherwise than it should."""

    def __init__(
        self, url: str, transaction: Any = None, vault: Any = None, code: Any = None, versions: Any = None
    ) -> None:
        super().__init__(url)
        self.change_transaction, self.change_vault = transaction, vault
        self.change_code, self.change_versions = code, versions

    async def transaction(self, digest: str) -> Any:
        found = await super().transaction(digest)
        return self.change_transaction(found) if self.change_transaction else found

    async def vault(self, identity: str) -> Any:
        found = await super().vault(identity)
        return self.change_vault(found) if self.change_vault else found

    async def code(self, package: str) -> Any:
        found = await super().code(package)
        return self.change_code(found) if self.change_code else found

    async def versions(self, package: str) -> Any:
        found = await super().versions(package)
        return self.change_versions(found) if self.change_versions else found


async def lines_of(
    settled: Any, batch: BatchFile, proofs: list[Proof] | None = None, previous: BatchFile | None = None, **lies: Any
) -> list[str]:
    reader = Lying(settled.url, **lies)
    try:
        wanted = settled.proofs[3] if proofs is None else proofs
        return [line async for line in verify_batch(batch, wanted, reader, previous)]
    finally:
        await reader.close()


@pytest.mark.asyncio(loop_scope="module")
async def test_what_is_true_passes_and_says_what_it_found(settled: Any) -> None:
    lines = await lines_of(settled, settled.files[3], previous=settled.files[2])
    told = "\n".join(lines)
    assert "no network: an embedded chain on one machine" in told and "executor=model" in told
    assert "smallest units of USDC are counted among the" in told and told.count("covered") == 2
    assert "batch 2 in the file given" in told and "byte for byte the contract of this verifier" in told
    [buyer] = [proof for proof in settled.proofs[3] if proof.asset == "USDC"]
    assert buyer.amount == 100_000 - (3 + 4 + 5) * 50 - 3
    assert "gone on to batch 3" in "\n".join(await lines_of(settled, settled.files[2], settled.proofs[2]))


def statement(**changes: Any) -> Any:
    return lambda batch: replace(batch, statement=replace(batch.statement, **changes))


def rooted(**changes: Any) -> Any:
    """An operator's forgery: everything in the file agrees with itself."""

    def forge(batch: BatchFile) -> BatchFile:
        said = replace(batch.statement, **changes)
        forged = replace(batch, statement=said, root=said.root())
        vaults = [
            replace(link, chain=forged.chain_after(link, said.number, link.previous, len(batch.digests)))
            for link in batch.vaults
        ]
        return replace(forged, vaults=vaults)

    return forge


def first_vault(**changes: Any) -> Any:
    return lambda batch: replace(batch, vaults=[replace(batch.vaults[0], **changes), *batch.vaults[1:]])


def owed_more(batch: BatchFile) -> list[Any]:
    return [replace(item, owed=item.owed + 1) for item in batch.statement.assets]


def without_vault(asset: str) -> Any:
    return lambda batch: replace(batch, vaults=[link for link in batch.vaults if link.asset != asset])


@pytest.mark.parametrize(
    ("forge", "reason"),
    [
        (statement(trade_count=9), "it was altered"),
        (statement(state_hash=bytes(16)), "it was altered"),
        (statement(liability_root=bytes(32)), "it was altered"),
        (statement(state_hash=b"short"), "no statement: state_hash has 5 bytes"),
        (statement(cut_ts=2**70), "out of range"),
        (lambda batch: statement(assets=batch.statement.assets * 2)(batch), "an asset is stated twice"),
        (lambda batch: rooted(assets=batch.statement.assets[::-1])(batch), "does not stand where the batch's"),
        (lambda batch: replace(batch, root=bytes(32)), "it was altered"),
        (lambda batch: replace(batch, digests=[]), "names no transaction"),
        (lambda batch: replace(batch, vaults=[]), "names no vault"),
        (lambda batch: replace(batch, vaults=[batch.vaults[0]] * 2), "names a vault twice"),
        (lambda batch: replace(batch, digests=batch.digests * 2), "does not follow from"),
        (lambda batch: replace(batch, digests=["1" * 32]), "knows no transaction"),
        (first_vault(previous=bytes(32)), "does not follow from"),
        (first_vault(chain=bytes(32)), "does not follow from"),
        (first_vault(asset="GOLD"), "the statement says nothing"),
        (first_vault(vault="0x" + "7" * 64), "is about the vault 0x.* too, which the file leaves out"),
        (first_vault(coin_type="0x2::sui::SUI"), "coin_type is 0x.* on the chain, 0x0+2::sui::SUI by the file"),
        (first_vault(coin_type="no::coin::TYPE"), "is no coin type"),
        (lambda batch: replace(batch, vaults=[replace(link, asset="USDC") for link in batch.vaults]), "two vaults of"),
        (lambda batch: replace(batch, digests=["9" * 70]), "is no digest"),
        (lambda batch: replace(batch, digests=["0OIl"]), "is no digest"),
        (without_vault("USDC"), r"is about the vault 0x.* \(coin 0x.*\) too, which the file leaves out"),
        (without_vault("MAYA"), r"is about the vault 0x.* \(coin 0x.*\) too, which the file leaves out"),
        (rooted(trade_count=9), "root is .* on the chain"),
        (rooted(trades_digest=bytes(32)), "is .* on the chain"),
        (rooted(number=4), "the proof is of batch 3, the batch file of 4"),
        (lambda batch: rooted(assets=owed_more(batch))(batch), r"a total of [0-9]+ by the tree, [0-9]+ as stated"),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_an_altered_batch_is_refused_with_its_reason(settled: Any, forge: Any, reason: str) -> None:
    with pytest.raises(Refuted, match=reason):
        await lines_of(settled, forge(settled.files[3]))


@pytest.mark.asyncio(loop_scope="module")
async def test_an_altered_proof_is_refused_with_its_reason(settled: Any) -> None:
    proof = settled.proofs[3][0]
    for forged, reason in (
        (replace(proof, amount=proof.amount + 1, total=proof.total + 1), "another liability root"),
        (replace(proof, amount=proof.amount + 1), "adds up to"),
        (replace(proof, account="user:seller"), "another liability root"),
        (replace(proof, batch=2), "the proof is of batch 2"),
        (replace(proof, asset="GOLD"), "states 0 totals of GOLD"),
        (settled.proofs[2][0], "the proof is of batch 2"),
        (replace(settled.proofs[2][0], batch=3), "another liability root"),
    ):
        with pytest.raises(Refuted, match=reason):
            await lines_of(settled, settled.files[3], [forged])
    with pytest.raises(Refuted, match=f"{proof.account} in {proof.asset} is proven twice"):
        await lines_of(settled, settled.files[3], [proof, proof])


def one_more_vault(batch: BatchFile) -> BatchFile:
    more = replace(batch.vaults[0], asset="GOLD", vault="0x" + "5" * 64)
    return replace(batch, vaults=[*batch.vaults, more])


@pytest.mark.asyncio(loop_scope="module")
async def test_a_transaction_that_commits_twice_to_a_vault_is_refused(
    settled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def doubled(raw: bytes) -> tuple[str, list[Any]]:
        sender, found = commitments(raw)
        return sender, [*found, replace(found[0], liabilities=1)]

    monkeypatch.setattr("settlement.verify.commitments", doubled)
    with pytest.raises(Refuted, match="commits twice to one vault"):
        await lines_of(settled, settled.files[3])


@pytest.mark.asyncio(loop_scope="module")
async def test_a_wrong_previous_batch_is_refused(settled: Any) -> None:
    third, second = settled.files[3], settled.files[2]
    for previous, reason in (
        (settled.files[1], "the previous batch given is 1, not 2"),
        (statement(last_sequence=1)(second), "the previous batch ends at sequence 1"),
        (first_vault(coin_type="0x2::sui::SUI")(second), "and of USDC, 0x2::sui::SUI in the previous batch"),
        (first_vault(chain=bytes(32))(second), "does not build on the previous one"),
        (first_vault(vault="0x" + "5" * 64)(second), "does not build on"),
        (one_more_vault(second), f"vault 0x{'5' * 64} of the previous batch is missing in this one"),
    ):
        with pytest.raises(Refuted, match=reason):
            await lines_of(settled, third, previous=previous)


def other_signature(found: Any) -> Any:
    return dataclasses.replace(found, signatures=[OperatorKey(bytes(range(32))).sign(found.raw)])


def flipped_signature(found: Any) -> Any:
    broken = bytearray(found.signatures[0])
    broken[9] ^= 1
    return dataclasses.replace(found, signatures=[bytes(broken)])


def flipped_bytes(found: Any) -> Any:
    broken = bytearray(found.raw)
    broken[len(broken) // 2] ^= 1
    return dataclasses.replace(found, raw=bytes(broken))


def no_transaction(found: Any) -> Any:
    return dataclasses.replace(found, raw=b"abc", digest=base58_text(transaction_digest(b"abc")))


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        (lambda found: None, "knows no transaction"),
        (lambda found: dataclasses.replace(found, success=False), "executed and failed"),
        (lambda found: dataclasses.replace(found, checkpoint=None), "not final"),
        (lambda found: dataclasses.replace(found, digest="1" * 44), "its bytes are another's"),
        (lambda found: dataclasses.replace(found, events=[]), "has no event of its vault"),
        (lambda found: dataclasses.replace(found, signatures=[]), "not signed by it"),
        (other_signature, "not signed by it"),
        (flipped_signature, "the signature is not valid"),
        (flipped_bytes, "its bytes are another's"),
        (no_transaction, "its bytes are another's"),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_node_that_lies_about_the_transaction_is_caught(settled: Any, lie: Any, reason: str) -> None:
    with pytest.raises(Refuted, match=reason):
        await lines_of(settled, settled.files[3], transaction=lie)


def header(**changes: Any) -> Any:
    def lie(found: Any) -> Any:
        return dataclasses.replace(found, contents=replace(VaultHeader.decode(found.contents), **changes).encode())

    return lie


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        (lambda found: None, "knows no object"),
        (lambda found: dataclasses.replace(found, kind="0x2::coin::Coin<0x2::sui::SUI>"), "no vault of"),
        (lambda found: dataclasses.replace(found, kind="0x9" + found.kind[found.kind.index("::") :]), "called another"),
        (lambda found: dataclasses.replace(found, contents=found.contents[:-1]), "is no vault"),
        (header(id=bytes(32)), "answered with another object"),
        (header(next_seq=3), "has not taken effect"),
        (header(chain=bytes(32)), "the vault has chain value"),
        (header(last_root=bytes(32)), "another root or total"),
        (header(last_liabilities=1), "another root or total"),
        (header(pool=99), "units are missing$"),
        (header(pool=99, deficit=10**6), "units are missing; rows whose owners left by force are 1000000 in debt"),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_vault_that_differs_or_holds_too_little_is_refused(settled: Any, lie: Any, reason: str) -> None:
    with pytest.raises(Refuted, match=reason):
        await lines_of(settled, settled.files[3], vault=lie)


def other_code(**modules: Any) -> Any:
    """Each module as given; None takes it away."""

    def lie(found: Any) -> Any:
        changed = {name: code for name, code in (found.modules | modules).items() if code is not None}
        return dataclasses.replace(found, modules=changed)

    return lie


def patched(found: Any) -> Any:
    code = bytearray(found.modules["settlement"])
    code[-1] ^= 1
    return other_code(settlement=bytes(code))(found)


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        (lambda found: None, "knows no package"),
        (patched, "the code of settlement is another"),
        (other_code(row=b""), "the code of row is another"),
        (other_code(royalty=None), "one of them has no module royalty"),
        (other_code(backdoor=b"x"), "one of them has no module backdoor"),
        (lambda found: dataclasses.replace(found, original="0x7"), "the code of .* is another"),
        (lambda found: dataclasses.replace(found, original="no id"), "is no id"),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_vaults_of_another_contract_are_refused(settled: Any, lie: Any, reason: str) -> None:
    with pytest.raises(Refuted, match=reason):
        await lines_of(settled, settled.files[3], code=lie)


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        (lambda found: [*found, "0x77"], "knows no package 0x0+77"),
        (lambda found: [], "lists 0 versions"),
        (lambda found: ["0x77"], "and not this one"),
        (lambda found: [*found, "no id"], "a version that is no id"),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_every_version_of_the_package_is_looked_at(settled: Any, lie: Any, reason: str) -> None:
    with pytest.raises(Refuted, match=reason):
        await lines_of(settled, settled.files[3], versions=lie)

    def upgraded(found: Any) -> Any:
        """A later version, at 0x77, with a module changed; the first is as it was."""
        calls.append(found)
        return patched(found or calls[0]) if len(calls) == 2 else found or calls[0]

    calls: list[Any] = []
    with pytest.raises(Refuted, match="package 0x.* the code of settlement is another"):
        await lines_of(settled, settled.files[3], versions=lambda found: [*found, "0x" + "f" * 64], code=upgraded)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_vault_that_only_an_event_names_is_not_hidden_either(settled: Any) -> None:
    """A helper's code may have called the contract: then the bytes do not show which vault."""

    def lie(found: Any) -> Any:
        paid = [contents for kind, contents in found.events if "::BatchCommitted" in kind][0]
        kind = next(kind for kind, _ in found.events if "::BatchCommitted" in kind)
        hidden = bytes(31) + b"\x55" + paid[32:]
        return dataclasses.replace(found, events=[*found.events, (kind, hidden)])

    with pytest.raises(Refuted, match="is about the vault 0x0+55 too, which the file leaves out"):
        await lines_of(settled, settled.files[3], transaction=lie)


@pytest.mark.asyncio(loop_scope="module")
async def test_an_asset_without_a_vault_is_said_to_be_held_by_nobody(tmp_path: Path, capsys: Any) -> None:
    """Bank money: the tree counts it, no vault is for it, and no word says that it is held."""
    bench, (log, buyer, _) = Bench(tmp_path), opened_market()
    euro = log.asset("EUR", settled=False)
    log.deposit(buyer, euro, 900)
    log.cut()
    await bench.node_up()
    try:
        async with bench.settler(log) as settler:
            await until(lambda: bench.finals() == [1], what="a final batch")
            proofs = settler.netting.liabilities.prove(1, "user:buyer")
        [file] = [record.file for record in bench.records if record.status == "final"]
        url = f"http://127.0.0.1:{bench.port}"
        told = "\n".join(await lines_of(SimpleNamespace(url=url), read_batch_file(file), proofs))
        assert "NOTE EUR: no vault takes part in this batch, so NOTHING shows" in told and "USDC: no vault" not in told
        assert "without a vault in this batch: EUR" in "\n".join(
            await lines_of(SimpleNamespace(url=url), read_batch_file(file), [])
        )
        (tmp_path / "batch").write_bytes(file)
        for assets, said, unsaid in (
            (("EUR",), ("nothing shown to be held", "NOT HELD NOT shown for EUR"), ("a vault on the chain held",)),
            (("EUR", "USDC"), ("2 balances counted, USDC shown to be held", "For USDC a vault"), ("For EUR", "EUR, ")),
            (("USDC",), ("1 balances counted, USDC shown", "For USDC a vault"), ("NOT HELD",)),
        ):
            mine = [proof for proof in proofs if proof.asset in assets]
            (tmp_path / "proof").write_bytes(msgspec.json.encode({"format": "byline proof 1", "proofs": mine}))
            done = await asyncio.to_thread(
                verify_files, tmp_path / "proof", tmp_path / "batch", None, url, console=Console(highlight=False)
            )
            told = capsys.readouterr().out
            assert done == 0 and all(text in told for text in said), told
            assert not any(text in told for text in unsaid), told
    finally:
        await bench.node_down()


@pytest.mark.asyncio(loop_scope="module")
async def test_an_event_of_a_pool_too_small_is_refused(settled: Any) -> None:
    def lie(found: Any) -> Any:
        events = []
        for kind, contents in found.events:
            if "::BatchCommitted" in kind:
                at = len(contents) - 8 - 16 - 8
                contents = contents[:at] + (7).to_bytes(8, "little") + contents[at + 8 :]
            events.append((kind, contents))
        return dataclasses.replace(found, events=events)

    with pytest.raises(Refuted, match="the vault held 7 when the batch took effect"):
        await lines_of(settled, settled.files[3], transaction=lie)


async def test_what_is_paid_and_not_booked_is_told_and_where_to_look_for_it(tmp_path: Path) -> None:
    """Booked after the second cut: the first batch pays 250, the second still counts them as owed."""
    booked: list[str] = []

    class Core:
        async def submit(self, command: dict[str, Any]) -> dict[str, Any]:
            if command["ref"] not in booked:
                booked.append(command["ref"])
                log.money(EventKind.POSTED, CommandKind.WITHDRAW_SETTLED, "w1", [(buyer, 0, 250, EXTERNAL)])
            return {"event": "posted"}

    bench, (log, buyer, _) = Bench(tmp_path), opened_market()
    await bench.node_up()
    try:
        log.money(EventKind.PENDED, CommandKind.WITHDRAW, "w1", [(buyer, 0, 250, EXTERNAL)])
        log.cut()
        log.cut()
        async with bench.settler(log, commands=Core()):
            await until(lambda: bench.finals() == [1, 2], what="two final batches")
        files = {record.number: read_batch_file(record.file) for record in bench.records if record.status == "final"}
        world = SimpleNamespace(url=f"http://127.0.0.1:{bench.port}")
        first, second = ["\n".join(await lines_of(world, files[number], [])) for number in (1, 2)]
        assert "250 units of USDC owed by the books left the vault in this batch" in first and "look for" not in first
        assert "NOTE 250 units of USDC owed by the books" in second and "look for 250 in the vault's" in second
        assert "250 of which it has paid out already: covered" in second

        def torn(found: Any) -> Any:
            cut = [(kind, contents[: 9 if "::Withdrawn" in kind else None]) for kind, contents in found.events]
            return dataclasses.replace(found, events=cut)

        with pytest.raises(Refuted, match="event .* cannot be read"):
            await lines_of(world, files[1], [], transaction=torn)
    finally:
        await bench.node_down()


@pytest.mark.asyncio(loop_scope="module")
async def test_the_command_takes_files_and_whole_answers_and_refuses_what_is_neither(
    settled: Any, tmp_path: Path, capsys: Any
) -> None:
    console = Console(highlight=False)
    proof = msgspec.json.encode({"format": "byline proof 1", "proofs": settled.proofs[3]})
    answers = {
        "proof": proof, "batch": settled.raw[3], "previous": settled.raw[2],
        "whole_proof": b'{"success":true,"data":' + proof + b"}",
        "whole_batch": b'{"success":true,"data":{"number":3,"file":' + settled.raw[3] + b"}}",
        "noise": b"\xff{", "other": b"{}", "empty": b'{"format":"byline proof 1","proofs":[]}',
        "longer": proof[:-1] + b',"more":1}',
    }  # fmt: skip
    for name, data in answers.items():
        (tmp_path / name).write_bytes(data)

    def check(proof: str, batch: str, previous: str | None = None) -> int:
        before = tmp_path / previous if previous else None
        return verify_files(tmp_path / proof, tmp_path / batch, before, settled.url, console=console)

    for arguments in (("proof", "batch"), ("whole_proof", "whole_batch", "previous")):
        assert await asyncio.to_thread(check, *arguments) == 0
        assert "VERIFIED batch 3" in capsys.readouterr().out
    for arguments in (
        ("noise", "batch"), ("other", "batch"), ("empty", "batch"), ("longer", "batch"), ("proof", "noise"),
        ("proof", "other"), ("batch", "proof"), ("proof", "previous"), ("proof", "batch", "batch"),
    ):  # fmt: skip
        assert await asyncio.to_thread(check, *arguments) == 1
        assert "REFUSED" in capsys.readouterr().out
    assert read_proofs(tmp_path / "proof") == settled.proofs[3]
    for wrong in ("ftp://node", "http://127.0.0.1:99999", "http://127.0.0.1:7403/x", "http://[::1", "https://n:1?a=b"):
        with pytest.raises(SettingsInvalid):
            NodeReader(wrong)
    tls = NodeReader(settled.url.replace("http://", "https://"))
    with pytest.raises(Unavailable, match="does not speak TLS as https asks for.*http://"):
        await tls.facts()
    await tls.close()
    reader = NodeReader("http://127.0.0.1:1")
    with pytest.raises(Unavailable):
        await reader.facts()
    await reader.close()


def wrapped(data: bytes, field: str = "") -> bytes:
    """As REST answers it and README's curl keeps it."""
    inner = b'{"number":3,"' + field.encode() + b'":' + data + b"}" if field else data
    return b'{"success":true,"data":' + inner + b"}"


@pytest.mark.asyncio(loop_scope="module")
async def test_a_bad_field_of_a_downloaded_file_is_named_whether_it_has_an_envelope_or_not(
    settled: Any, tmp_path: Path, capsys: Any
) -> None:
    proof = msgspec.json.encode({"format": "byline proof 1", "proofs": settled.proofs[3]})
    batch = settled.raw[3]
    text, salt = proof.replace(b'"amount":', b'"amount":"x","a":', 1), proof.replace(b'"salt":"', b'"salt":"?', 1)
    other = proof.replace(b"proof 1", b"proof 2")
    error = b'{"success":false,"error":{"code":"NOT_FOUND","message":"There is no such batch."}}'
    for proof_file, batch_file, reason in (
        (text, batch, "Expected `int`, got `str` - at `$.proofs[0].amount`"),
        (wrapped(text), batch, "Expected `int`, got `str` - at `$.proofs[0].amount`"),
        (wrapped(salt), batch, "base64"), (wrapped(other), batch, "byline proof 2"),
        (wrapped(proof)[:-9], batch, "no JSON object"), (error, batch, "There is no such batch"),
        (proof, wrapped(batch, "file")[:-9], "no JSON object"), (proof, error, "There is no such batch"),
        (proof, wrapped(batch, "fail"), "an answer without 'file'"),
        (proof, wrapped(batch.replace(b'"number":3', b'"number":"3"'), "file"), "at `$.statement.number`"),
    ):  # fmt: skip
        (tmp_path / "proof").write_bytes(proof_file)
        (tmp_path / "batch").write_bytes(batch_file)
        assert verify_files(tmp_path / "proof", tmp_path / "batch", None, settled.url, console=Console()) == 1
        told = capsys.readouterr().out
        assert "REFUSED" in told and reason in told and "`success`" not in told, told


async def test_from_an_order_over_the_websocket_to_a_verified_proof(new_exchange: Any, tmp_path: Path) -> None:
    """The whole way, as README's "Verify it yourself" tells it; its commands are read from there and run."""
    exchange, wallet = new_exchange("--quiet-market", "--batch-seconds", "1"), Wallet(0)
    await exchange.start()
    try:
        api, node = exchange.status("api"), exchange.status("chain")
        base = f"http://{api['host']}:{api['port']}"
        async with rest_of(exchange, wallet) as (data, session):
            token = session["access_token"]
            await data("POST", "/v1/faucet", assets=["USDC", "INK"])
            key = Ed25519PrivateKey.generate()
            public = key.public_key().public_bytes_raw().hex()
            nonce = await data("POST", "/v1/auth/nonce", address=wallet.address, purpose="step_up")
            signature = wallet.sign(nonce["message"].encode())
            await data("POST", "/v1/auth/step-up", address=wallet.address, nonce=nonce["nonce"], signature=signature)
            await data("POST", "/v1/users/me/api-keys", public_key=public, scopes=["trade", "read"], label="e2e")
            async with (
                await TradingClient.connect(gateway_url(exchange.settings), key) as mine,
                open_operator(exchange.settings) as operator,
            ):
                await operator.command("account", account="e:other")
                await operator.command("deposit", account="e:other", asset="USDC", amount="500", ref="e-1")
                sold = await mine.place("INK-USDC", "s1", "sell", "limit", size="2", price="12")
                assert sold["event"] == "accepted"
                bought = {"op": "place", "account": "e:other", "market": "INK-USDC", "client_id": "b1", "side": "buy",
                          "type": "limit", "size": "2", "price": "12"}  # fmt: skip
                assert (await operator.request(bought))["event"] == "accepted"
                heard: list[Any] = []
                trade: Any = None
                async with asyncio.timeout(HANG_S):
                    async for event in mine.events():
                        trade = event if event.get("event") == "trade" else trade
                        if event.get("type") == "settled":
                            heard.append(decode(event))
                            if trade and heard[-1].first_sequence <= trade["sequence"] <= heard[-1].last_sequence:
                                break
            [fill] = await answers(
                lambda: data("GET", "/v1/trades?own=true"),
                lambda fills: fills and fills[0].get("batch_status") == "final",
            )
            assert fill["digests"] and fill["side"] == "sell"
            batch = await data("GET", f"/v1/settlement/batches/{fill['batch']}")
            assert batch["digests"] == fill["digests"] == heard[-1].digests and heard[-1].batch == fill["batch"]
            assert all(later.batch == earlier.batch + 1 for earlier, later in pairwise(heard))
            assert (heard[-1].chain, heard[-1].executor) == (batch["chain"], batch["executor"])
            assert batch["first_sequence"] <= fill["sequence"] <= batch["last_sequence"]
            assert (batch["chain"], batch["executor"]) == ("embedded (not a network)", "movevm")
        connection = await asyncpg.connect(exchange.status("postgres")["url"])
        row = await connection.fetchrow("SELECT batch, batch_status, digests FROM exchange.settled_trade")
        await connection.close()
        assert (row["batch"], row["batch_status"], row["digests"]) == (fill["batch"], "final", fill["digests"])

        values = {"API": base, "TOKEN": token, "N": str(fill["batch"]), "NODE": f"http://{node['host']}:{node['port']}"}
        environment = os.environ | values | {"PYTHONPATH": str(Path(__file__).parents[2])}
        environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment["BYLINE_DATA_DIRECTORY"] = str(exchange.data)

        def shell(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
            line = ["bash", "-euo", "pipefail", "-c", script]
            return subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True)

        done = await asyncio.to_thread(shell, readme_commands("Verify it yourself"), tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"VERIFIED batch {fill['batch']}" in done.stdout and "not a network" in done.stdout
        assert f"user:{session['account_id']}" in done.stdout

        def cli(*argv: str) -> subprocess.CompletedProcess[str]:
            line = [sys.executable, "-m", "byline.cli", *argv]
            return subprocess.run(line, capture_output=True, text=True, env=environment)

        script = readme_commands("Verify it yourself", 1).replace("user:alice", f"user:{session['account_id']}")
        (tmp_path / "operator").mkdir()
        done = await asyncio.to_thread(shell, script, tmp_path / "operator")
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"proof.json batch.json --node {values['NODE']}" in done.stdout and "VERIFIED batch" in done.stdout
        for wrong, reason in (
            (("user:nobody",), "user:nobody had no balance in batch"),
            (("user:x", "--batch", "999999"), "no such batch"),
            (("user:nobody", "--batch", "1"), "had no balance in batch 1; leave --batch out"),
            (("alice",), "did you mean user:alice?"), (("",), "did you mean user:alice?"),
            (("system:fees",), "the exchange's own account"),
        ):  # fmt: skip
            refused = await asyncio.to_thread(cli, "proof", *wrong, "--to", str(tmp_path / "none"))
            assert refused.returncode == 2 and reason in refused.stderr, refused.stdout + refused.stderr
        assert not (tmp_path / "none").exists()

        folder = tmp_path / "published"

        def vouched_for() -> int:
            return max((batch.statement.published_batch for batch in batch_files(exchange.data)), default=0)

        published = await asyncio.to_thread(cli, "journal", "publish", str(folder))
        assert published.returncode == 0, published.stdout + published.stderr
        vouched = len(list(folder.glob("*.json")))
        await until(lambda: vouched_for() == vouched, what="a batch that vouches for the publication")
        done = await asyncio.to_thread(shell, readme_commands("Verify it yourself", 2), tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"every record and state hash up to batch {vouched:,} is vouched for" in done.stdout
    finally:
        assert await exchange.stop() == 0, exchange.log()


def readme_commands(heading: str, place: int = 0) -> str:
    """The shell lines of one block under a heading of the README."""
    text = (Path(__file__).parents[2] / "README.md").read_text()
    section = text.split(f"## {heading}\n", 1)[1]
    return section.split("```sh\n")[1 + place].split("```", 1)[0]
