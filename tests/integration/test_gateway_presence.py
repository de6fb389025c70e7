"""Who holds a place at the edge: dead peers, crowds that never sign in, readers that do not read, keys taken back."""

from __future__ import annotations

import asyncio
import resource
import shutil
import socket
import ssl
import struct
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import connect

from byline.client import CommandError, ConnectionLost, SignInFailed, TradingClient, public_key
from gateway.keys import KeyRegistry
from persistence.disk import DirectoryDisk
from tests.support.binary import BinaryClient, cancel
from tests.support.gateway import MARKET, Exchange, exchange
from tests.support.raw import PING, PONG, RawClient
from tests.support.tls import certificate
from tests.support.waiting import HANG_S, until


def limit(name: str, **fields: Any) -> dict[str, Any]:
    terms = {"op": "place", "market": MARKET, "client_id": name, "side": "buy", "type": "limit", "size": "1"}
    return terms | {"price": "1"} | fields


async def names_of(client: TradingClient, account: str) -> set[str]:
    return {order["client_id"] for order in await client.open_orders(account)}


async def no_orders(client: TradingClient, account: str) -> None:
    while await names_of(client, account):
        await asyncio.sleep(0.02)


async def test_f35_a_peer_that_is_silent_for_long_is_ended_and_its_orders_go(tmp_path: Path) -> None:
    async with exchange(tmp_path, ping_interval_s=0.5) as x, await x.client(x.operator) as operator:
        alice, bob = await x.trader(operator, "alice"), await x.trader(operator, "bob")
        async with await x.client(bob) as b:
            await b.command(**limit("lives"))
            dead = await RawClient.connect(x.url)
            await dead.sign_in(alice)
            dead.say(limit("naked"))
            dead.say(limit("kept", cancel_on_disconnect=False))
            await until(lambda: x.server.counters.acks and x.server.hub.orders.count == 3, what="the orders")
            frames = []
            while not frames or frames[-1][0] != 8:
                frames.append(await asyncio.wait_for(dead.frame(), HANG_S))
            assert (PING, b"") in frames and frames[-1][1][:2] == (1008).to_bytes(2, "big")
            assert await names_of(operator, "alice") == {"kept"}  # pulled with the end, not when the socket is gone
            assert x.server.counters.closed_silent == 1
            assert b._socket.close_code is None and await names_of(b, "bob") == {"lives"}  # its library answers pings
            dead.abort()


async def test_who_answers_pings_and_says_nothing_else_stays(tmp_path: Path) -> None:
    async with exchange(tmp_path, ping_interval_s=0.2) as x, await x.client(x.operator) as operator:
        alice = await x.trader(operator, "alice")
        quiet = await RawClient.connect(x.url)
        assert (await quiet.sign_in(alice))["type"] == "signed_in"
        for _ in range(4):  # four intervals, and no word
            opcode, payload = await asyncio.wait_for(quiet.frame(), HANG_S)
            assert opcode == PING
            quiet.send(PONG, payload)
        quiet.say({"op": "ping"})
        assert (await quiet.hear())["type"] == "pong" and x.server.counters.closed_silent == 0
        quiet.abort()


async def test_a_crowd_that_does_not_sign_in_shuts_nobody_out(tmp_path: Path) -> None:
    async with exchange(tmp_path, unsigned_max=8, sessions_max=3) as x, await x.client(x.operator) as operator:
        alice = await x.trader(operator, "alice")
        elsewhere = await connect(x.url, local_addr=("127.0.0.2", 0))
        crowd = [await RawClient.connect(x.url) for _ in range(20)]
        async with await x.client(alice) as a:
            assert await asyncio.wait_for(crowd[0].closed(), HANG_S) == 1013
            await a.ping()
            await elsewhere.send('{"op":"ping"}')  # older than all of them, and from another address
            assert "hello" in str(await elsewhere.recv()) and "pong" in str(await elsewhere.recv())
            async with await x.client(alice):
                with pytest.raises(websockets.InvalidStatus, match="503"):
                    await connect(x.url)
            await a.ping()
        await elsewhere.close()
        for one in crowd:
            one.abort()


async def test_a_key_has_so_many_sessions_and_others_have_theirs(tmp_path: Path) -> None:
    async with exchange(tmp_path, sessions_per_key_max=2) as x, await x.client(x.operator) as operator:
        alice, bob = await x.trader(operator, "alice"), await x.trader(operator, "bob")
        async with await x.client(alice) as first, await x.client(alice) as second:
            for _ in range(3):
                with pytest.raises(ConnectionLost, match="sessions"):
                    await x.client(alice)
            async with await x.client(bob) as b:
                await b.ping()
            await first.ping()
            assert len(await second.sessions()) == 2
        await until(lambda: x.server.status()["sessions"] == 1, what="the sessions to be gone")
        async with await x.client(alice) as again:
            assert len(await again.sessions()) == 1


async def encrypted(x: Exchange, pem: str) -> tuple[str, ssl.SSLContext]:
    assert x.server.tls_address is not None
    host, port = x.server.tls_address
    return f"wss://{host}:{port}", ssl.create_default_context(cafile=pem)


async def test_f71_a_handshake_that_is_not_made_is_cut_at_both_doors(tmp_path: Path) -> None:
    pem, key_pem = certificate(tmp_path)
    async with exchange(
        tmp_path, listed=False, tls_certificate=pem, tls_key=key_pem, tls_port=0, handshake_timeout_s=0.5
    ) as x:
        url, _ = await encrypted(x, pem)
        for door in (x.url, url):
            host, port = door.split("//")[1].split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            assert await asyncio.wait_for(reader.read(), HANG_S) == b""
            writer.close()


async def test_the_kernel_keeps_thousands_waiting_at_both_doors(tmp_path: Path) -> None:
    """A turn takes few of them; where the kernel keeps as few, all who come at once but those are turned away for
    seconds, by a retry of TCP that nobody sees."""
    pem, key_pem = certificate(tmp_path)
    async with exchange(tmp_path, listed=False, tls_certificate=pem, tls_key=key_pem, tls_port=0) as x:
        doors = [door for server in x.server._servers for door in server.sockets]
        assert len(doors) == 2
        most = int(Path("/proc/sys/net/core/somaxconn").read_text())
        for door in doors:
            info = door.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
            (kept,) = struct.unpack_from("=I", info, 28)  # tcpi_sacked: of a socket that listens, its backlog
            assert kept == min(most, x.server.settings.accept_backlog) > x.server.settings.accepts_per_turn


async def test_a_key_comes_from_its_addresses_over_tls_too(tmp_path: Path) -> None:
    pem, key_pem = certificate(tmp_path)
    async with exchange(tmp_path, tls_certificate=pem, tls_key=key_pem, tls_port=0) as x, await x.client(
        x.operator
    ) as operator:
        url, trusts = await encrypted(x, pem)
        far = await x.trader(operator, "far", addresses=["10.0.0.0/8"])
        near = await x.trader(operator, "near", addresses=["10.0.0.0/8", "127.0.0.0/8"])
        with pytest.raises(SignInFailed, match="bad_address"):
            await TradingClient.connect(url, far, ssl=trusts)
        async with await TradingClient.connect(url, near, ssl=trusts) as client:
            assert (await client.command(**limit("n")))["event"] == "accepted"


async def test_a_resume_that_finds_no_descriptor_is_refused_and_harms_nobody(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        alice = await x.trader(operator, "alice")
        async with await x.client(alice) as a:
            await a.command(**limit("c"))
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))  # those that are open stay open
            try:
                with pytest.raises(CommandError) as refused:
                    await a.request({"op": "resume", "after": 0})
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert refused.value.code == "busy" and x.server.fault is None
            assert (await a.request({"op": "resume", "after": 0}))["events"] >= 1


async def test_a_replay_that_cannot_be_read_ends_its_own_session_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing:
        head_sequence = 1 << 60

        def seek(self, after: int) -> None:
            pass

        def read(self, limit: int) -> Any:
            raise OSError(5, "input/output error")

    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        alice, bob = await x.trader(operator, "alice"), await x.trader(operator, "bob")
        async with await x.client(alice) as a, await x.client(bob) as b:
            with monkeypatch.context() as patch:
                patch.setattr(x.server, "_open_events", Failing)
                with pytest.raises(ConnectionLost):
                    await a.request({"op": "resume", "after": 0})
            assert a._socket.close_code == 1013 and x.server.fault is None
            assert (await b.request({"op": "resume", "after": 0}))["type"] == "resumed"


async def past_of(x: Exchange, key: Any, rejections: int) -> None:
    """Events for one account: cancels of nothing."""
    async with await BinaryClient.connect(x.url, key) as client:
        for start in range(0, rejections, 500):
            await client.send(*(cancel(client.account, "nothing", rid=start + n) for n in range(500)))
            assert len(await client.take(500)) == 500


async def stuck_resumer(x: Exchange, key: Any) -> RawClient:
    """A session that asked for its whole past and reads none of it."""
    await past_of(x, key, 50_000)
    stuck = await RawClient.connect(x.url, receive_bytes=4_096)
    await stuck.sign_in(key)
    stuck.say({"op": "resume", "after": 0})
    await until(lambda: x.server._replays and x.server._replays[0].replay.is_blocked, what="it to be blocked")
    return stuck


async def test_a_resumer_that_does_not_read_loses_its_seat(tmp_path: Path) -> None:
    settings = {"replays_max": 1, "replay_stall_s": 0.5, "write_low_bytes": 4_096, "write_high_bytes": 65_536}
    async with exchange(tmp_path, ack_mode="memory", **settings) as x, await x.client(x.operator) as operator:
        eve, alice = await x.trader(operator, "eve"), await x.trader(operator, "alice")
        stuck = await stuck_resumer(x, eve)
        async with await x.client(alice) as a:
            with pytest.raises(CommandError, match="busy"):
                await a.request({"op": "resume", "after": 0})
            await until(lambda: x.server.counters.closed_slow == 1, what="the seat to be free")
            assert (await a.request({"op": "resume", "after": 0}))["type"] == "resumed"
        stuck.abort()


async def test_one_account_takes_its_own_seats_alone(tmp_path: Path) -> None:
    settings = {"replays_per_account_max": 1, "write_low_bytes": 4_096, "write_high_bytes": 65_536}
    async with exchange(tmp_path, ack_mode="memory", **settings) as x, await x.client(x.operator) as operator:
        eve, alice = await x.trader(operator, "eve"), await x.trader(operator, "alice")
        stuck = await stuck_resumer(x, eve)
        async with await x.client(eve) as more, await x.client(alice) as a:
            with pytest.raises(CommandError, match="of this account"):
                await more.request({"op": "resume", "after": 0})
            assert (await a.request({"op": "resume", "after": 0}))["type"] == "resumed"
        stuck.abort()


@pytest.mark.parametrize("terms", [{}, {"protection": {"window_ms": 600_000, "fills": 1}}])
async def test_f72_a_revoked_key_leaves_no_order_behind(tmp_path: Path, terms: dict[str, Any]) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        stolen, other = await x.trader(operator, "alice", **terms), await x.trader(operator, "bob")
        async with await x.client(stolen) as a, await x.client(other) as b:
            for number in range(4):
                await a.command(**limit(f"o{number}", cancel_on_disconnect=bool(number % 2)))
            await b.command(**limit("bob"))
            revoked = await operator.request({"op": "revoke_key", "key": public_key(stolen)})
            assert revoked["type"] == "key_revoked"
            await no_orders(operator, "alice")
            await a.wait_closed()
            assert a._socket.close_code == 1008 and await names_of(operator, "bob") == {"bob"}


async def test_order_entry_opens_once_every_order_that_is_to_go_is_gone(tmp_path: Path) -> None:
    """Of a session that a crash ended, of a key revoked and of one tripped: nobody may trade with one of them."""
    (tmp_path / "before").mkdir()
    async with exchange(tmp_path / "before") as x, await x.client(x.operator) as operator:
        keys = {name: await x.trader(operator, name) for name in ("lost", "revoked", "tripped", "kept")}
        async with AsyncExitStack() as signed_in:
            for name, key in keys.items():
                client = await signed_in.enter_async_context(await x.client(key))
                await client.command(**limit(name, cancel_on_disconnect=name == "lost"))
            shutil.copytree(tmp_path / "before", tmp_path / "after")  # killed here
    registry = KeyRegistry(DirectoryDisk(tmp_path / "after"))
    registry.revoke(public_key(keys["revoked"]), 1)
    registry.trip(public_key(keys["tripped"]), "fills", 1)
    registry.close()
    async with exchange(tmp_path / "after", restart=True, listed=False) as x:
        assert len(x.core.open_orders()) == 1 and x.sequencer.pending == 0  # before anybody could have connected
        async with await x.client(x.operator) as operator:
            assert {name: await names_of(operator, name) for name in keys} == {
                "lost": set(), "revoked": set(), "tripped": set(), "kept": {"kept"},
            }  # fmt: skip


async def test_orders_of_a_revoked_key_that_a_crash_left_open_go_at_the_next_start(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        stolen, kept = await x.trader(operator, "alice"), await x.trader(operator, "bob")
        async with await x.client(stolen) as a, await x.client(kept) as b:
            await a.command(**limit("a", cancel_on_disconnect=False))
            await b.command(**limit("b", cancel_on_disconnect=False))
    registry = KeyRegistry(DirectoryDisk(tmp_path))  # revoked, and nothing more
    registry.revoke(public_key(stolen), 1)
    registry.close()
    async with exchange(tmp_path, restart=True, listed=False) as x, await x.client(x.operator) as operator:
        await no_orders(operator, "alice")
        assert await names_of(operator, "bob") == {"b"}
