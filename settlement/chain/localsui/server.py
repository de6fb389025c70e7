"""LocalSui's door: gRPC `sui.rpc.v2`, plaintext, the methods that pysui's client uses for settlement.

Everything else answers UNIMPLEMENTED. The switches of `Faults` break the connection's promises; those of the chain
itself (epoch, gas price, pause …) are methods of the node.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import base58
import pysui.sui.sui_grpc.suimsgs.sui.rpc.v2 as v2
from grpclib.const import Cardinality, Handler, Status
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError
from grpclib.server import Server

from engine.messages.errors import SettingsInvalid
from settlement.chain.encoding import address_bytes, address_text, base58_text
from settlement.chain.localsui.door import flip, open_door, status_of
from settlement.chain.localsui.faults import Faults, View
from settlement.chain.localsui.node import LIMITS, PROTOCOL_VERSION, LocalSui, Rejected, sender_of
from settlement.chain.localsui.packages import function_message, package_message
from settlement.chain.localsui.state import Consumed, Item, Record

__all__ = ["RunningNode", "serve", "start"]

SERVER_NAME = "localsui/1"
PAGE_SIZE = 1_000
SUBSCRIPTION_POLL_S = 0.05
_STATUS = {
    "invalid": Status.INVALID_ARGUMENT,
    "missing": Status.NOT_FOUND,
    "stale": Status.FAILED_PRECONDITION,
    "locked": Status.FAILED_PRECONDITION,
    "unsupported": Status.UNIMPLEMENTED,
}


class _Codec(CodecBase):
    """Protobuf by pysui's own message classes."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> Any:
        return message_type.parse(data)


class _Server(Server):
    """grpclib's server goes on serving open connections after `close`; a node that is down must not."""

    def __init__(self, handlers: list[Any], **options: Any) -> None:
        super().__init__(handlers, **options)
        self._transports: set[asyncio.BaseTransport] = set()

    def _protocol_factory(self) -> Any:
        protocol = super()._protocol_factory()
        connected = protocol.connection_made

        def connection_made(transport: asyncio.BaseTransport) -> None:
            self._transports = {known for known in self._transports if not known.is_closing()} | {transport}
            connected(transport)

        protocol.connection_made = connection_made  # type: ignore[method-assign]
        return protocol

    def drop_connections(self) -> None:
        for transport in self._transports:
            transport.close()


class Service:
    """The methods. grpclib asks for `__mapping__`."""

    def __init__(self, node: LocalSui, faults: Faults) -> None:
        self._node, self._faults = node, faults

    def __mapping__(self) -> dict[str, Handler]:
        table: list[tuple[str, Callable[[Any], Any], type, type]] = [
            ("LedgerService/GetServiceInfo", self._service_info, v2.GetServiceInfoRequest, v2.GetServiceInfoResponse),
            ("LedgerService/GetEpoch", self._epoch, v2.GetEpochRequest, v2.GetEpochResponse),
            ("LedgerService/GetObject", self._object, v2.GetObjectRequest, v2.GetObjectResponse),
            ("LedgerService/BatchGetObjects", self._objects, v2.BatchGetObjectsRequest, v2.BatchGetObjectsResponse),
            ("LedgerService/GetCheckpoint", self._checkpoint, v2.GetCheckpointRequest, v2.GetCheckpointResponse),
            ("LedgerService/GetTransaction", self._transaction, v2.GetTransactionRequest, v2.GetTransactionResponse),
            (
                "LedgerService/BatchGetTransactions",
                self._transactions,
                v2.BatchGetTransactionsRequest,
                v2.BatchGetTransactionsResponse,
            ),
            ("StateService/ListOwnedObjects", self._owned, v2.ListOwnedObjectsRequest, v2.ListOwnedObjectsResponse),
            ("StateService/GetBalance", self._balance, v2.GetBalanceRequest, v2.GetBalanceResponse),
            (
                "StateService/ListDynamicFields",
                self._dynamic_fields,
                v2.ListDynamicFieldsRequest,
                v2.ListDynamicFieldsResponse,
            ),
            ("MovePackageService/GetPackage", self._package, v2.GetPackageRequest, v2.GetPackageResponse),
            (
                "MovePackageService/ListPackageVersions",
                self._package_versions,
                v2.ListPackageVersionsRequest,
                v2.ListPackageVersionsResponse,
            ),
            ("MovePackageService/GetFunction", self._function, v2.GetFunctionRequest, v2.GetFunctionResponse),
            (
                "TransactionExecutionService/ExecuteTransaction",
                self._execute,
                v2.ExecuteTransactionRequest,
                v2.ExecuteTransactionResponse,
            ),
            (
                "TransactionExecutionService/SimulateTransaction",
                self._simulate,
                v2.SimulateTransactionRequest,
                v2.SimulateTransactionResponse,
            ),
        ]
        handlers = {
            f"/sui.rpc.v2.{path}": Handler(self._unary(method), Cardinality.UNARY_UNARY, request, response)
            for path, method, request, response in table
        }
        handlers["/sui.rpc.v2.SubscriptionService/SubscribeCheckpoints"] = Handler(
            self._subscribe, Cardinality.UNARY_STREAM, v2.SubscribeCheckpointsRequest, v2.SubscribeCheckpointsResponse
        )
        return handlers

    def _unary(self, method: Callable[[Any], Any]) -> Callable[[Any], Awaitable[None]]:
        async def handle(stream: Any) -> None:
            request = await stream.recv_message()
            if self._faults.unavailable:
                raise GRPCError(Status.UNAVAILABLE, "unavailable (fault switch)")
            try:
                reply = method(request)
                reply = await reply if asyncio.iscoroutine(reply) else reply
            except Rejected as rejected:
                raise GRPCError(_STATUS[rejected.kind], str(rejected)) from rejected
            except ValueError as error:
                raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from error
            await stream.send_message(reply)

        return handle

    @property
    def _view(self) -> View:
        return self._faults.view(self._node)

    def _service_info(self, request: Any) -> Any:
        return v2.GetServiceInfoResponse(
            chain_id=self._node.state.genesis.chain_id,
            chain="embedded",
            epoch=self._view.turn.epoch,
            checkpoint_height=self._view.height,
            lowest_available_checkpoint=0,
            server=f"{SERVER_NAME} executor={self._node.executor_name} (not a network)",
        )

    def _epoch(self, request: Any) -> Any:
        attributes = {name: str(value) for name, value in LIMITS.items()}
        config = v2.ProtocolConfig(protocol_version=PROTOCOL_VERSION, attributes=attributes)
        turn = self._view.turn
        return v2.GetEpochResponse(
            epoch=v2.Epoch(epoch=turn.epoch, reference_gas_price=turn.gas_price, protocol_config=config)
        )

    def _object(self, request: Any) -> Any:
        item = self._view.items.get(address_bytes(request.object_id))
        if item is None or (request.version and request.version != item.version):
            raise GRPCError(Status.NOT_FOUND, f"object {request.object_id} not found at that version")
        return v2.GetObjectResponse(object=_object_message(item))

    def _objects(self, request: Any) -> Any:
        found = [v2.GetObjectResult(object=self._object(each).object) for each in request.requests]
        return v2.BatchGetObjectsResponse(objects=found)

    def _owned(self, request: Any) -> Any:
        owner, wanted = address_bytes(request.owner), request.object_type
        mine = sorted(
            (item for item in self._view.items.values() if item.owner == owner and _is_of(item.kind, wanted)),
            key=lambda item: item.id,
        )
        page, token = _page(mine, request)
        return v2.ListOwnedObjectsResponse(objects=[_object_message(item) for item in page], next_page_token=token)

    def _balance(self, request: Any) -> Any:
        owner, kind = address_bytes(request.owner), f"0x2::coin::Coin<{_short(request.coin_type)}>"
        total = sum(item.mist for item in self._view.items.values() if item.owner == owner and item.kind == kind)
        balance = v2.Balance(coin_type=request.coin_type, balance=total, coin_balance=total, address_balance=0)
        return v2.GetBalanceResponse(balance=balance)

    def _dynamic_fields(self, request: Any) -> Any:
        """The entries of a table: rows of a vault, works of the registry, royalties due."""
        parent = address_bytes(request.parent)
        page, token = _page(self._view.state.table(parent), request)
        fields = [
            v2.DynamicField(
                kind=v2.DynamicFieldDynamicFieldKind.FIELD,
                parent=request.parent,
                field_id=address_text(identity),
                name=v2.Bcs(name=key_type, value=key),
                value=v2.Bcs(name=value_type, value=value),
                value_type=value_type,
            )
            for identity, key_type, key, value_type, value in page
        ]
        return v2.ListDynamicFieldsResponse(dynamic_fields=fields, next_page_token=token)

    def _package(self, request: Any) -> Any:
        found = package_message(self._node.state, address_bytes(request.package_id))
        if found is None:
            raise GRPCError(Status.NOT_FOUND, f"package {request.package_id} not found")
        return v2.GetPackageResponse(package=found)

    def _package_versions(self, request: Any) -> Any:
        """One: no package is ever upgraded here."""
        found = self._package(request).package
        only = v2.PackageVersion(package_id=found.storage_id, version=found.version)
        return v2.ListPackageVersionsResponse(versions=[only])

    def _function(self, request: Any) -> Any:
        package, module, name = address_bytes(request.package_id), request.module_name, request.name
        found = function_message(self._view.state, package, module, name)
        if found is None:
            raise GRPCError(Status.NOT_FOUND, f"function {request.package_id}::{module}::{name} not found")
        return v2.GetFunctionResponse(function=found)

    def _transaction(self, request: Any) -> Any:
        record = self._known(request.digest)
        if record is None:
            raise GRPCError(Status.NOT_FOUND, f"transaction {request.digest} not found")
        return v2.GetTransactionResponse(transaction=_transaction_message(record, self._view.height))

    def _transactions(self, request: Any) -> Any:
        height, found = self._view.height, []
        for digest in request.digests:
            record = self._known(digest)
            found.append(
                v2.GetTransactionResult(transaction=None if record is None else _transaction_message(record, height))
            )
        return v2.BatchGetTransactionsResponse(transactions=found)

    def _known(self, digest: str) -> Record | None:
        try:
            record = self._node.record_of(base58.b58decode(digest))
        except ValueError as error:
            raise GRPCError(Status.INVALID_ARGUMENT, f"digest: {error}") from error
        return None if record is None or record.checkpoint > self._view.executed else record

    def _checkpoint(self, request: Any) -> Any:
        height = self._view.height
        number = request.sequence_number if request.sequence_number is not None else height
        if request.digest is not None:
            number = self._node.state.checkpoint_of(base58.b58decode(request.digest)) or height + 1
        if not 0 <= number <= height:
            wanted = request.digest or number
            raise GRPCError(Status.NOT_FOUND, f"checkpoint {wanted} not found, the latest is {height}")
        return v2.GetCheckpointResponse(checkpoint=self._checkpoint_message(number))

    def _checkpoint_message(self, number: int) -> Any:
        """Checkpoint 0 is the genesis and has no transaction; each other has one."""
        state = self._node.state
        if number == 0:
            return v2.Checkpoint(sequence_number=0, digest=base58_text(bytes(32)))
        record = self._node.record_in(number)
        digest = base58_text(state.checkpoints[number - 1][1])
        summary = v2.CheckpointSummary(
            digest=digest,
            epoch=record.epoch,
            sequence_number=number,
            total_network_transactions=number,
            previous_digest=base58_text(state.checkpoints[number - 2][1] if number > 1 else bytes(32)),
            timestamp=_time(record.at_ms),
        )
        return v2.Checkpoint(
            sequence_number=number, digest=digest, summary=summary, transactions=[_transaction_message(record, number)]
        )

    async def _subscribe(self, stream: Any) -> None:
        """Every checkpoint from the next one on, without a gap."""
        await stream.recv_message()
        sent = self._view.height
        news = asyncio.Event()
        self._node.on_record.append(news.set)
        try:
            while True:
                news.clear()
                while sent < self._view.height and not self._faults.unavailable:
                    sent += 1
                    message = self._checkpoint_message(sent)
                    await stream.send_message(v2.SubscribeCheckpointsResponse(cursor=sent, checkpoint=message))
                # A lagging checkpoint comes out without a new record, so it is looked for now and then.
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(news.wait(), SUBSCRIPTION_POLL_S)
        finally:
            self._node.on_record.remove(news.set)

    async def _simulate(self, request: Any) -> Any:
        if request.transaction.bcs is None:
            raise GRPCError(Status.UNIMPLEMENTED, "simulation wants the transaction's BCS")
        record = await self._node.simulate(bytes(request.transaction.bcs.value))
        return v2.SimulateTransactionResponse(transaction=_transaction_message(record, 0))

    async def _execute(self, request: Any) -> Any:
        raw, signatures = bytes(request.transaction.bcs.value), [bytes(item.bcs.value) for item in request.signatures]
        fault = self._faults.next_fault()
        if fault == "lost_request":
            if self._node.old_locks:
                await self._node.lock_only(raw, signatures)
            raise GRPCError(Status.UNAVAILABLE, "connection lost before the request arrived (fault switch)")
        if fault == "refuse_once":
            raise GRPCError(Status.FAILED_PRECONDITION, "refused (fault switch)")
        if fault == "delay":
            await self._faults.wait(self._faults.delay_s)
        record = await self._node.execute(raw, signatures)
        if fault == "lost_response":
            raise GRPCError(Status.DEADLINE_EXCEEDED, "connection lost before the answer left (fault switch)")
        if fault == "hang":
            await self._faults.wait(self._faults.hang_s)
        return v2.ExecuteTransactionResponse(transaction=_transaction_message(record, self._node.height))


def _page(items: list[Any], request: Any) -> tuple[list[Any], bytes | None]:
    """One page of a list, and the token of the next: the place where it begins."""
    start = int(request.page_token or b"0")
    if start < 0:
        raise ValueError("page token")
    size = min(request.page_size or PAGE_SIZE, PAGE_SIZE)
    stop = start + size
    return items[start:stop], str(stop).encode() if stop < len(items) else None


def _is_of(kind: str, wanted: str | None) -> bool:
    """Whether an object type is the wanted one; a type without its arguments stands for all."""
    return not wanted or _short(kind) == _short(wanted) or _short(kind).startswith(_short(wanted) + "<")


def _short(kind: str) -> str:
    return kind.replace(address_text(address_bytes("0x2")) + "::", "0x2::")


def _time(at_ms: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(at_ms / 1000, tz=datetime.UTC)


def _owner_message(owner: bytes | None, initial: int | None) -> Any:
    if owner is None:
        return v2.Owner(kind=v2.OwnerOwnerKind.SHARED, version=initial)
    return v2.Owner(kind=v2.OwnerOwnerKind.ADDRESS, address=address_text(owner))


def _object_message(item: Item) -> Any:
    return v2.Object(
        object_id=address_text(item.id),
        version=item.version,
        digest=base58_text(item.digest),
        owner=_owner_message(item.owner, item.initial),
        object_type=item.kind,
        contents=v2.Bcs(name=item.kind, value=item.contents),
        previous_transaction=base58_text(item.previous),
        balance=item.mist if item.kind.startswith("0x2::coin::Coin<") else None,
    )


def _transaction_message(record: Record, height: int) -> Any:
    """ExecutedTransaction with the fields of the effects that the embedded chain has. Its checkpoint is told only when
    it is out: up to `height`.
    """
    consumed = {item.id: item for item in record.consumed}
    changed = [_changed_message(consumed.get(item.id), item) for item in record.written]
    changed += [_changed_message(consumed[identity], None) for identity in record.deleted]
    for package in [*(package for package, _, _ in record.coins), *record.packages]:
        changed.append(_package_message(package))
    gas = v2.GasCostSummary(
        computation_cost=record.gas_mist, storage_cost=0, storage_rebate=0, non_refundable_storage_fee=0
    )
    digest = base58_text(record.digest)
    return v2.ExecutedTransaction(
        digest=digest,
        transaction=v2.Transaction(bcs=v2.Bcs(name="TransactionData", value=record.raw), digest=digest),
        signatures=[v2.UserSignature(bcs=v2.Bcs(name="UserSignature", value=each)) for each in record.signatures],
        checkpoint=record.checkpoint if record.checkpoint <= height else None,
        timestamp=_time(record.at_ms),
        effects=v2.TransactionEffects(
            status=v2.ExecutionStatus(success=record.success, error=_error_message(record)),
            epoch=record.epoch,
            transaction_digest=digest,
            lamport_version=record.version,
            gas_used=gas,
            gas_object=changed[0] if record.raw else None,
            changed_objects=changed,
        ),
        events=v2.TransactionEvents(events=_event_messages(record)) if record.events else None,
    )


def _error_message(record: Record) -> Any:
    if record.success:
        return None
    kinds = v2.ExecutionErrorExecutionErrorKind
    kind = kinds.INVARIANT_VIOLATION
    if record.abort_code is not None:
        kind = kinds.MOVE_ABORT
    elif record.error == "insufficient gas":
        kind = kinds.INSUFFICIENT_GAS
    elif record.error.startswith("insufficient coin balance"):
        kind = kinds.INSUFFICIENT_COIN_BALANCE
    abort = v2.MoveAbort(abort_code=record.abort_code) if record.abort_code is not None else None
    return v2.ExecutionError(description=record.error, kind=kind, abort=abort)


def _event_messages(record: Record) -> list[Any]:
    sender = address_text(sender_of(record.raw)) if record.raw else address_text(bytes(32))
    messages = []
    for event in record.events:
        package = address_text(event.package)
        kind = f"{package}::{event.module}::{event.name}"
        contents = v2.Bcs(name=kind, value=event.contents)
        messages.append(
            v2.Event(package_id=package, module=event.module, sender=sender, event_type=kind, contents=contents)
        )
    return messages


def _package_message(package: bytes) -> Any:
    """A package that this transaction published; the embedded chain does not show packages as objects."""
    return v2.ChangedObject(
        object_id=address_text(package),
        input_state=v2.ChangedObjectInputObjectState.DOES_NOT_EXIST,
        output_state=v2.ChangedObjectOutputObjectState.PACKAGE_WRITE,
        output_version=1,
        output_owner=v2.Owner(kind=v2.OwnerOwnerKind.IMMUTABLE),
        id_operation=v2.ChangedObjectIdOperation.CREATED,
        object_type="package",
    )


def _changed_message(before: Consumed | None, after: Item | None) -> Any:
    inputs, outputs = v2.ChangedObjectInputObjectState, v2.ChangedObjectOutputObjectState
    operations = v2.ChangedObjectIdOperation
    known = after or before
    assert known is not None
    return v2.ChangedObject(
        object_id=address_text(known.id),
        input_state=inputs.EXISTS if before else inputs.DOES_NOT_EXIST,
        input_version=before.version if before else None,
        input_digest=base58_text(before.digest) if before else None,
        input_owner=_owner_message(before.owner, before.initial) if before else None,
        output_state=outputs.OBJECT_WRITE if after else outputs.DOES_NOT_EXIST,
        output_version=after.version if after else None,
        output_digest=base58_text(after.digest) if after else None,
        output_owner=_owner_message(after.owner, after.initial) if after else None,
        object_type=known.kind,
        id_operation=operations.DELETED if not after else operations.NONE if before else operations.CREATED,
    )


@dataclass(slots=True)
class RunningNode:
    """A node that listens."""

    node: LocalSui
    faults: Faults
    port: int
    _server: _Server
    _door: asyncio.Server | None = None

    async def flip(self, switch: str, value: str = "") -> None:
        """Flip a fault switch (`door.SWITCHES`). ValueError if there is no such, or the value does not fit."""
        await flip(self.node, self.faults, switch, value)

    async def close(self) -> None:
        """Stop listening, drop connections, release the directory."""
        if self._door is not None:
            self._door.close()
        self._server.close()
        self._server.drop_connections()
        await self._server.wait_closed()
        self.node.close()


async def start(
    directory: Path,
    operator: str,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    executor: str = "auto",
    has_door: bool = False,
) -> RunningNode:
    """Open or begin the chain in `directory`, whose operator has that address, and listen. Port 0 takes a free one.

    The node never sees a key. With a door, the fault switches can be flipped from other processes (`door.ask`).
    """
    node = LocalSui(directory, operator, executor=executor)
    faults = Faults()
    server = _Server([Service(node, faults)], codec=_Codec())
    try:
        await server.start(host, port)
        door = await open_door(directory, node, faults) if has_door else None
    except (OSError, SettingsInvalid):
        server.close()
        node.close()
        raise
    sockets = server._server.sockets  # type: ignore[union-attr]  # grpclib has no public way to ask for the port
    return RunningNode(node, faults, sockets[0].getsockname()[1], server, door)


async def serve(
    directory: Path,
    operator: str,
    host: str,
    port: int,
    *,
    stop: asyncio.Event | None = None,
    executor: str = "auto",
    has_door: bool = False,
    on_ready: Callable[[dict[str, Any]], None] | None = None,
) -> None:
    """Run a node until `stop` is set. `on_ready` gets its status (`door.status_of`) with host and port."""
    running = await start(directory, operator, host, port, executor=executor, has_door=has_door)
    if on_ready:
        on_ready(status_of(running.node, running.faults) | {"host": host, "port": running.port})
    try:
        await (stop or asyncio.Event()).wait()
    finally:
        await running.close()
