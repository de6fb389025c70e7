"""Every event of the Move sources, told by a node: each field decoded by the source's own struct, nothing left over.

The node builds events itself, since the Move VM's wheel hands none back. A struct that gains a field, or is never
emitted here, fails this test.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from settlement.chain.encoding import Reader, address_bytes
from settlement.chain.localsui import movevm
from settlement.chain.localsui.server import start
from settlement.chain.port import CoinPart, Part, Payout
from settlement.chain.rights_desk import SUI, RightsDesk
from settlement.chain.sui import SuiChain, SuiSettings
from tests.support.chain_key import OPERATOR
from tests.support.sui_owner import Owner

SOURCES = Path(movevm.__file__).parents[2] / "move" / "exchange" / "sources"
A, B = b"\xa1" * 32, b"\xb2" * 32
HASH, TERMS = b"\7" * 32, b"\x08" * 32
READ = {
    "ID": lambda read: read.take(32), "address": lambda read: read.take(32), "u64": Reader.u64, "u128": Reader.u128,
    "bool": Reader.boolean, "vector<u8>": Reader.vector_u8, "vector<address>": lambda read: tuple(read.vector(32)),
    "vector<u64>": Reader.u64s,
}  # fmt: skip


def _structs() -> dict[tuple[str, str], list[tuple[str, str]]]:
    """(module, event) → its fields: name, type."""
    found = {}
    for path in SOURCES.glob("*.move"):
        text = re.sub(r"//.*", "", path.read_text())
        for name, body in re.findall(r"public struct (\w+) has copy, drop \{([^}]*)\}", text):
            found[path.stem, name] = re.findall(r"(\w+): ([\w<>]+)", body)
    return found


async def test_every_event_has_the_fields_of_its_struct(tmp_path: Path) -> None:
    running = await start(tmp_path, OPERATOR.address, executor="model")
    node, url = running.node, f"http://127.0.0.1:{running.port}"
    chain = SuiChain(SuiSettings(url, tmp_path / "pysui"), OPERATOR)
    await chain.connect()
    [listing] = await chain.open_vaults([("USDC", 1)], 1)
    owner = await Owner.open(running.port, tmp_path, "owner")
    me, vault = owner.row, address_bytes(listing.vault)

    async def batch(number: int, entries: list[tuple[bytes, int]], payouts: list[Payout], deposit: int = 0) -> None:
        deposits = [(B, deposit)] if deposit else []
        coin = CoinPart("USDC", node.state.vaults[vault].header.chain, entries, deposits, payouts, liabilities=70)
        part = Part(number, 0, 1, HASH, TERMS, [coin])
        assert (await chain.send(await chain.sign(part, {"USDC": listing}))).success

    await chain.connect()
    await batch(1, [], [], deposit=500)
    await owner.deposit(listing, 300)
    await owner.request_exit(listing, 9)
    await owner.cancel_exit(listing)
    await owner.request_exit(listing, 250)
    ripe_ms = node.state.vaults[vault].rows[me].exit_ready_ms
    node._now_ms = lambda: ripe_ms  # type: ignore[method-assign]
    await owner.claim_exit(listing)
    await chain.connect()
    await batch(2, [(me, -80), (B, 80)], [Payout("w1", me, me, 60), Payout("w2", B, A, 40)])
    await node.administer(paused=True)
    await node.administer(paused=False)
    await node.administer(operator=TERMS)

    desk = RightsDesk(chain)
    await desk.connect()
    made = (await (await desk.registration(HASH, "Song", "", [A, B], [6_000, 4_000])).submit()).made
    work, cap = made["Work"], made["WorkCap"]
    await desk.set_disputed(work, True)
    await desk.set_disputed(work, False)
    await desk.set_shares(work, cap, [A], [10_000])
    licence = (await (await desk.grant(work, cap, A, TERMS, 60_000)).submit()).made["License"]
    await (await desk.revocation(work, cap, licence)).submit()
    till = (await desk.open_till(SUI)).made["Till"]
    offer = (await desk.offer(work, cap, SUI, 50, 1, "", TERMS, 1_000)).made["Offer"]
    await desk.buy(offer, work, till, SUI, 50, B)
    await desk.close_offer(work, cap, offer, SUI)
    await desk.claim(till, SUI, A)
    records = [node.record_in(number) for number in range(1, node.state.checkpoint + 1)]
    for each in (owner, chain):
        await each.close()
    await running.close()

    structs, told = _structs(), {}
    for event in (event for record in records for event in record.events):
        read = Reader(event.contents)
        fields: dict[str, Any] = {name: READ[kind](read) for name, kind in structs[event.module, event.name]}
        read.end()
        told[event.module, event.name] = fields
    assert told.keys() == structs.keys()

    def last(name: str, module: str = "settlement") -> dict[str, Any]:
        return {key: value for key, value in told[module, name].items() if key not in ("vault", "work", "at_ms")}

    header = node.state.vaults[vault].header
    assert all(told[module, name]["vault"] == vault for module, name in structs if module == "settlement")
    assert told["settlement", "VaultOpened"]["first_seq"] == 1
    assert last("Deposited") == {"owner": me, "amount": 300, "balance": 300, "reference": b""}
    assert last("ExitRequested") == {"owner": me, "amount": 250, "ready_ms": ripe_ms}
    assert last("ExitCancelled") == {"owner": me} and last("ExitPaid") == {"owner": me, "amount": 250}
    assert last("ExitShortfall") == {"owner": me, "debt": 30}
    assert last("WithdrawalSkipped") == {"owner": me, "recipient": me, "amount": 60, "number": 0}
    assert last("Withdrawn") == {"owner": B, "recipient": A, "amount": 40, "number": 1}
    assert last("BatchCommitted") == {
        "seq": 2, "part": 0, "parts": 1, "merkle_root": HASH, "liabilities": 70, "trades_digest": TERMS,
        "chain": header.chain, "entries": 2, "volume": 80, "pool": 550, "deficit": 30,
    }  # fmt: skip
    assert last("PauseChanged") == {"paused": False} and last("OperatorChanged") == {"operator": TERMS}
    assert last("WorkRegistered", "copyright_registry") == {"content_hash": HASH, "by": address_bytes(OPERATOR.address)}
    assert last("DisputeChanged", "copyright_registry") == {"disputed": False}
    assert last("SharesChanged", "copyright_registry") == {"creators": (A,), "shares_bps": (10_000,)}
    assert last("OfferMade", "license") == {"offer": address_bytes(offer), "price": 50}
    assert last("OfferClosed", "license") == {"offer": address_bytes(offer)}
    assert last("LicenseRevoked", "license") == {"license": address_bytes(licence)}
    bought = last("LicenseIssued", "license")
    assert (bought["to"], bought["terms_hash"], bought["expires_ms"]) == (B, TERMS, ripe_ms + 1_000)
    assert last("RoyaltyPaid", "royalty") == {"till": address_bytes(till), "amount": 50, "payees": 1}
    assert last("RoyaltyClaimed", "royalty") == {"till": address_bytes(till), "payee": A, "amount": 50}
    works = [fields["work"] for (module, _), fields in told.items() if "work" in fields]
    assert set(works) == {address_bytes(work)}
