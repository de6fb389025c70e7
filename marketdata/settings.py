"""Settings of the market data process. Every queue and count has a bound here; units stand in the names."""

from __future__ import annotations

from dataclasses import dataclass

from engine.messages.errors import SettingsInvalid

__all__ = ["MarketDataSettings"]


_OTHERS = ("host", "port", "reuse_port", "tls_certificate", "tls_key", "tls_host", "tls_port")


@dataclass(frozen=True, slots=True)
class MarketDataSettings:
    """`port` 0 takes a free one. Raises SettingsInvalid when a bound or a relation between bounds is broken."""

    host: str = "127.0.0.1"
    port: int = 7402
    reuse_port: bool = False  # several processes listen on the port, and the kernel shares the connections out
    tls_certificate: str = ""  # path of a PEM chain: with it, a second door that speaks TLS alone
    tls_key: str = ""  # path of its private key, PEM
    tls_host: str = ""  # where that door is; empty: at `host`
    tls_port: int = 7444  # 0 takes a free one
    flush_interval_ms: int = 20
    connection_limit: int = 5_000
    accept_backlog: int = 4_096  # connections that wait to be accepted: after a restart all come at once
    accepts_per_turn: int = 32  # so that those who are there do not wait for all handshakes
    subscription_limit: int = 256  # per connection
    message_size_bytes_max: int = 4_096
    requests_per_second: int = 50  # per connection, in bursts of four seconds
    depth_default: int = 50
    whole_book_levels_max: int = 20_000  # per side; a larger book is refused with depth 0
    whole_book_orders_max: int = 100_000  # a book with more orders is refused in `orders`
    tape_trades: int = 200  # kept per market
    candles_kept: int = 1_500  # per market and interval
    candles_sent: int = 500  # in a snapshot, and at most in an answer to `history`
    change_rows: int = 1 << 20  # of 64 bytes: how far back `replay` reaches
    replay_rows: int = 1 << 12  # looked at for one answer to `replay`: what a turn of the loop may cost the others
    replay_bytes: int = 256 * 1024  # of one answer, but for a single command whose messages are more
    long_answers_max: int = 64  # replays and pages of history that may wait for one connection
    replay_cost: int = 4  # requests that a replay or a page of history counts for
    order_limit: int = 8_000_000
    read_slots: int = 65_536
    slow_bytes: int = 256 * 1024  # low mark of what waits for one reader in user space
    cut_bytes: int = 4 * 1024 * 1024  # high mark
    send_buffer_bytes: int = 128 * 1024  # SO_SNDBUF
    close_grace_ms: int = 2_000
    ping_interval_ms: int = 30_000
    heartbeat_ms: int = 1_000
    lag_hold_ms: int = 1_000  # a reader that fell behind stays conflated at least so long
    writes_per_turn: int = 200
    snapshots_per_flush: int = 512  # readers that get their first messages in one flush

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if name in _OTHERS:
                continue
            if value < 1:
                raise SettingsInvalid(f"marketdata.{name}: must be at least 1, is {value}")
        for name, port in (("port", self.port), ("tls_port", self.tls_port)):
            if not 0 <= port <= 65_535:
                raise SettingsInvalid(f"marketdata.{name}: must be 0 to 65535, is {port}")
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise SettingsInvalid("marketdata.tls_key: goes with tls_certificate")
        if self.slow_bytes >= self.cut_bytes:
            raise SettingsInvalid(f"marketdata.slow_bytes: must be below cut_bytes ({self.cut_bytes})")
        if self.replay_bytes >= self.cut_bytes:
            raise SettingsInvalid(f"marketdata.replay_bytes: must be below cut_bytes ({self.cut_bytes})")
        if self.change_rows < 4 * self.read_slots or self.replay_rows > self.change_rows:
            raise SettingsInvalid(
                "marketdata.change_rows: must be at least 4 * read_slots, and replay_rows at most that"
            )
        if self.depth_default > self.whole_book_levels_max:
            raise SettingsInvalid("marketdata.depth_default: must not be above whole_book_levels_max")
