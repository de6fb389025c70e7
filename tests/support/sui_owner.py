"""Somebody else on the embedded chain: the owner of a row, with a key of its own and gas from the operator."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pysui.sui.sui_common.sui_commands as commands
from pysui.sui.sui_bcs import bcs
from pysui.sui.sui_common.txn_transaction_builder import ProgrammableTransactionBuilder

from settlement.chain.encoding import CLOCK_ID, SUI_COIN, address_bytes, address_text, u64
from settlement.chain.keys import OperatorKey
from settlement.chain.port import VaultListing
from settlement.chain.sui import SuiChain, SuiSettings, _address, _long_form, _pure, _shared
from tests.support.chain_key import OPERATOR


class _Operator(SuiChain):
    async def give(self, address: str, mist: int) -> None:
        await self.connect()
        builder = ProgrammableTransactionBuilder(compress_inputs=True)
        coin = builder.split_coin(bcs.Argument("GasCoin"), [_pure(builder, u64(mist))])
        builder.transfer_objects(_pure(builder, address_bytes(address)), [coin])
        await self._submit(builder)


class Owner(SuiChain):
    """Build with `open`. `row` is its address."""

    row: bytes

    @classmethod
    async def open(cls, port: int, directory: Path, name: str) -> Owner:
        key = OperatorKey(hashlib.sha256(name.encode()).digest())
        url = f"http://127.0.0.1:{port}"
        operator = _Operator(SuiSettings(url, directory / f"{name}-gas"), OPERATOR)
        await operator.give(key.address, 10**12)
        await operator.close()
        owner = cls(SuiSettings(url, directory / name), key)
        owner.row = address_bytes(key.address)
        info = await operator_package(owner)
        owner._package = info
        return owner

    async def deposit(self, listing: VaultListing, amount: int, row: bytes | None = None) -> str:
        """Mint test coins and pay them in; the digest."""
        builder = ProgrammableTransactionBuilder(compress_inputs=True)
        vault = builder.input_obj_from_objarg(_shared(listing.vault, listing.initial_version))
        self._deposit(builder, listing, vault, [(row or self.row, amount)])
        return await self._done(builder)

    async def send_coin(self, listing: VaultListing, amount: int, to: str) -> str:
        """Mint test coins for that address; the digest."""
        assert listing.faucet is not None
        builder = ProgrammableTransactionBuilder(compress_inputs=True)
        faucet = builder.input_obj_from_objarg(_shared(listing.faucet, listing.faucet_initial_version))
        package, module, _ = listing.coin_type.split("::")
        coin = builder.move_call(
            target=_address(package), arguments=[faucet, _pure(builder, u64(amount))], type_arguments=[],
            module=module, function="mint",
        )  # fmt: skip
        builder.transfer_objects(_pure(builder, address_bytes(to)), [coin])
        return await self._done(builder)

    async def scatter(self, mist: int, count: int, to: str) -> None:
        """Send many coins of `mist` each to that address."""
        for start in range(0, count, 400):
            builder = ProgrammableTransactionBuilder(compress_inputs=True)
            for _ in range(min(400, count - start)):
                coin = builder.split_coin(bcs.Argument("GasCoin"), [_pure(builder, u64(mist))])
                builder.transfer_objects(_pure(builder, address_bytes(to)), [coin])
            await self._done(builder)

    async def request_exit(self, listing: VaultListing, amount: int) -> str:
        builder, vault, clock = self._begin(listing)
        self._call(builder, "request_exit", [vault, _pure(builder, u64(amount)), clock], listing.coin_type)
        return await self._done(builder)

    async def cancel_exit(self, listing: VaultListing) -> str:
        builder, vault, _ = self._begin(listing)
        self._call(builder, "cancel_exit", [vault], listing.coin_type)
        return await self._done(builder)

    async def claim_exit(self, listing: VaultListing) -> str:
        builder, vault, clock = self._begin(listing)
        self._call(builder, "claim_exit", [vault, clock], listing.coin_type)
        return await self._done(builder)

    def _begin(self, listing: VaultListing) -> tuple[Any, Any, Any]:
        builder = ProgrammableTransactionBuilder(compress_inputs=True)
        vault = builder.input_obj_from_objarg(_shared(listing.vault, listing.initial_version))
        clock = builder.input_obj_from_objarg(_shared(address_text(CLOCK_ID), 1, mutable=False))
        return builder, vault, clock

    async def _done(self, builder: Any) -> str:
        owned = await self._execute(commands.GetObjectsOwnedByAddress(owner=self._key.address))
        coins = [(item.balance or 0, item.object_id) for item in owned.objects if _is_sui(item.object_type)]
        self._gas_coin = max(coins)[1]
        return str((await self._submit(builder)).transaction_digest)


def _is_sui(kind: str) -> bool:
    return kind in (SUI_COIN, _long_form(SUI_COIN))


async def operator_package(chain: SuiChain) -> str:
    """The package that the operator of the tests runs."""
    owned = await chain._execute(commands.GetObjectsOwnedByAddress(owner=OPERATOR.address))
    [package] = {i.object_type.partition("::")[0] for i in owned.objects if i.object_type.endswith("::OperatorCap")}
    return str(package)


