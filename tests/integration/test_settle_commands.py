"""`byline settle` on a running exchange, and its transactions against a real LocalSui in both executors."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from typer.testing import CliRunner

from byline.cli import app
from byline.core_port import GatewayPort
from byline.processes.office_ports import Bookings
from engine.messages.errors import Refused, Unavailable
from persistence.event_log import EventLogReader, EventLogWriter
from settlement.brake import Brake
from settlement.chain.admin import SuiAdmin
from settlement.chain.encoding import address_text
from settlement.chain.keys import OperatorKey
from settlement.chain.localsui.server import RunningNode, start
from settlement.chain.port import CoinPart, Part
from settlement.chain.sealed_key import KeyLock
from settlement.chain.sui import SuiSettings
from settlement.store import listings
from tests.support.chain_key import OPERATOR
from tests.support.settlement_bench import Bench, opened_market, reached
from tests.support.settlement_events import EventLog
from tests.support.sui_owner import Owner
from tests.support.waiting import answers

COMMANDS = ("publish", "open-vault", "rotate", "pause", "status", "resume")


@pytest.fixture(params=["auto", "model"])
async def node(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[RunningNode]:
    node = await start(tmp_path / "chain", OPERATOR.address, executor=request.param)
    yield node
    await node.close()


def _admin(node: RunningNode, directory: Path, key: OperatorKey = OPERATOR, package: str = "") -> SuiAdmin:
    settings = SuiSettings(f"http://127.0.0.1:{node.port}", directory / os.urandom(4).hex(), package=package)
    return SuiAdmin(settings, key)


async def test_rotate_and_pause_count_at_once_in_every_vault(node: RunningNode, tmp_path: Path) -> None:
    admin = _admin(node, tmp_path)
    await admin.connect()
    listings = await admin.open_vaults([("USDC", 1), ("INK", 2)], 1)
    by_asset = {listing.asset: listing for listing in listings}
    part = Part(1, 0, 1, b"\1" * 32, b"\2" * 32, [CoinPart(asset, bytes(32)) for asset in by_asset])
    await admin.set_paused(listings, True)
    with pytest.raises(Unavailable, match="the vault of INK, USDC is paused"):
        await admin.sign(part, by_asset)
    await admin.set_paused(listings, False)
    old = await admin.sign(part, by_asset)
    other = await Owner.open(node.port, tmp_path, "next operator")
    await admin.rotate(listings, other._key.address)
    with pytest.raises(Refused):
        await admin.send(old)  # its capability's version is still right, the gas coin's is not; either way it is void
    with pytest.raises(Unavailable, match="the vaults name operator"):
        await admin.sign(part, by_asset)
    fresh = _admin(node, tmp_path, other._key)  # type: ignore[arg-type]
    await fresh.connect()
    assert (await fresh.send(await fresh.sign(part, by_asset))).success
    with pytest.raises(Refused, match="owns no AdminCap"):
        await fresh.set_paused(listings, True)
    for chain in (admin, fresh, other):
        await chain.close()


async def test_a_vault_opened_after_a_rotation_names_the_operator_of_the_others(
    node: RunningNode, tmp_path: Path
) -> None:
    """The administrator kept the old capability too: what it owns does not say which one counts."""
    admin = _admin(node, tmp_path)
    await admin.connect()
    opened = await admin.open_vaults([("USDC", 1)], 1)
    while True:
        named, _ = await admin.rotate(opened, OPERATOR.address)
        await admin._find_owned()
        if named != admin._operator_caps[0]:
            break
    opened += await admin.open_vaults([("INK", 2)], 1, opened)
    by_asset = {listing.asset: listing for listing in opened}
    assert {address_text(header.operator) for header in (await admin._headers(opened)).values()} == {named}
    part = Part(1, 0, 1, b"\1" * 32, b"\2" * 32, [CoinPart(asset, bytes(32)) for asset in by_asset])
    assert (await admin.send(await admin.sign(part, by_asset))).success
    other = await Owner.open(node.port, tmp_path, "next operator")
    elsewhere, _ = await admin.rotate(opened, other._key.address)
    opened += await admin.open_vaults([("EUR", 3)], 2, opened)
    assert address_text((await admin._headers(opened))["EUR"].operator) == elsewhere, "one that we do not own"
    for chain in (admin, other):
        await chain.close()


async def test_a_published_package_is_another_exchange(node: RunningNode, tmp_path: Path) -> None:
    first = _admin(node, tmp_path)
    package, digest = await first.publish()
    assert package.startswith("0x") and digest
    with pytest.raises(Refused, match="operates several packages"):
        await first.connect()
    second = _admin(node, tmp_path, package=package)
    assert (await second.connect()).package == package
    [listing] = await second.open_vaults([("USDC", 1)], 5)
    state = (await second.vault_states([listing]))["USDC"]
    assert (state.next_batch, state.pool) == (5, 0)
    stranger = _admin(node, tmp_path, OperatorKey(b"\x42" * 32))
    with pytest.raises(Refused, match="owns no SUI coin for gas"):
        await stranger.publish()
    for chain in (first, second, stranger):
        await chain.close()


async def test_the_settler_goes_on_under_a_rotated_capability(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.node_up()
    assert bench.node is not None
    log, _, _ = opened_market()
    log.cut()
    async with bench.settler(log) as settler:
        await reached(lambda: settler.status()["final_batch"] == 1, "first batch")
        admin = _admin(bench.node, tmp_path)
        await admin.connect()
        await admin.rotate(list(settler._listings.values()), OPERATOR.address)
        await admin.close()
        log.cut()
        await reached(lambda: settler.status()["final_batch"] == 2, "signed with the new capability")
    await bench.node_down()


def _nowhere_in_clear(key: OperatorKey, directory: Path, said: str) -> None:
    """The seed is in no file of the directory and in nothing that was said, in none of the ways it is written."""
    seed = key._private.private_bytes_raw()
    forms = [seed, seed.hex().encode(), base64.b64encode(seed), base64.b64encode(b"\0" + seed), b"suiprivkey1"]
    texts = {"what was said": said.encode()}
    texts |= {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    assert len(texts) > 3
    for name, text in texts.items():
        assert not any(form in text or form.upper() in text for form in forms), name


async def test_from_publish_to_the_first_batch_by_settings_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What a real network needs: a node by its URL, a sealed key, a coin that is somebody else's; no exchange runs."""
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    data, lock = tmp_path / "data", KeyLock("", tmp_path / "wrapping.key")
    key = OperatorKey.load_or_create(data / "chain" / "operator.key", lock)
    node = await start(tmp_path / "chain", key.address, executor="model")
    environment = {
        "BYLINE_CHAIN_URL": f"http://127.0.0.1:{node.port}", "BYLINE_CHAIN_COINS": "SUI=0x2::sui::SUI",
        "BYLINE_KEY_FILE": str(tmp_path / "wrapping.key"), "COLUMNS": "200",
    }  # fmt: skip

    async def settle(*arguments: str) -> tuple[int, str]:
        argv = ["settle", *arguments, "--data", str(data)]
        result = await asyncio.to_thread(CliRunner().invoke, app, argv, env=environment)
        assert not isinstance(result.exception, AssertionError), result.exception
        said.append(result.output)
        return result.exit_code, result.output

    try:
        code, text = await settle("publish")
        assert code != 0 and "already. Another package is another exchange" in text, "the node gave our key one"
        code, text = await settle("publish", "--yes")
        assert code == 0 and "now set BYLINE_CHAIN_PACKAGE=" in text, text
        package = text.split("BYLINE_CHAIN_PACKAGE=")[1].split(",")[0]
        code, text = await settle("open-vault", "SUI")
        assert code != 0, "the node's own package and ours: which one must be said"
        environment["BYLINE_CHAIN_PACKAGE"] = package
        code, text = await settle("open-vault", "SUI")
        assert code != 0, "no exchange has listed it"
        log = EventLog()
        log.asset("SUI"), log.asset("INK")
        _event_log(data, log)
        code, text = await settle("status")
        assert code == 1 and "no vault is open yet" in text and "no batch is settled" in text, text
        code, first = await settle("open-vault", "SUI")
        assert code == 0 and "0x2::sui::SUI" in first, first
        code, again = await settle("open-vault", "SUI")
        assert (code, again) == (0, first), "an open vault is shown, not opened again"
        code, text = await settle("open-vault", "INK")
        assert code != 0 and len(listings(data / "settlement" / "batches.log")) == 1, text
        code, text = await settle("pause")
        assert code == 0 and "paused" in text, text
        assert "SUI" in (text := (await settle("status"))[1]) and "paused, batch 1 next, pool 0 units" in text, text
        assert (await settle("pause", "--off"))[0] == 0
        code, text = await settle("rotate")
        assert code == 0 and key.address in text.replace("\n", ""), text
        code, text = await settle("resume", "--note", "nothing")
        assert code != 0, text
        _nowhere_in_clear(key, data, "".join(said) + caplog.text)
        [listing] = listings(data / "settlement" / "batches.log").values()
        chain = _admin(node, tmp_path, key, package)
        await chain.connect()
        part = Part(1, 0, 1, b"\1" * 32, b"\2" * 32, [CoinPart("SUI", bytes(32))])
        assert (await chain.send(await chain.sign(part, {"SUI": listing}))).success
        assert (await chain.vault_states([listing]))["SUI"].next_batch == 2
        await chain.close()
    finally:
        await node.close()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    text = CliRunner().invoke(app, ["settle", command, "--help"], env={"COLUMNS": "160"}).output
    assert "Example: byline settle" in text.replace("`", "") or "byline settle" in text, text


async def _brake_of_a_running_exchange(data: Path) -> None:
    """Closes and opens the markets through the gateway, and sees it in the event log."""
    core = GatewayPort(data, "127.0.0.1")
    await core.start()
    events = EventLogReader(data / "events")
    brake = Brake(events, Bookings(core), data.parent / "brake.log", 100.0)
    await reached(lambda: core.status()["connected"], "connected")

    async def phases() -> set[str]:
        while len(slots := events.read()):
            brake._read(slots)
        return {phase.word for phase in brake._phases}

    assert await phases() == {"continuous"}
    await brake.step(0, time.time_ns() + 10**12)
    await answers(phases, lambda found: found == {"cancel_only"})
    assert brake.closed == set(brake._names)

    async def opened() -> bool:
        await brake.step(2**40, time.time_ns())
        return not brake.closed and await phases() == {"continuous"}

    await answers(opened, bool)
    assert await phases() == {"continuous"} and brake.closed == set()
    brake.close()
    await _keys_of_a_running_exchange(core)
    await core.close()


async def _keys_of_a_running_exchange(core: GatewayPort) -> None:
    """A key ends under its own id alone, and once it has ended that is said again without harm."""
    public_key = bytes.fromhex(uuid4().hex * 2)
    opened = await core.submit({"op": "account", "account": "user:keys"})
    assert await Bookings(core).sequence_of("user:keys") >= opened["sequence"], "behind what was sent before"
    await core.register_key("mine", public_key, "user:keys", ["read"])
    await core.revoke_key("another's", public_key)
    await core.register_key("mine", public_key, "user:keys", ["read"])  # as it is
    with pytest.raises(Refused):
        await core.register_key("again", public_key, "user:keys", ["read"])
    await core.revoke_key("mine", public_key)
    await core.revoke_key("mine", public_key)
    await core.register_key("again", public_key, "user:keys", ["read"])


async def test_status_pause_and_resume_of_a_running_exchange(new_exchange) -> None:  # type: ignore[no-untyped-def]
    exchange = new_exchange("--quiet-market", "--batch-seconds", "1")
    await exchange.start()

    async def settle(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"BYLINE_KEY_FILE": str(exchange.data.parent / "wrapping.key")}
        argv = [sys.executable, "-m", "byline.cli", "settle", *arguments, "--data", str(exchange.data)]
        return await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, env=environment)

    try:
        await reached(
            lambda: (exchange.status("backoffice").get("settlement") or {}).get("final_batch", 0) > 1,
            "two final batches",
        )
        shown = await settle("status")
        assert shown.returncode == 0 and "halted    no" in shown.stdout and "USDC" in shown.stdout, shown
        await reached(lambda: len(exchange.status("chain")["vaults"]) == 4, "the chain's own status follows it")
        assert exchange.status("chain")["checkpoint"] > 2
        argv = [sys.executable, "-m", "byline.cli", "status", "--once", "--data", str(exchange.data)]
        wide = os.environ | {"COLUMNS": "300"}
        table = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, env=wide)
        assert "4 vaults" in table.stdout and "switches" not in table.stdout, table
        assert (await settle("pause")).returncode == 0
        await reached(lambda: "paused" in exchange.status("backoffice")["settlement"]["chain_error"], "paused")
        paused_at = exchange.status("backoffice")["settlement"]["final_batch"]
        assert "paused" in (await settle("status")).stdout
        assert (await settle("pause", "--off")).returncode == 0
        await reached(lambda: exchange.status("backoffice")["settlement"]["final_batch"] > paused_at, "goes on")
        await _brake_of_a_running_exchange(exchange.data)
        nothing = await settle("resume", "--note", "test")
        assert "nothing to resume" in nothing.stdout, nothing
        busy = await settle("open-vault", "USDC")
        assert busy.returncode == 2 and "opens each vault itself at the first batch" in busy.stderr, busy
        await _a_second_package_and_wrong_addresses_stop_nothing(exchange, settle)
        sealed = exchange.data / "chain" / "operator.key"
        assert '"lock": "file"' in sealed.read_text()
        key = OperatorKey.load(sealed, KeyLock("", exchange.data.parent / "wrapping.key"))
        for part in ("chain", "settlement", "run", "keys"):
            _nowhere_in_clear(key, exchange.data / part, exchange.log())
    finally:
        assert await exchange.stop() == 0, exchange.log()
    stopped = await settle("pause")
    assert stopped.returncode == 2 and "no exchange runs on" in stopped.stderr, stopped
    stopped = await settle("status")
    assert stopped.returncode == 1 and "no batch is settled" in stopped.stdout, stopped


async def _a_second_package_and_wrong_addresses_stop_nothing(exchange: Any, settle: Any) -> None:
    settlement = exchange.status("backoffice")["settlement"]
    refused = await settle("publish")
    assert refused.returncode == 2 and "nothing was published: give --yes" in refused.stderr, refused
    again = await settle("publish", "--yes")
    assert again.returncode == 0 and "the open vaults go on with their own package" in again.stdout, again
    assert all(len(line) < 200 for line in again.stdout.splitlines())
    for wrong in ("0x12", "zzz", "12" * 32, "0x" + "1" * 63, "0x" + "1" * 64 + "\n"):
        refused = await settle("rotate", "--to", wrong)
        assert refused.returncode == 2 and "exactly 64 hex digits" in refused.stderr and len(
            refused.stderr.splitlines()) == 1, refused  # fmt: skip
    refused = await settle("rotate", "--to", "0x" + "1" * 64)
    assert refused.returncode == 2 and "nothing was rotated: give --yes" in refused.stderr, refused
    for arguments in (("rotate",), ("pause",), ("pause", "--off")):
        done = await settle(*arguments)
        assert done.returncode == 0, done
    shown = await settle("status")
    assert shown.returncode == 0 and settlement["package"] in shown.stdout and "USDC" in shown.stdout, shown
    final = settlement["final_batch"]

    def went_on() -> bool:
        now = exchange.status("backoffice")["settlement"]
        return now["package"] == settlement["package"] and now["final_batch"] > final + 5

    await reached(went_on, "batches under the rotated capability, in the package of the vaults")


def _event_log(data: Path, log: EventLog) -> None:
    """What an exchange that is stopped has left."""
    data.mkdir(parents=True, exist_ok=True)
    writer = EventLogWriter(data / "events", b"i" * 16, b"b" * 16, threads=False)
    for slots in log.slots:
        writer.append(slots.tobytes(), int(slots["sequence"][0]))
        writer.publish(int(slots["sequence"][0]))
    writer.close()


def test_open_vault_runs_the_embedded_node_of_a_stopped_exchange_and_knows_its_assets(tmp_path: Path) -> None:
    """A vault begins with the next batch: if that one does not know its asset, settlement would stop for ever."""
    data, log = tmp_path / "data", EventLog()
    log.asset("USDC")
    log.asset("EUR", settled=False)
    log.cut()
    log.asset("INK")
    _event_log(data, log)

    def settle(*arguments: str) -> tuple[int, str]:
        environment = {"BYLINE_KEY_FILE": str(tmp_path / "wrapping.key"), "COLUMNS": "200"}
        result = CliRunner().invoke(app, ["settle", *arguments, "--data", str(data)], env=environment)
        return result.exit_code, result.output + str(result.exception or "")

    for asset, reason in (
        ("NOPE", "NOPE is no settled asset that this exchange listed: INK, USDC."), ("EUR", "no settled asset"),
        ("INK", "batches from before INK was listed wait"),
    ):  # fmt: skip
        code, text = settle("open-vault", "USDC", asset)
        assert code != 0 and reason in text and not (data / "settlement").exists(), text
    code, text = settle("open-vault", "USDC")
    assert code == 0 and "vault 0x" in text, text
    assert settle("open-vault", "USDC") == (0, text), "an open vault is shown, not opened again"
    code, text = settle("pause")
    assert code != 0 and "no exchange runs on" in text, text


async def test_an_exchange_with_two_packages_goes_on_with_that_of_its_vaults(
    new_exchange: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever BYLINE_CHAIN_PACKAGE says."""
    exchange = new_exchange("--quiet-market")
    environment = os.environ | {"BYLINE_KEY_FILE": str(exchange.data.parent / "wrapping.key")}

    def final() -> int:
        return int((exchange.status("backoffice").get("settlement") or {}).get("final_batch", 0))

    await exchange.start()
    await reached(lambda: len(listings(exchange.data / "settlement" / "batches.log")) == 4, "the vaults")
    argv = [sys.executable, "-m", "byline.cli", "settle", "publish", "--yes", "--data", str(exchange.data)]
    published = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, env=environment)
    assert published.returncode == 0, published
    assert await exchange.stop() == 0, exchange.log()
    before = final()
    monkeypatch.setenv("BYLINE_CHAIN_PACKAGE", published.stdout.split("published")[1].split()[0])
    await exchange.start()
    try:
        await reached(lambda: final() > before, "batches go on")
        assert exchange.status("backoffice")["settlement"]["package"] != os.environ["BYLINE_CHAIN_PACKAGE"]
    finally:
        assert await exchange.stop() == 0, exchange.log()


@pytest.mark.skipif(
    not (os.environ.get("SUI_TESTNET_URL") and os.environ.get("SUI_TESTNET_KEY")),
    reason="set SUI_TESTNET_URL (https://HOST:PORT of a full node's gRPC) and SUI_TESTNET_KEY (64 hex digits of a key "
    "with testnet SUI): publishes the package and settles a batch on the real test network, which costs test gas",
)
async def test_on_testnet_the_same_code_publishes_opens_and_settles(tmp_path: Path) -> None:
    key = OperatorKey(bytes.fromhex(os.environ["SUI_TESTNET_KEY"]))
    url = os.environ["SUI_TESTNET_URL"]
    admin = SuiAdmin(SuiSettings(url, tmp_path / "publish"), key)
    package, _ = await admin.publish()
    await admin.close()
    chain = SuiAdmin(SuiSettings(url, tmp_path / "chain", package=package, coin_types={"SUI": "0x2::sui::SUI"}), key)
    assert (await chain.connect()).executor == "validators"
    before = await chain.head()
    [listing] = await chain.open_vaults([("SUI", 1)], 1)
    part = Part(1, 0, 1, b"\1" * 32, b"\2" * 32, [CoinPart("SUI", bytes(32))])
    signed = await chain.sign(part, {"SUI": listing})
    execution = await chain.send(signed)
    assert execution.success and execution.digest == signed.digest
    for _ in range(60):
        if (found := await chain.find(signed.digest)) is not None and found.checkpoint is not None:
            break
        await asyncio.sleep(1)
    assert found is not None and found.checkpoint is not None and found.checkpoint > before
    assert (await chain.vault_states([listing]))["SUI"].next_batch == 2
    _, events = await chain.events(found.checkpoint - 1, 1)
    assert [event.kind for event in events if event.vault == listing.vault] == ["BatchCommitted"]
    await chain.close()
