"""Checks a batch and proofs of balances against a Sui node, and believes nobody but that node.

It has no access to the exchange: it takes a batch file, proof files and a node (`ChainReader`). Each check either
passes and is said in one line, or stops everything with the exact reason (`Refuted`). What has to be believed at the
end is the node's word on three things only: which transactions took effect, what the vaults hold, and what code they
run. The bytes of a transaction prove themselves by their digest, and their sender by the signature; the code is
compared with the contract that comes with this verifier, since a vault of another contract could say anything.

Which vaults a batch has is read from its transactions, never believed of the file: a file without a vault that a
transaction names is refused, or a vault that holds too little could be left out. An asset that no transaction names a
vault for is said to be held by nobody (`unbacked`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import base58

from settlement.batch_file import BatchFile, VaultLink
from settlement.chain.encoding import Reader, VaultHeader, address_bytes, address_text, base58_text, transaction_digest
from settlement.chain.events import ChainEvent
from settlement.chain.keys import BadSignature, signer_of
from settlement.chain.localsui.movevm import load_modules, published_modules, relocate
from settlement.committed import Commitment, commitments, normal_package, normal_type, vault_events
from settlement.merkle import Proof, ProofInvalid, check_proof

__all__ = ["ChainReader", "Code", "Executed", "NodeFacts", "Refuted", "TransactionMissing", "VaultObject",
           "CommittedBatch", "check_executed", "check_links", "unbacked", "verify_batch"]  # fmt: skip

_COMMIT_EVENT = "BatchCommitted"


class Refuted(Exception):
    """Something is not as it is said to be; the text is the reason, for people."""


class TransactionMissing(Refuted):
    """The node knows no transaction of that digest: there is none, or it keeps no such old ones."""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What the node says of itself. `simulated`: it is no network; `server` then names the executor.

    `first_checkpoint`: the oldest whose transactions it still keeps; 0: all.
    """

    chain: str
    chain_id: str
    server: str
    first_checkpoint: int = 0

    @property
    def simulated(self) -> bool:
        return self.chain == "embedded"


@dataclass(frozen=True, slots=True)
class Executed:
    """A transaction as the node tells it. `events`: (type, BCS)."""

    digest: str
    raw: bytes
    signatures: list[bytes]
    success: bool
    checkpoint: int | None
    events: list[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class VaultObject:
    kind: str
    contents: bytes


@dataclass(frozen=True, slots=True)
class Code:
    """Bytecode of a package by module. `original`: the id of its first version, its own address in the bytecode."""

    original: str
    modules: dict[str, bytes]


class ChainReader(Protocol):
    """A node. Each method raises Unavailable when it does not answer."""

    async def facts(self) -> NodeFacts: ...
    async def transaction(self, digest: str) -> Executed | None: ...
    async def vault(self, identity: str) -> VaultObject | None: ...
    async def code(self, package: str) -> Code | None: ...
    async def versions(self, package: str) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class CommittedBatch:
    """What the transactions of a batch show. `senders`: one a part; `paid`: vault → units that it paid out.

    `package`: empty for a batch from before the first vault, whose transaction says nothing.
    """

    package: str
    senders: list[str]
    paid: Counter[str]


async def verify_batch(
    batch: BatchFile, proofs: Sequence[Proof], chain: ChainReader, previous: BatchFile | None = None
) -> AsyncIterator[str]:
    """Yields a line for each check that holds. Raises Refuted, Unavailable."""
    said = batch.statement
    try:
        root = said.root()
    except ValueError as error:
        raise Refuted(f"the statement is no statement: {error}") from error
    if root != batch.root:
        raise Refuted(f"the statement's hash is {root.hex()}, the file says root {batch.root.hex()}: it was altered")
    yield f"the statement of batch {said.number} has the hash {root.hex()[:16]}…, which is the batch's root"
    if not batch.digests:
        raise Refuted("the file names no transaction")
    if not batch.vaults:
        raise Refuted("the file names no vault")
    check_links(batch, previous)
    before = f"batch {said.number - 1} in the file given" if previous else "the values it says it builds on"
    yield f"the chain values of its {len(batch.vaults)} vaults follow from the root and from {before}"
    for line in _check_proofs(batch, proofs):
        yield line
    facts = await chain.facts()
    if facts.simulated:
        yield f"NOTE the node is no network: an embedded chain on one machine ({facts.server}), chain {facts.chain_id}"
    else:
        yield f"the node is of the network {facts.chain}, chain {facts.chain_id}"
    executed = await check_executed(batch, chain)
    for part, (digest, sender) in enumerate(zip(batch.digests, executed.senders, strict=True)):
        yield (
            f"transaction {digest} took effect (part {part + 1} of {len(batch.digests)}), is signed by {sender}, and "
            f"committed exactly this root, these totals and trades to these {len(batch.vaults)} vaults, and to no other"
        )
    for link in batch.vaults:
        if unbooked := _unbooked(batch, link.asset):
            yield _told_of_unbooked(link.asset, unbooked, executed.paid[link.vault])
    yield await _check_versions(executed.package, chain)
    for link in batch.vaults:
        yield await _check_vault(batch, link, executed.package, chain)
    for asset in unbacked(batch, proofs):
        yield f"NOTE {asset}: no vault takes part in this batch, so NOTHING shows that the exchange holds what it owes"
    told = _backed(batch) | {proof.asset for proof in proofs}
    if others := [item.asset for item in said.assets if item.owed and item.asset not in told]:
        yield f"NOTE without a vault in this batch: {', '.join(others)}; their totals are stated, not shown to be held"


async def check_executed(batch: BatchFile, chain: ChainReader) -> CommittedBatch:
    """That the batch's transactions took effect and say what the file says, to its vaults and to no other.

    With what the vaults measured when they did: none held less than was owed. Raises Refuted, Unavailable.
    """
    packages: set[str] = set()
    senders: list[str] = []
    paid: Counter[str] = Counter()
    for part in range(len(batch.digests)):
        package, sender, events = await _check_transaction(batch, part, chain)
        packages.add(package)
        senders.append(sender)
        for event in events:
            if event.kind == "Withdrawn":
                paid[event.vault] += event.amount
    if len(packages) != 1:
        raise Refuted(f"the parts of the batch went to several packages: {', '.join(sorted(packages))}")
    return CommittedBatch(packages.pop(), senders, paid)


def unbacked(batch: BatchFile, proofs: Sequence[Proof]) -> list[str]:
    """The proven assets that no vault of the batch is for. What is said of a batch that `verify_batch` has passed."""
    return sorted({proof.asset for proof in proofs} - _backed(batch))


def check_links(batch: BatchFile, previous: BatchFile | None) -> None:
    """That the chain values follow from each other, and from the batch before if it is given. Raises Refuted."""
    said = batch.statement
    if len({link.vault for link in batch.vaults}) != len(batch.vaults):
        raise Refuted("the file names a vault twice")
    if len(_backed(batch)) != len(batch.vaults):
        raise Refuted("the file names two vaults of one asset")
    stated = {item.asset for item in said.assets}
    for link in batch.vaults:
        if link.asset not in stated:
            raise Refuted(f"vault {link.vault} is of {link.asset}, of which the statement says nothing")
        if batch.chain_after(link, said.number, link.previous, len(batch.digests)) != link.chain:
            raise Refuted(f"{link.asset}: chain value {link.chain.hex()} does not follow from {link.previous.hex()}")
    if previous is None:
        return
    if previous.statement.number != said.number - 1:
        raise Refuted(f"the previous batch given is {previous.statement.number}, not {said.number - 1}")
    if previous.statement.last_sequence + 1 != said.first_sequence:
        raise Refuted(
            f"the previous batch ends at sequence {previous.statement.last_sequence}, this one begins at "
            f"{said.first_sequence}"
        )
    earlier = {link.vault: link for link in previous.vaults}
    for link in batch.vaults:
        before = earlier.get(link.vault)
        if link.previous != (before.chain if before else bytes(32)):
            raise Refuted(f"{link.asset}: this batch does not build on the previous one given: another chain value")
        if before and (link.asset, link.coin_type) != (before.asset, before.coin_type):
            raise Refuted(
                f"vault {link.vault} is of {link.asset}, {link.coin_type} here and of {before.asset}, "
                f"{before.coin_type} in the previous batch"
            )
    if gone := set(earlier) - {link.vault for link in batch.vaults}:
        raise Refuted(f"vault {gone.pop()} of the previous batch is missing in this one")


def _check_proofs(batch: BatchFile, proofs: Sequence[Proof]) -> list[str]:
    owed = {item.asset: item.owed for item in batch.statement.assets}
    lines: list[str] = []
    seen: set[tuple[str, str]] = set()
    for proof in proofs:
        if (proof.account, proof.asset) in seen:
            raise Refuted(f"the balance of {proof.account} in {proof.asset} is proven twice: one is counted once")
        seen.add((proof.account, proof.asset))
        if proof.batch != batch.statement.number:
            raise Refuted(f"the proof is of batch {proof.batch}, the batch file of {batch.statement.number}")
        try:
            check_proof(proof, batch.statement.liability_root, list(owed))
        except ProofInvalid as error:
            raise Refuted(f"the proof of {proof.account} in {proof.asset}: {error}") from error
        if proof.total != owed[proof.asset]:
            raise Refuted(f"{proof.asset}: a total of {proof.total} by the tree, {owed[proof.asset]} as stated")
        lines.append(
            f"{proof.account}: {proof.amount:,} smallest units of {proof.asset} are counted among the {proof.total:,} "
            "that the exchange owes its clients"
        )
    return lines


async def _check_transaction(
    batch: BatchFile, part: int, chain: ChainReader
) -> tuple[str, str, list[ChainEvent]]:
    """Package and sender of the transaction of a part, and what happened to vaults in it."""
    digest = batch.digests[part]
    if not _is_digest(digest):
        raise Refuted(f"the file names transaction {digest!r}, which is no digest (32 bytes in base58)")
    found = await chain.transaction(digest)
    if found is None:
        raise TransactionMissing(f"the node knows no transaction {digest}")
    actual = base58_text(transaction_digest(found.raw))
    if actual != digest or found.digest != digest:
        raise Refuted(f"asked for transaction {digest}, the node answered with {actual}: its bytes are another's")
    if not found.success:
        raise Refuted(f"transaction {digest} was executed and failed: it had no effect")
    if found.checkpoint is None:
        raise Refuted(f"transaction {digest} is in no checkpoint yet: it is not final")
    try:
        sender, committed = commitments(found.raw)
    except Exception as error:
        raise Refuted(f"transaction {digest} holds no readable batch: {error}") from error
    try:
        signers = {signer_of(signature, found.raw) for signature in found.signatures}
    except BadSignature as error:
        raise Refuted(f"transaction {digest}: the signature is not valid: {error}") from error
    if sender not in signers:
        raise Refuted(f"transaction {digest}: sent by {sender}, and not signed by it")
    said = batch.statement
    owed = {item.asset: item.owed for item in said.assets}
    by_vault = {commitment.vault: commitment for commitment in committed}
    if len(by_vault) != len(committed):
        raise Refuted(f"transaction {digest} commits twice to one vault")
    packages = {commitment.package for commitment in committed}
    if not batch.vaults:
        _check_silent(found, committed)
        return "", sender, []
    if len(packages) != 1:
        raise Refuted(f"transaction {digest} calls {len(packages)} packages for its batch")
    [package] = packages
    try:
        events = vault_events(found.events, package, digest)
    except ValueError as error:
        raise Refuted(f"transaction {digest}: {error}") from error
    coins = {commitment.vault: f" (coin {commitment.coin_type})" for commitment in committed}
    named = {link.vault for link in batch.vaults}
    for vault in [*by_vault, *(event.vault for event in events)]:
        if vault not in named:
            raise Refuted(
                f"transaction {digest} is about the vault {vault}{coins.get(vault, '')} too, which the file leaves "
                "out: whether it holds what is owed would not be looked at"
            )
    for link in batch.vaults:
        wanted = Commitment(
            package, link.vault, _coin_type(link), said.number, part, len(batch.digests),
            batch.chain_after(link, said.number, link.previous, part), batch.root, owed[link.asset],
            said.trades_digest,
        )  # fmt: skip
        told = by_vault.get(link.vault)
        if told is None:
            raise Refuted(f"transaction {digest} says nothing to the vault of {link.asset}, {link.vault}")
        for name in Commitment.__struct_fields__:
            if getattr(told, name) != getattr(wanted, name):
                raise Refuted(
                    f"transaction {digest}, vault of {link.asset}: {name} is {_text(getattr(told, name))} on the "
                    f"chain, {_text(getattr(wanted, name))} by the file"
                )
        _check_event(batch, link, part, found, package, owed[link.asset])
    return package, sender, events


def _check_silent(found: Executed, committed: list[Commitment]) -> None:
    """The transaction of a batch without a vault names none. Raises Refuted."""
    named = [commitment.vault for commitment in committed]
    named += [kind for kind, _ in found.events if kind.partition("<")[0].endswith(f"::settlement::{_COMMIT_EVENT}")]
    if named:
        raise Refuted(f"transaction {found.digest} is about the vault {named[0]}, the file names no vault")


def _told_of_unbooked(asset: str, unbooked: int, paid: int) -> str:
    """What the exchange owes by its books and says it has paid: whether this batch paid it."""
    if unbooked <= paid:
        return f"{unbooked} units of {asset} owed by the books left the vault in this batch: its Withdrawn events"
    return (
        f"NOTE {unbooked} units of {asset} owed by the books are said to be paid out already, {paid} of them in this "
        f"batch: look for {unbooked - paid} in the vault's Withdrawn events of earlier batches"
    )


def _check_event(batch: BatchFile, link: VaultLink, part: int, found: Executed, package: str, owed: int) -> None:
    """What the contract itself measured when the part took effect. Raises Refuted."""
    said = batch.statement
    for kind, contents in found.events:
        head, _, name = kind.partition("<")[0].rpartition("::")
        if name != _COMMIT_EVENT or normal_package(head.partition("::")[0]) != package:
            continue
        read = Reader(contents)
        try:
            vault, seq, number, _ = address_text(read.take(32)), read.u64(), read.u64(), read.u64()
            if (vault, seq, number) != (link.vault, said.number, part):
                continue
            read.vector_u8(), read.u64(), read.vector_u8()
            chain = read.vector_u8()
            read.u64(), read.take(16)
            pool, deficit = read.u64(), int.from_bytes(read.take(16), "little")
        except ValueError as error:
            raise Refuted(f"transaction {found.digest}: an event of a vault cannot be read: {error}") from error
        if chain != batch.chain_after(link, said.number, link.previous, part + 1):
            raise Refuted(f"{link.asset}: the vault's chain value became {chain.hex()}, the file says another")
        if part == len(batch.digests) - 1:  # before the last part its deposits may be under way
            _check_cover(link.asset, pool, owed, _unbooked(batch, link.asset), deficit, "when the batch took effect")
        return
    raise Refuted(f"{link.asset}: transaction {found.digest} has no event of its vault for part {part}")


async def _check_versions(package: str, chain: ChainReader) -> str:
    """Every version: after an upgrade the new code acts on the vaults too, whichever one the batch called."""
    try:
        versions = {normal_package(version) for version in await chain.versions(package)}
    except ValueError as error:
        raise Refuted(f"package {package}: the node names a version that is no id: {error}") from error
    if package not in versions:
        raise Refuted(f"the node lists {len(versions)} versions of package {package}, and not this one")
    for version in sorted(versions):
        await _check_code(version, chain)
    return (
        f"the vaults are run by package {package}; the code of all its versions ({len(versions)}) is byte for byte the "
        "contract of this verifier"
    )


async def _check_code(package: str, chain: ChainReader) -> None:
    found = await chain.code(package)
    if found is None:
        raise Refuted(f"the node knows no package {package}")
    names = published_modules()
    try:
        own = address_bytes(found.original)
    except ValueError as error:
        raise Refuted(f"package {package}: its first version {found.original!r} is no id") from error
    if differing := sorted(set(names) ^ set(found.modules)):
        raise Refuted(
            f"package {package} is not the contract of this verifier: one of them has no module {differing[0]}"
        )
    for name, code in zip(names, load_modules("exchange", names), strict=True):
        if found.modules[name] != relocate(code, own):
            raise Refuted(f"package {package} is not the contract of this verifier: the code of {name} is another")


async def _check_vault(batch: BatchFile, link: VaultLink, called: str, chain: ChainReader) -> str:
    said = batch.statement
    found = await chain.vault(link.vault)
    if found is None:
        raise Refuted(f"{link.asset}: the node knows no object {link.vault}")
    head, _, coin = found.kind.partition("<")
    package, _, name = head.partition("::")
    if name != "settlement::Vault" or normal_type(coin[:-1]) != _coin_type(link):
        raise Refuted(f"{link.asset}: object {link.vault} is a {found.kind}, no vault of {link.coin_type}")
    if normal_package(package) != called:
        raise Refuted(f"{link.asset}: the vault is of package {package}, the batch called another")
    try:
        header = VaultHeader.decode(found.contents)
    except ValueError as error:
        raise Refuted(f"{link.asset}: the node's object {link.vault} is no vault: {error}") from error
    if address_text(header.id) != link.vault:
        raise Refuted(f"{link.asset}: the node answered with another object")
    if header.next_seq <= said.number:
        raise Refuted(
            f"{link.asset}: the vault waits for batch {header.next_seq}, so batch {said.number} has not taken effect"
        )
    owed = next(item.owed for item in said.assets if item.asset == link.asset)
    unbooked = _unbooked(batch, link.asset)
    if header.next_seq > said.number + 1 or header.next_part:
        later = header.next_seq - 1
        return (
            f"the vault of {link.asset} (coin {link.coin_type}) has gone on to batch {later} since; when this batch "
            f"took effect it held what was owed ({owed}), as its event shows"
        )
    if header.chain != link.chain:
        raise Refuted(f"{link.asset}: the vault has chain value {header.chain.hex()}, the file says {link.chain.hex()}")
    if header.last_root != batch.root or header.last_liabilities != owed:
        raise Refuted(f"{link.asset}: the vault shows another root or total than the batch")
    _check_cover(link.asset, header.pool, owed, unbooked, header.deficit, "now")
    paid = f", {unbooked} of which it has paid out already" if unbooked else ""
    return (
        f"the vault of {link.asset} holds {header.pool} units of the coin {link.coin_type}; {owed} are owed to clients"
        f"{paid}: covered"
    )


def _check_cover(asset: str, pool: int, owed: int, unbooked: int, deficit: int, when: str) -> None:
    """Holdings against liabilities. What is paid and not booked is still counted as owed.

    `deficit`, debts of rows whose owners left by force, is no holding: others are owed the units, and they are gone.
    """
    if (missing := owed - unbooked - pool) > 0:
        left = f"; rows whose owners left by force are {deficit} in debt to the vault" if deficit else ""
        raise Refuted(
            f"{asset}: the vault held {pool} {when}, {owed} were owed ({unbooked} of it paid and not booked): "
            f"{missing} units are missing{left}"
        )


def _unbooked(batch: BatchFile, asset: str) -> int:
    return next(item.unbooked for item in batch.statement.assets if item.asset == asset)


def _backed(batch: BatchFile) -> set[str]:
    return {link.asset for link in batch.vaults}


def _coin_type(link: VaultLink) -> str:
    try:
        return normal_type(link.coin_type)
    except ValueError as error:
        raise Refuted(f"{link.asset}: {link.coin_type!r} is no coin type: {error}") from error


def _is_digest(text: str) -> bool:
    try:
        return len(base58.b58decode(text)) == 32
    except ValueError:
        return False


def _text(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
