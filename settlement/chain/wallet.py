"""A user's wallet on the chain: what it owns, and paying in.

The other side of `SuiChain`: a key that operates nothing, so nothing of the operator's is looked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pysui.sui.sui_bcs import bcs
from pysui.sui.sui_common.txn_transaction_builder import ProgrammableTransactionBuilder

from engine.messages.errors import Refused
from settlement.chain.encoding import SUI_COIN, address_bytes, u64, vector_u8
from settlement.chain.signer import Signer
from settlement.chain.sui import SuiChain, SuiSettings, _address, _owned, _pure, _shared

__all__ = ["WalletChain"]

GAS_BUDGET_MIST = 10_000_000_000


class WalletChain(SuiChain):
    """One node, one user's key. Every method raises Unavailable when the chain does not answer, and Refused."""

    @classmethod
    def at(cls, url: str, directory: Path, key: Signer, package: str) -> WalletChain:
        settings = SuiSettings(url, directory, package=package, gas_budget_mist=GAS_BUDGET_MIST, gas_floor_mist=1)
        made = cls(settings, key)
        made._package = package
        return made

    @property
    def address(self) -> str:
        return self._key.address

    async def mist(self) -> int:
        """Of the largest SUI coin: what gas can be paid with."""
        coins = [(int(item.balance or 0), item.object_id) for item in await self._owned_objects(SUI_COIN)]
        self._gas_coin = max(coins)[1] if coins else ""
        return max(coins)[0] if coins else 0

    async def send_sui(self, to: str, mist: int) -> None:
        await self._take_gas()
        builder = ProgrammableTransactionBuilder(compress_inputs=True)
        coin = builder.split_coin(bcs.Argument("GasCoin"), [_pure(builder, u64(mist))])
        builder.transfer_objects(_pure(builder, address_bytes(to)), [coin])
        await self._submit(builder)

    async def deposit(self, route: dict[str, Any], units: int) -> str:
        """Pay in as `POST /v1/deposits` has answered, with test coins where it names a faucet. The digest."""
        await self._take_gas()
        builder = ProgrammableTransactionBuilder(compress_inputs=True)
        vault, _, owner, reference = route["arguments"]
        coin = self._minted(builder, route, units) if route["faucet"] else await self._split(builder, route, units)
        arguments = [
            builder.input_obj_from_objarg(_shared(vault["value"], vault["shared_version"])), coin,
            _pure(builder, address_bytes(owner["value"])), _pure(builder, vector_u8(reference["value"].encode())),
        ]  # fmt: skip
        self._call(builder, "deposit", arguments, route["coin_type"])
        return str((await self._submit(builder)).transaction_digest)

    def _minted(self, builder: Any, route: dict[str, Any], units: int) -> Any:
        package, module, _ = route["coin_type"].split("::")
        faucet = builder.input_obj_from_objarg(_shared(route["faucet"]["value"], route["faucet"]["shared_version"]))
        return builder.move_call(
            target=_address(package), arguments=[faucet, _pure(builder, u64(units))], type_arguments=[], module=module,
            function="mint",
        )  # fmt: skip

    async def _split(self, builder: Any, route: dict[str, Any], units: int) -> Any:
        """A coin of exactly that much out of our own. Raises Refused: we own too little in one place."""
        owned = await self._owned_objects(f"0x2::coin::Coin<{route['coin_type']}>")
        coins = sorted(
            (item for item in owned if item.object_id != self._gas_coin), key=lambda item: -int(item.balance or 0)
        )
        used, total = [], 0
        for item in coins:
            if total < units:
                used.append(builder.input_obj_from_objarg(_owned(item)))
                total += int(item.balance or 0)
        if total < units:
            raise Refused(f"{self.address} owns {total} units of {route['coin_type']}, {units} are to be paid in")
        if used[1:]:
            builder.merge_coins(used[0], used[1:])
        return builder.split_coin(used[0], [_pure(builder, u64(units))])

    async def _take_gas(self) -> None:
        if not await self.mist():
            raise Refused(f"{self.address} owns no SUI to pay gas with")
