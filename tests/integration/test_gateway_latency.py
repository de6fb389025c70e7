"""A trader sees how long the stages of its own orders take, over real sockets; the machine sees all at /metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from byline.client import CommandError, public_key
from byline.client.messages import Latency, decode
from gateway.stages import NAME_DIGITS
from platform_api.metrics import Metrics
from tests.support.binary import BinaryClient, place
from tests.support.gateway import MARKET, exchange


def counts(told: dict[str, Any]) -> list[int]:
    return [told[stage]["count"] for stage in ("matched", "durable", "out")]


@pytest.mark.parametrize("ack_mode", ["durable", "memory"])
async def test_a_key_sees_its_own_orders_and_the_venues(tmp_path: Path, ack_mode: str) -> None:
    async with exchange(tmp_path, ack_mode=ack_mode) as x, await x.client(x.operator) as operator:
        alice, bob = await x.trader(operator, "alice"), await x.trader(operator, "bob")
        async with await x.client(alice) as a, await x.client(bob) as b, await BinaryClient.connect(x.url, bob) as raw:
            for number in range(3):
                await a.place(MARKET, f"a{number}", "buy", "limit", size="1", price="1")
            await b.place(MARKET, "b", "buy", "limit", size="1", price="1")
            await raw.send(*(place(raw.account, f"r{number}", 0, 100, 10, rid=number) for number in range(4)))
            while {(await b.resolve(f"r{number}"))["outcome"] for number in range(4)} != {"accepted"}:
                pass
            durable = ack_mode == "durable"
            of_alice, of_bob = await a.latency(), await b.latency()
            assert counts(of_alice["stages"]) == [3, 3 * durable, 3] and of_alice["key"] == public_key(alice)
            assert counts(of_bob["stages"]) == [5, 5 * durable, 5] and of_bob["key"] == public_key(bob)
            assert counts(of_bob["venue"])[0] == 8 + counts((await operator.latency())["stages"])[0]
            out, matched = of_alice["stages"]["out"], of_alice["stages"]["matched"]
            assert sum(count for _, count in out["buckets"]) == 3 and out["sum_us"] >= matched["sum_us"] > 0
            assert isinstance(decode(of_alice), Latency)


async def test_latency_is_a_channel_until_it_is_ended(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        alice = await x.trader(operator, "alice", ("read",))
        async with await x.client(alice) as a:
            for bad in (1, True, "1000", -1):
                with pytest.raises(CommandError, match="bad_value"):
                    await a.request({"op": "latency", "interval_ms": bad})
            assert "rid" in await a.latency(1_000)
            told = [await anext(events := a.events()), await anext(events)]
            assert [event["type"] for event in told] == ["latency"] * 2 and not any("rid" in event for event in told)
            await a.latency(0)
            assert not x.server._followers
            await a.latency(60_000)
        while x.server._followers:  # one that leaves is forgotten
            await operator.ping()


async def test_metrics_have_the_venue_and_each_key(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        alice = await x.trader(operator, "alice")
        async with await x.client(alice) as a:
            for number in range(3):
                await a.place(MARKET, f"a{number}", "buy", "limit", size="1", price="1")

        class Status:
            def read(self) -> dict[str, Any]:
                return {"core": {"ready": True, "alive": True, **x.server.status()}}

        text = Metrics(Status()).text().decode()
        families = {family.name: family for family in text_string_to_metric_families(text)}
        venue, keys = families["byline_core_stage_seconds"], families["byline_core_key_stage_seconds"]
        assert venue.type == keys.type == "histogram"
        acks = families["byline_core_acks"]
        assert acks.type == "counter" and acks.documentation.startswith("Commands acknowledged")
        assert acks.samples[0].value == x.server.counters.acks > 3
        assert families["byline_core_sessions"].type == "gauge"
        own = {
            (sample.name.removeprefix(keys.name), sample.labels["stage"], sample.labels.get("le")): sample.value
            for sample in keys.samples
            if sample.labels["key"] == public_key(alice)[:NAME_DIGITS]
        }
        for stage in ("matched", "durable", "out"):
            assert own["_count", stage, None] == own["_bucket", stage, "+Inf"] == 3
        assert {sample.labels["key"] for sample in keys.samples} == {
            public_key(alice)[:NAME_DIGITS], public_key(x.operator)[:NAME_DIGITS],
        }  # fmt: skip
        total = {
            sample.labels["stage"]: sample.value for sample in venue.samples if sample.name.endswith("_count")
        }
        assert total["out"] == 3 + sum(
            sample.value
            for sample in keys.samples
            if sample.name.endswith("_count") and sample.labels["stage"] == "out"
            and sample.labels["key"] == public_key(x.operator)[:NAME_DIGITS]
        )  # fmt: skip
