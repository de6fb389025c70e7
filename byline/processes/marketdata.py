"""A process of market data: books, trades, tickers and candles, made from the event log, fanned out over websockets.

    event log ──────────────┐
    relay ─▶ NATS ──────────┴▶ books ─▶ one message a topic and flush ─ws─▶ readers

Several may run, on one port (shards) or on two (feeds). Each makes everything itself, so that any may die.
"""

from __future__ import annotations

import asyncio
from typing import Any

from byline.processes.body import report_progress, report_status
from byline.processes.event_source import event_source
from byline.processes.names import feed_and_shard
from byline.processes.neighbours import port_before, port_of
from byline.processes.priority import stand_back
from byline.settings import Settings
from byline.status_file import StatusFile
from marketdata.relay import RelayedEvents
from marketdata.server import serve, settle_garbage
from marketdata.settings import MarketDataSettings

__all__ = ["run"]


async def run(settings: Settings, status: StatusFile, stop: asyncio.Event) -> None:
    if settings.marketdata_idle:
        stand_back()
    facts: dict[str, Any] = {}
    ready = asyncio.Event()
    feed, shard = feed_and_shard(status.name)
    port = settings.marketdata_port if feed == "marketdata" else settings.marketdata_b_port
    if not port:
        port = await port_of(settings, feed) if shard else port_before(settings, feed)
    tls_port = settings.marketdata_tls_port if feed == "marketdata" else settings.marketdata_b_tls_port
    if settings.tls_certificate and not tls_port:
        tls_port = await port_of(settings, feed, "tls_port") if shard else port_before(settings, feed, "tls_port")

    async def report() -> None:
        await report_progress(status, ready.is_set, lambda: facts.get("sequence", 0))
        settle_garbage()
        await report_status(status, stop, lambda: {"host": settings.host, **facts})

    own = MarketDataSettings(
        host=settings.host, port=port, reuse_port=settings.marketdata_shards > 1,
        flush_interval_ms=settings.flush_interval_ms, tls_certificate=settings.tls_certificate,
        tls_key=settings.tls_key, tls_host=settings.tls_host, tls_port=tls_port,
    )  # fmt: skip
    source, following = await _market_events(settings)
    reporting = asyncio.ensure_future(report())
    try:
        await serve(source, own, stop=stop, status=facts, ready=ready)
    finally:
        reporting.cancel()
        if following is not None:
            await following.close()


async def _market_events(settings: Settings) -> tuple[Any, Any]:
    """The events that market data follows, and what has to be closed afterwards."""
    if not settings.events_url:
        return await event_source(settings), None
    relayed = RelayedEvents(settings.events_url)
    await relayed.start()
    return relayed, relayed
