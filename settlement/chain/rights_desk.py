"""Works, licences and royalties on a Sui node: the rights modules' functions as signed transactions.

Uses the same client and key as settlement (`SuiChain`) and the same rule: signed bytes are sent again on doubt, so a
call takes effect at most once; it returns when it has. What the exchange itself does comes as a transaction instead
(`registration`, `grant`, `revocation`): who must outlive a crash keeps what its `sign` gives, and only then sends it;
its `submit` does both. Capabilities of registered works belong to the operator's address unless another owner is named.
Nothing here moves money of the vaults.

Every method raises Unavailable, OutcomeUnknown (after several tries) or Refused, which names the contract's reason.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pysui.sui.sui_common.sui_commands as commands
from pysui.sui.sui_bcs import bcs
from pysui.sui.sui_common.txn_transaction_builder import ProgrammableTransactionBuilder

from engine.messages.errors import Refused
from settlement.chain.encoding import CLOCK_ID, address_bytes, address_text
from settlement.chain.port import Signed
from settlement.chain.rights import ArbiterCap, License, Offer, Till, Work, WorkCap, encode
from settlement.chain.sui import COINS_PER_PAY_IN, SuiChain

__all__ = ["Receipt", "RightsDesk", "RightsTransaction"]

SUI = "0x2::sui::SUI"


class Receipt(msgspec.Struct, frozen=True):
    """A call that took effect. `made`: name of the struct → object id, of what it made."""

    digest: str
    made: dict[str, str]


class RightsDesk:
    """The rights modules of the package that the operator of `chain` works with."""

    def __init__(self, chain: SuiChain) -> None:
        self._chain = chain
        self._registry = self._arbiter = ""

    async def connect(self) -> None:
        """Find the registry, by the arbiter's capability. Raises Refused if the operator does not hold it."""
        for item in await self._chain._owned_objects(f"{self._chain._package}::copyright_registry::ArbiterCap"):
            self._arbiter = item.object_id
            contents = bytes((await self._chain._object(item.object_id)).contents.value)
            self._registry = address_text(ArbiterCap.decode(contents).registry)
        if not self._registry:
            raise Refused(f"{self._chain._key.address} owns no ArbiterCap: the registry is not known")

    # ------------------------------------------------------------ works

    async def registration(
        self,
        content_hash: bytes,
        title: str,
        uri: str,
        creators: list[bytes],
        shares_bps: list[int],
        owner: bytes | None = None,
    ) -> RightsTransaction:
        """Register a work; makes `Work` (shared) and `WorkCap`, which goes to `owner`."""
        call = RightsTransaction(self._chain)
        arguments = [
            await call.shared(self._registry), call.pure("bytes", content_hash), call.pure("text", title),
            call.pure("text", uri), call.pure("ids", creators), call.pure("u64s", shares_bps), call.clock(),
        ]  # fmt: skip
        cap = call.move("copyright_registry", "register", arguments)
        recipient = owner or address_bytes(self._chain._key.address)
        call.builder.transfer_objects(recipient=call.pure("id", recipient), object_ref=cap)
        return call

    async def set_shares(self, work: str, cap: str, creators: list[bytes], shares_bps: list[int]) -> Receipt:
        """What is paid from now on is split anew; what is due stays."""
        call = RightsTransaction(self._chain)
        arguments = [
            await call.shared(work), await call.owned(cap), call.pure("ids", creators), call.pure("u64s", shares_bps)
        ]  # fmt: skip
        call.move("copyright_registry", "set_shares", arguments)
        return await call.submit()

    async def set_disputed(self, work: str, disputed: bool) -> Receipt:
        """While a work is disputed no licence of it is granted or sold."""
        call = RightsTransaction(self._chain)
        arguments = [
            await call.shared(self._registry, mutable=False), await call.owned(self._arbiter), await call.shared(work),
            call.pure("bool", disputed),
        ]  # fmt: skip
        call.move("copyright_registry", "set_disputed", arguments)
        return await call.submit()

    # ------------------------------------------------------------ licences

    async def grant(
        self,
        work: str,
        cap: str,
        to: bytes,
        terms_hash: bytes,
        duration_ms: int,
        *,
        transferable: bool = False,
        revocable: bool = True,
    ) -> RightsTransaction:
        """Grant a licence that was agreed and paid elsewhere; makes `License`, which belongs to `to`.

        Two over one state of the capability exclude each other.
        """
        call = RightsTransaction(self._chain)
        arguments = [
            await call.shared(work), await call.owned(cap), call.pure("id", to), call.pure("bytes", terms_hash),
            call.pure("u64", duration_ms), call.pure("bool", transferable), call.pure("bool", revocable), call.clock(),
        ]  # fmt: skip
        call.move("license", "issue", arguments)
        return call

    async def revocation(self, work: str, cap: str, license: str) -> RightsTransaction:
        """Take a revocable licence back; what was paid for it is not touched."""
        call = RightsTransaction(self._chain)
        arguments = [
            await call.shared(work), await call.owned(cap), call.pure("id", address_bytes(license)), call.clock()
        ]  # fmt: skip
        call.move("license", "revoke", arguments)
        return call

    async def offer(
        self,
        work: str,
        cap: str,
        coin_type: str,
        price: int,
        supply: int,
        terms_uri: str,
        terms_hash: bytes,
        duration_ms: int,
        *,
        transferable: bool = False,
        revocable: bool = False,
    ) -> Receipt:
        """Offer `supply` licences at `price` units to anyone; makes `Offer` (shared)."""
        call = RightsTransaction(self._chain)
        arguments = [
            await call.shared(work, mutable=False), await call.owned(cap), call.pure("text", terms_uri),
            call.pure("bytes", terms_hash), call.pure("u64", price), call.pure("u64", duration_ms),
            call.pure("u64", supply), call.pure("bool", transferable), call.pure("bool", revocable),
        ]  # fmt: skip
        call.move("license", "make_offer", arguments, coin_type)
        return await call.submit()

    async def close_offer(self, work: str, cap: str, offer: str, coin_type: str) -> Receipt:
        call = RightsTransaction(self._chain)
        arguments = [await call.shared(offer), await call.shared(work, mutable=False), await call.owned(cap)]
        call.move("license", "close_offer", arguments, coin_type)
        return await call.submit()

    async def buy(self, offer: str, work: str, till: str, coin_type: str, price: int, to: bytes) -> Receipt:
        """Buy a licence for `to` with the operator's coins; the creators' royalties are due at once."""
        call = RightsTransaction(self._chain)
        arguments = [
            await call.shared(offer), await call.shared(work), await call.shared(till),
            await call.payment(coin_type, price), call.pure("id", to), call.clock(),
        ]  # fmt: skip
        call.move("license", "buy", arguments, coin_type)
        return await call.submit()

    # ------------------------------------------------------------ royalties

    async def open_till(self, coin_type: str) -> Receipt:
        """Makes `Till` (shared): one is enough for a coin."""
        call = RightsTransaction(self._chain)
        call.move("royalty", "open", [], coin_type)
        return await call.submit()

    async def fund(self, till: str, work: str, coin_type: str, amount: int) -> Receipt:
        """Pay royalties of a work out of the operator's coins, split to the last unit by its shares."""
        call = RightsTransaction(self._chain)
        arguments = [
            await call.shared(till), await call.shared(work, mutable=False), await call.payment(coin_type, amount)
        ]  # fmt: skip
        call.move("royalty", "pay", arguments, coin_type)
        return await call.submit()

    async def claim(self, till: str, coin_type: str, payee: bytes) -> Receipt:
        """Have all that is due to `payee` paid to it; makes `Coin`."""
        call = RightsTransaction(self._chain)
        call.move("royalty", "claim", [await call.shared(till), call.pure("id", payee)], coin_type)
        return await call.submit()

    # ------------------------------------------------------------ reading

    async def receipt(self, digest: str) -> Receipt:
        """Of a transaction that took effect. Raises Unavailable, Refused (the node does not know it)."""
        transaction = await self._chain._execute(commands.GetTransaction(digest=digest))
        return _receipt(transaction.effects)

    async def held_cap(self, content_hash: bytes) -> tuple[str, str, str] | None:
        """Of a work with this content whose capability we own: work, capability, the digest that gave it to us.

        Reads every capability that we own: for cases of doubt.
        """
        kind = f"{self._chain._package}::copyright_registry::WorkCap"
        for cap in await self._chain._owned_objects(kind):
            work = address_text((await self.cap(cap.object_id)).work)
            if (await self.work(work)).content_hash == content_hash:
                return work, str(cap.object_id), str(cap.previous_transaction or "")
        return None

    async def work(self, identity: str) -> Work:
        return Work.decode(await self._contents(identity))

    async def cap(self, identity: str) -> WorkCap:
        return WorkCap.decode(await self._contents(identity))

    async def license(self, identity: str) -> License:
        return License.decode(await self._contents(identity))

    async def offer_state(self, identity: str) -> Offer:
        return Offer.decode(await self._contents(identity))

    async def till(self, identity: str) -> Till:
        return Till.decode(await self._contents(identity))

    async def entries(self, table: bytes) -> dict[bytes, bytes]:
        """A table's entries in BCS, by key: works of the registry, licences of a work, units due of a till."""
        found: dict[bytes, bytes] = {}
        token = None
        while True:
            request = commands.GetDynamicFields(object_id=address_text(table), next_page_token=token)
            page = await self._chain._execute(request)
            found |= {bytes(each.name.value): bytes(each.value.value) for each in page.dynamic_fields}
            if not (token := page.next_page_token):
                return found

    async def _contents(self, identity: str) -> bytes:
        return bytes((await self._chain._object(identity)).contents.value)


class RightsTransaction:
    """One transaction under construction; then `sign` or `submit`."""

    def __init__(self, chain: SuiChain) -> None:
        self._chain = chain
        self.builder: Any = ProgrammableTransactionBuilder(compress_inputs=True)

    def pure(self, form: str, value: Any) -> Any:
        return self.builder.input_pure(bcs.BuilderArg("Pure", list(encode(form, value))))

    def clock(self) -> Any:
        return self._shared(address_text(CLOCK_ID), 1, mutable=False)

    async def shared(self, identity: str, *, mutable: bool = True) -> Any:
        item = await self._chain._object(identity)
        return self._shared(identity, int(item.owner.version), mutable=mutable)

    async def owned(self, identity: str) -> Any:
        item = await self._chain._object(identity)
        reference = bcs.ObjectReference(_address(identity), int(item.version), bcs.Digest.from_str(item.digest))
        return self.builder.input_obj_from_objarg(bcs.ObjectArg("ImmOrOwnedObject", reference))

    async def payment(self, coin_type: str, amount: int) -> Any:
        """A coin of exactly `amount`: split off the gas coin for SUI, else off the operator's coins of the type."""
        size = self.pure("u64", amount)
        if coin_type == SUI:
            return self.builder.split_coin(from_coin=bcs.Argument("GasCoin"), amounts=[size])
        owned = await self._chain._owned_objects(f"0x2::coin::Coin<{coin_type}>")
        coins = [item.object_id for item in owned[:COINS_PER_PAY_IN]]
        if not coins:
            raise Refused(f"{self._chain._key.address} owns no coin of {coin_type}")
        first, *rest = [await self.owned(identity) for identity in coins]
        if rest:
            self.builder.merge_coins(to_coin=first, from_coins=rest)
        return self.builder.split_coin(from_coin=first, amounts=[size])

    def move(self, module: str, function: str, arguments: list[Any], coin_type: str = "") -> Any:
        types = [bcs.TypeTag("Struct", bcs.StructTag.from_type_str(coin_type))] if coin_type else []
        return self.builder.move_call(
            target=_address(self._chain._package), arguments=arguments, type_arguments=types, module=module,
            function=function,
        )  # fmt: skip

    async def sign(self) -> Signed:
        """Bytes that can take effect at most once; nothing is sent. Keep them, then `SuiChain.send`."""
        return await self._chain._sign(self.builder)

    async def submit(self) -> Receipt:
        return _receipt(await self._chain._submit(self.builder))

    def _shared(self, identity: str, initial_version: int, *, mutable: bool) -> Any:
        reference = bcs.SharedObjectReference(_address(identity), initial_version, mutable)
        return self.builder.input_obj_from_objarg(bcs.ObjectArg("SharedObject", reference))


def _receipt(effects: Any) -> Receipt:
    made = {
        item.object_type.partition("<")[0].rpartition("::")[2]: item.object_id
        for item in effects.changed_objects
        if item.input_version is None
    }
    return Receipt(effects.transaction_digest, made)


def _address(text: str) -> Any:
    return bcs.Address.from_str(address_text(address_bytes(text)))
