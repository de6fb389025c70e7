"""Reads a Sui node for `settlement.verify`: five questions of `sui.rpc.v2`, no key, no directory, no settings."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any
from urllib.parse import urlsplit

from grpclib.client import Channel
from grpclib.const import Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
from pysui.sui.sui_grpc.suimsgs.google import protobuf
from pysui.sui.sui_grpc.suimsgs.sui.rpc import v2

from engine.messages.errors import SettingsInvalid, Unavailable
from settlement.verify import Code, Executed, NodeFacts, VaultObject

__all__ = ["NodeReader"]

_NO_ANSWER = (OSError, asyncio.TimeoutError, StreamTerminatedError, ProtocolError)
_TRANSACTION_MASK = ["digest", "transaction", "signatures", "effects", "events", "checkpoint"]


class NodeReader:
    """Fulfils `verify.ChainReader`. `http://` is plaintext, `https://` TLS with the system's certificates."""

    def __init__(self, url: str, timeout_s: float = 10.0) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise SettingsInvalid(f"node url {url!r} must be http(s)://HOST:PORT: {error}") from error
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
            raise SettingsInvalid(f"node url {url!r} must be http(s)://HOST:PORT, and nothing after it")
        secure = parts.scheme == "https"
        self._url, self._timeout = url, timeout_s
        self._channel = Channel(parts.hostname, port or (443 if secure else 80), ssl=secure or None)
        self._ledger = v2.LedgerServiceStub(self._channel)
        self._packages = v2.MovePackageServiceStub(self._channel)

    async def facts(self) -> NodeFacts:
        info = await self._ask(self._ledger.get_service_info, v2.GetServiceInfoRequest())
        first = int(info.lowest_available_checkpoint or 0)
        return NodeFacts(str(info.chain), str(info.chain_id), str(info.server or ""), first)

    async def transaction(self, digest: str) -> Executed | None:
        request = v2.GetTransactionRequest(digest=digest, read_mask=protobuf.FieldMask(_TRANSACTION_MASK))
        reply = await self._ask(self._ledger.get_transaction, request)
        if reply is None or reply.transaction is None:
            return None
        told = reply.transaction
        status = told.effects.status if told.effects is not None else None
        return Executed(
            digest=str(told.digest or ""),
            raw=bytes(told.transaction.bcs.value) if told.transaction is not None and told.transaction.bcs else b"",
            signatures=[bytes(each.bcs.value) for each in told.signatures if each.bcs is not None],
            success=bool(status is not None and status.success),
            checkpoint=None if told.checkpoint is None else int(told.checkpoint),
            events=[
                (str(event.event_type), bytes(event.contents.value))
                for event in (told.events.events if told.events is not None else [])
                if event.contents is not None
            ],
        )

    async def vault(self, identity: str) -> VaultObject | None:
        mask = protobuf.FieldMask(["object_id", "object_type", "contents"])
        reply = await self._ask(self._ledger.get_object, v2.GetObjectRequest(object_id=identity, read_mask=mask))
        if reply is None or reply.object is None or reply.object.contents is None:
            return None
        return VaultObject(str(reply.object.object_type), bytes(reply.object.contents.value))

    async def code(self, package: str) -> Code | None:
        reply = await self._ask(self._packages.get_package, v2.GetPackageRequest(package_id=package))
        if reply is None or reply.package is None:
            return None
        modules = {str(module.name): bytes(module.contents or b"") for module in reply.package.modules}
        return Code(str(reply.package.original_id or package), modules)

    async def versions(self, package: str) -> list[str]:
        found: list[str] = []
        token: bytes | None = None
        while True:
            request = v2.ListPackageVersionsRequest(package_id=package, page_token=token)
            reply = await self._ask(self._packages.list_package_versions, request)
            if reply is None:
                return found
            found += [str(version.package_id) for version in reply.versions]
            token = reply.next_page_token
            if not token or not reply.versions:
                return found

    async def close(self) -> None:
        self._channel.close()

    async def _ask(self, method: Any, request: Any) -> Any:
        """None if it is not there. Raises Unavailable."""
        try:
            return await method(request, timeout=self._timeout)
        except GRPCError as error:
            if error.status == Status.NOT_FOUND:
                return None
            raise Unavailable(f"the node {self._url} answers {error.status.name}: {error.message}") from error
        except ssl.SSLError as error:
            raise Unavailable(
                f"{self._url} does not speak TLS as https asks for ({error.reason}): a plain node is http://…"
            ) from error
        except _NO_ANSWER as error:
            raise Unavailable(
                f"no Sui node answers at {self._url} (gRPC, sui.rpc.v2): {type(error).__name__}: {error}"
            ) from error
