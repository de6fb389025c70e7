"""LocalSui's door: gRPC `sui.rpc.v2`, plaintext, the methods that pysui's client uses for settlement.

Everything else answers UNIMPLEMENTED. `Faults` are switches for tests: they break the connection's promises, never the
chain's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import base58
import pysui.sui.sui_grpc.suimsgs.sui.rpc.v2 as v2
from grpclib.const import Cardinality, Handler, Status
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError
from grpclib.server import Server

from settlement.chain.encoding import SUI_COIN, address_bytes, address_text, base58_text
from settlement.chain.keys import OperatorKey
from settlement.chain.localsui.node import (
    LIMITS,
    PROTOCOL_VERSION,
    REFERENCE_GAS_PRICE_MIST,
    LocalSui,
    Rejected,
)
from settlement.chain.localsui.state import Consumed, Item, Record

__all__ = ["Faults", "RunningNode", "serve", "start"]

SERVER_NAME = "localsui/1"
_STATUS = {
    "invalid": Status.INVALID_ARGUMENT,
    "missing": Status.NOT_FOUND,
    "stale": Status.FAILED_PRECONDITION,
    "unsupported": Status.UNIMPLEMENTED,
}


@dataclass(slots=True)
class Faults:
    """`next_execute`: what befalls the coming ExecuteTransaction calls, in order:
    `lost_request` (nothing happens), `lost_response` and `hang` (it happens, the answer does not come),
    `refuse_once` (a definite no, nothing happens), `none`. `paused`: every method answers UNAVAILABLE.
    """

    next_execute: deque[str] = field(default_factory=deque)
    paused: bool = False
    hang_s: float = 3_600.0


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
            ("StateService/ListOwnedObjects", self._owned, v2.ListOwnedObjectsRequest, v2.ListOwnedObjectsResponse),
            (
                "TransactionExecutionService/ExecuteTransaction",
                self._execute,
                v2.ExecuteTransactionRequest,
                v2.ExecuteTransactionResponse,
            ),
        ]
        return {
            f"/sui.rpc.v2.{path}": Handler(self._unary(method), Cardinality.UNARY_UNARY, request, response)
            for path, method, request, response in table
        }

    def _unary(self, method: Callable[[Any], Any]) -> Callable[[Any], Awaitable[None]]:
        async def handle(stream: Any) -> None:
            request = await stream.recv_message()
            if self._faults.paused:
                raise GRPCError(Status.UNAVAILABLE, "paused")
            reply = method(request)
            await stream.send_message(await reply if asyncio.iscoroutine(reply) else reply)

        return handle

    def _service_info(self, request: Any) -> Any:
        return v2.GetServiceInfoResponse(
            chain_id=self._node.state.genesis.chain_id,
            chain="embedded",
            epoch=self._node.epoch,
            checkpoint_height=self._node.state.checkpoint,
            server=f"{SERVER_NAME} executor={self._node.executor_name} (not a network)",
        )

    def _checkpoint(self, request: Any) -> Any:
        return v2.GetCheckpointResponse(checkpoint=v2.Checkpoint(sequence_number=request.sequence_number))

    def _epoch(self, request: Any) -> Any:
        attributes = {name: str(value) for name, value in LIMITS.items()}
        config = v2.ProtocolConfig(protocol_version=PROTOCOL_VERSION, attributes=attributes)
        epoch = v2.Epoch(epoch=self._node.epoch, reference_gas_price=REFERENCE_GAS_PRICE_MIST, protocol_config=config)
        return v2.GetEpochResponse(epoch=epoch)

    def _object(self, request: Any) -> Any:
        item = self._node.state.items.get(address_bytes(request.object_id))
        if item is None:
            raise GRPCError(Status.NOT_FOUND, f"object {request.object_id} not found")
        return v2.GetObjectResponse(object=_object_message(item))

    def _objects(self, request: Any) -> Any:
        found = [v2.GetObjectResult(object=self._object(each).object) for each in request.requests]
        return v2.BatchGetObjectsResponse(objects=found)

    def _owned(self, request: Any) -> Any:
        owner = address_bytes(request.owner)
        wanted = request.object_type
        items = [
            _object_message(item)
            for item in self._node.state.items.values()
            if item.owner == owner and (not wanted or item.kind == wanted)
        ]
        return v2.ListOwnedObjectsResponse(objects=items)

    def _transaction(self, request: Any) -> Any:
        try:
            record = self._node.record_of(base58.b58decode(request.digest))
        except ValueError as error:
            raise GRPCError(Status.INVALID_ARGUMENT, f"digest: {error}") from error
        if record is None:
            raise GRPCError(Status.NOT_FOUND, f"transaction {request.digest} not found")
        return v2.GetTransactionResponse(transaction=_transaction_message(record))

    async def _execute(self, request: Any) -> Any:
        fault = self._faults.next_execute.popleft() if self._faults.next_execute else "none"
        if fault == "lost_request":
            raise GRPCError(Status.UNAVAILABLE, "connection lost before the request arrived (fault switch)")
        if fault == "refuse_once":
            raise GRPCError(Status.FAILED_PRECONDITION, "refused (fault switch)")
        try:
            record = await self._node.execute(
                bytes(request.transaction.bcs.value), [bytes(item.bcs.value) for item in request.signatures]
            )
        except Rejected as rejected:
            raise GRPCError(_STATUS[rejected.kind], str(rejected)) from rejected
        if fault == "lost_response":
            raise GRPCError(Status.DEADLINE_EXCEEDED, "connection lost before the answer left (fault switch)")
        if fault == "hang":
            await asyncio.sleep(self._faults.hang_s)
        return v2.ExecuteTransactionResponse(transaction=_transaction_message(record))


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
        balance=item.mist if item.kind == SUI_COIN else None,
    )


def _transaction_message(record: Record) -> Any:
    """ExecutedTransaction with the fields of the effects that the embedded chain has."""
    error = None
    if not record.success:
        kinds = v2.ExecutionErrorExecutionErrorKind
        kind = kinds.INVARIANT_VIOLATION
        if record.abort_code is not None:
            kind = kinds.MOVE_ABORT
        elif record.error == "insufficient gas":
            kind = kinds.INSUFFICIENT_GAS
        abort = v2.MoveAbort(abort_code=record.abort_code) if record.abort_code is not None else None
        error = v2.ExecutionError(description=record.error, kind=kind, abort=abort)
    consumed = {item.id: item for item in record.consumed}
    changed = [_changed_message(consumed.get(item.id), item) for item in record.written]
    changed += [_changed_message(consumed[identity], None) for identity in record.deleted]
    gas = v2.GasCostSummary(
        computation_cost=record.gas_mist, storage_cost=0, storage_rebate=0, non_refundable_storage_fee=0
    )
    digest = base58_text(record.digest)
    return v2.ExecutedTransaction(
        digest=digest,
        checkpoint=record.checkpoint,
        effects=v2.TransactionEffects(
            status=v2.ExecutionStatus(success=record.success, error=error),
            epoch=record.epoch,
            transaction_digest=digest,
            lamport_version=record.version,
            gas_used=gas,
            gas_object=changed[0],
            changed_objects=changed,
        ),
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

    async def close(self) -> None:
        """Stop listening, drop connections, release the directory."""
        self._server.close()
        self._server.drop_connections()
        await self._server.wait_closed()
        self.node.close()


async def start(
    directory: Path, host: str = "127.0.0.1", port: int = 0, *, executor: str = "auto", key_path: Path | None = None
) -> RunningNode:
    """Open or begin the chain in `directory` and listen. Port 0 takes a free one.

    The operator's address comes from `key_path` (default `directory/operator.key`), made if missing.
    """
    key = OperatorKey.load_or_create(key_path or directory / "operator.key")
    node = LocalSui(directory, key.address, executor=executor)
    faults = Faults()
    server = _Server([Service(node, faults)], codec=_Codec())
    try:
        await server.start(host, port)
    except OSError:
        node.close()
        raise
    sockets = server._server.sockets  # type: ignore[union-attr]  # grpclib has no public way to ask for the port
    return RunningNode(node, faults, sockets[0].getsockname()[1], server)


async def serve(
    directory: Path,
    host: str,
    port: int,
    *,
    stop: asyncio.Event | None = None,
    executor: str = "auto",
    on_ready: Callable[[dict[str, Any]], None] | None = None,
) -> None:
    """Run a node until `stop` is set. `on_ready` gets chain, executor, chain_id, package and port."""
    running = await start(directory, host, port, executor=executor)
    genesis = running.node.state.genesis
    if on_ready:
        on_ready(
            {
                "chain": "embedded (not a network)",
                "executor": running.node.executor_name,
                "chain_id": genesis.chain_id,
                "package": address_text(genesis.package),
                "transactions": running.node.state.checkpoint,
                "host": host,
                "port": running.port,
            }
        )
    try:
        await (stop or asyncio.Event()).wait()
    finally:
        await running.close()
