"""Copyrights and licences on the chain, for the platform. Fulfils `platform_api.ports.RightsPort`.

One connection beside the settler's, with the same signer and a gas coin of its own, so that neither waits for the
other. It is made at the first use, and again after something could not be signed: then a gas coin may be used up.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from engine.messages.errors import Unavailable
from platform_api.ports import ChainOutcome, IssuedLicense, RegisteredWork, SignedCall
from settlement.chain.port import Execution, Signed
from settlement.chain.rights_desk import RightsDesk, RightsTransaction
from settlement.chain.sui import SuiChain

__all__ = ["ChainRights"]


class ChainRights:
    """`open_chain` makes an unconnected chain; a work's title never leaves: the chain is for everybody, for ever."""

    def __init__(self, open_chain: Callable[[], SuiChain]) -> None:
        self._open_chain = open_chain
        self._made: tuple[SuiChain, RightsDesk] | None = None

    async def sign_registration(self, content_hash: bytes, uri: str, creator: bytes) -> SignedCall:
        return await self._sign(lambda desk: desk.registration(content_hash, "", uri, [creator], [10_000]))

    async def sign_license(self, work: str, cap: str, to: bytes, terms_hash: bytes, duration_ms: int) -> SignedCall:
        return await self._sign(lambda desk: desk.grant(work, cap, to, terms_hash, duration_ms))

    async def sign_revocation(self, work: str, cap: str, license: str) -> SignedCall:
        return await self._sign(lambda desk: desk.revocation(work, cap, license))

    async def send(self, call: SignedCall) -> ChainOutcome:
        chain, _ = await self._connected()
        return _outcome(await chain.send(Signed(call.raw, call.signature, call.digest)))

    async def find(self, digest: str) -> ChainOutcome | None:
        chain, _ = await self._connected()
        found = await chain.find(digest)
        return None if found is None else _outcome(found)

    async def registered(self, digest: str) -> RegisteredWork:
        _, desk = await self._connected()
        made = (await desk.receipt(digest)).made
        work = made["Work"]
        return RegisteredWork(work, made["WorkCap"], digest, (await desk.work(work)).registered_ms)

    async def held(self, content_hash: bytes) -> RegisteredWork | None:
        _, desk = await self._connected()
        found = await desk.held_cap(content_hash)
        if found is None:
            return None
        work, cap, digest = found
        return RegisteredWork(work, cap, digest, (await desk.work(work)).registered_ms)

    async def issued(self, digest: str) -> IssuedLicense:
        _, desk = await self._connected()
        identity = (await desk.receipt(digest)).made["License"]
        shown = await desk.license(identity)
        return IssuedLicense(identity, shown.issued_ms, shown.expires_ms)

    async def close(self) -> None:
        if self._made is not None:
            chain, _ = self._made
            self._made = None
            await chain.close()

    async def _sign(self, build: Callable[[RightsDesk], Awaitable[RightsTransaction]]) -> SignedCall:
        _, desk = await self._connected()
        try:
            signed = await (await build(desk)).sign()
        except Unavailable:
            await self.close()
            raise
        return SignedCall(signed.raw, signed.signature, signed.digest)

    async def _connected(self) -> tuple[SuiChain, RightsDesk]:
        """Raises Unavailable, Refused: the operator does not hold what it needs."""
        if self._made is None:
            chain = self._open_chain()
            try:
                await chain.connect()
                desk = RightsDesk(chain)
                await desk.connect()
                await chain.pay_apart()
            except BaseException:
                await chain.close()
                raise
            self._made = (chain, desk)
        return self._made


def _outcome(execution: Execution) -> ChainOutcome:
    return ChainOutcome(
        execution.digest, execution.success, execution.abort_code, execution.error, execution.gas_mist,
        execution.checkpoint,
    )  # fmt: skip
