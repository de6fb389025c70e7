"""Settings of order entry. Only `byline.settings` reads the environment; it fills this in."""

from __future__ import annotations

from dataclasses import dataclass

from engine.messages.errors import SettingsInvalid

__all__ = ["GatewaySettings", "Tier"]


@dataclass(frozen=True, slots=True)
class Tier:
    """What the sessions of one account may send together: so many in `window_s`, and at once. 0: without limit."""

    name: str
    requests: int
    """Commands that trade or move money; not those that only take risk away."""
    messages: int
    window_s: float


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """All bounds of the gateway, with their units. Checked on creation."""

    host: str = "127.0.0.1"
    port: int = 7401
    """0 takes a free one."""
    tls_certificate: str = ""
    """Path of a PEM chain: with it, a second door that speaks TLS alone. Empty: there is none."""
    tls_key: str = ""
    """Path of its private key, PEM."""
    tls_host: str = ""
    """Where that door is; empty: at `host`. The plain one may then stay on the loopback."""
    tls_port: int = 7443
    """0 takes a free one."""
    environment: str = "local"
    """Named in what a client signs, so that a signature for one exchange is worth nothing at another."""
    epoch: int = 1
    """Counts the lives of this exchange's journal; named in what a client signs."""
    ack_mode: str = "durable"
    """`durable`: acks wait for the disk. `memory`: a crash of the machine can undo what was acked."""
    batch_interval_s: float = 10.0
    """Between two `cut` commands; 0 writes none."""
    tick_poll_s: float = 0.05
    """How often due times are looked at while nobody sends anything."""
    sessions_max: int = 1_000
    """That have signed in; one more is refused with 1013, and while there are as many no handshake is taken."""
    sessions_per_key_max: int = 128
    """The same of one key."""
    accept_backlog: int = 4_096
    """Connections that wait to be accepted: after a restart all come at once."""
    accepts_per_turn: int = 8
    """So that those who are there do not wait for all handshakes."""
    sign_ins_per_turn: int = 16
    """Messages of connections that have not signed in, looked at in a turn; each has three signatures at most.
    More than are accepted in one: else a crowd would fill `unsigned_max`, and end each other while they wait."""
    unsigned_max: int = 512
    """Connections that have not signed in yet. One more ends the oldest of the address that has most of them."""
    ping_interval_s: float = 10.0
    """A session that was silent for so long is asked whether it is there, and ended after as long again."""
    frame_bytes_max: int = 65_536
    commands_per_frame_max: int = 1_000
    handshake_timeout_s: float = 5.0
    sign_in_timeout_s: float = 10.0
    sign_in_failures_max: int = 3
    write_low_bytes: int = 262_144
    """More than this unsent: the gateway stops reading from that session until it is sent."""
    write_high_bytes: int = 4_194_304
    """More than this unsent, besides what a single read's answers came to: the session is closed as a slow reader."""
    pending_max: int = 65_536
    """Commands that may wait for the disk; a power of two."""
    asks_per_session_max: int = 64
    """Questions of one session that may wait for their answer; one more is answered `busy`."""
    asks_max: int = 4_096
    """The same of all sessions together."""
    tiers: tuple[Tier, ...] = (
        Tier("plain", 100, 1_000, 60.0), Tier("trader", 1_000, 2_000, 1.0), Tier("maker", 50_000, 50_000, 1.0),
        Tier("unlimited", 0, 0, 1.0),
    )  # fmt: skip
    """The first is what a key has that names none, and a connection that has not signed in."""
    poisons_per_minute: int = 60
    """Of the keys of one account and tier, and at once; further ones take a request. The engine keeps each for ever."""
    rejections_per_account: int = 1_000
    """Refused client ids of one account that `resolve` knows of."""
    rejections_max: int = 100_000
    rejections_lookback: int = 262_144
    """Commands of the past in which they are looked for at the start."""
    replays_max: int = 256
    """Sessions that may be told of the past at a time; one more is answered `busy`."""
    replays_per_account_max: int = 4
    """The same of the keys of one account (their first)."""
    replay_stall_s: float = 5.0
    """One that takes nothing of what it is told for so long is ended as a slow reader."""
    replay_slots: int = 512
    """Slots of the event log that one turn of the loop handles for them."""
    journal_reserve_slots: int = 1_024
    """Of the journal's ring, kept for cancels, ticks and cuts."""

    def __post_init__(self) -> None:
        _require(self.ack_mode in ("durable", "memory"), "ack_mode", "is 'durable' or 'memory'", self.ack_mode)
        _require(
            bool(self.environment) and "\n" not in self.environment, "environment", "is one line", self.environment
        )
        _require(bool(self.tls_certificate) == bool(self.tls_key), "tls_key", "goes with tls_certificate", self.tls_key)
        _require(self.batch_interval_s >= 0, "batch_interval_s", "is not negative", self.batch_interval_s)
        for name in (
            "tick_poll_s", "sessions_max", "commands_per_frame_max", "handshake_timeout_s", "sign_in_timeout_s",
            "sign_in_failures_max", "write_low_bytes", "asks_per_session_max", "asks_max", "rejections_per_account",
            "rejections_max", "replays_max", "replay_slots", "sessions_per_key_max", "unsigned_max", "ping_interval_s",
            "replays_per_account_max", "replay_stall_s", "poisons_per_minute", "accept_backlog", "accepts_per_turn",
            "sign_ins_per_turn",
        ):  # fmt: skip
            _require(getattr(self, name) > 0, name, "is positive", getattr(self, name))
        _require(1_024 <= self.frame_bytes_max <= 1 << 20, "frame_bytes_max", "is 1 kB … 1 MB", self.frame_bytes_max)
        _require(
            self.write_high_bytes > self.write_low_bytes,
            "write_high_bytes",
            "exceeds write_low_bytes",
            self.write_high_bytes,
        )
        _require(
            self.sign_ins_per_turn > self.accepts_per_turn, "sign_ins_per_turn", "exceeds accepts_per_turn",
            self.sign_ins_per_turn,
        )  # fmt: skip
        names = [tier.name for tier in self.tiers]
        _require(bool(names) and len(set(names)) == len(names), "tiers", "names one at least, each once", names)
        power = self.pending_max >= 64 and self.pending_max & (self.pending_max - 1) == 0
        _require(power, "pending_max", "is a power of two from 64", self.pending_max)


def _require(holds: bool, name: str, rule: str, value: object) -> None:
    if not holds:
        raise SettingsInvalid(f"gateway setting {name} is {value!r}; it {rule}")
