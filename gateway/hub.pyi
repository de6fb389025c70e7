from collections.abc import Callable
from typing import Self

from picows import WSTransport

from gateway.guard import Allowance, Guard
from gateway.names import Names
from gateway.orders import OpenOrders
from gateway.protection import Protection
from gateway.receipts import Receipts
from gateway.rejections import Rejections
from gateway.sequencer import ReleaseSink, Sequencer
from gateway.session import Ask, Session
from gateway.stages import Stages

COUNTED: tuple[str, ...]

class Counters:
    acks: int
    bad_frames: int
    closed_silent: int
    closed_slow: int
    commands_binary: int
    commands_fast: int
    commands_thorough: int
    frames_in: int
    private_events: int
    refused_busy: int
    refused_sessions: int
    rejected_commands: int
    sends: int
    sessions: int
    sessions_opened: int
    def as_dict(self) -> dict[str, int]: ...

class Connection:
    guard: Guard | None
    in_fragments: bool
    rate_left: int
    stages_seat: int
    def __new__(cls, number: int, session: Session, transport: WSTransport) -> Self: ...
    @property
    def number(self) -> int: ...
    @property
    def session(self) -> Session: ...
    @property
    def is_ending(self) -> bool: ...
    @property
    def unsent(self) -> int: ...
    def told_until(self, released: int) -> int: ...
    @property
    def peer(self) -> str: ...
    @property
    def told_since(self) -> int: ...
    @property
    def is_binary(self) -> bool: ...

class Hub(ReleaseSink):
    on_fatal: Callable[[BaseException], object] | None
    look: Callable[[Ask, Session], bytes | None]
    collar_rule: Callable[[int, int, int], str] | None
    rejections: Rejections | None
    receipts: Receipts[Connection] | None
    state_hash: Callable[[], bytes] | None
    def __init__(
        self,
        sequencer: Sequencer,
        names: Names,
        orders: OpenOrders,
        decode: Callable[[bytes], object],
        answer: Callable[[Ask, Session], bytes],
        counters: Counters,
        write_high: int,
        asks_max: int,
        asks_per_connection_max: int,
    ) -> None: ...
    def __len__(self) -> int: ...
    @property
    def sequencer(self) -> Sequencer: ...
    @property
    def names(self) -> Names: ...
    @property
    def orders(self) -> OpenOrders: ...
    @property
    def guarded(self) -> dict[int, Protection]: ...
    @property
    def counters(self) -> Counters: ...
    @property
    def stages(self) -> Stages: ...
    def sessions(self) -> list[Session]: ...
    def connect(self, session: Session, transport: WSTransport) -> Connection: ...
    def disconnect(self, connection: Connection) -> None: ...
    def subscribe(self, connection: Connection, accounts: list[int], may_trade: bool, may_cancel: bool) -> None: ...
    def send(self, connection: Connection, payload: bytes) -> None: ...
    def ask(self, connection: Connection, question: Ask) -> None: ...
    def broadcast(self, payload: bytes) -> None: ...
    def submit(
        self, connection: Connection, record: bytes, rid: bytes, reserved: bool, is_free: bool = False,
        wants_receipt: bool = False, side: str = "",
    ) -> int: ...
    def allow(self, account: int, allowance: Allowance) -> None: ...
    def settle(self) -> None: ...
