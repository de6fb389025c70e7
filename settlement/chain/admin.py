"""What an administrator does on the chain: publish, name a new operator, pause. Each is one signed transaction.

Needs a key whose address owns the AdminCap (for `publish`: only gas). On doubt the same bytes are sent again, so each
takes effect at most once. Where the settler pays from the same gas coin the two may meet: the later one is refused
before it runs, and is built anew. Opening vaults is the settler's own `open_vaults`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from pysui.sui.sui_common.txn_transaction_builder import ProgrammableTransactionBuilder

from engine.messages.errors import Refused
from settlement.chain.encoding import SUI_COIN, address_bytes
from settlement.chain.localsui.movevm import load_modules, published_modules
from settlement.chain.port import VaultListing
from settlement.chain.sui import SuiChain, _address, _owned, _pure, _shared, _type_argument

__all__ = ["SuiAdmin"]

_TRIES = 20
_STALE = "available for consumption"
"""Sui's words for an owned object whose version another transaction has used up."""


class SuiAdmin(SuiChain):
    """`operated` and `publish` work before `connect`; everything else after it."""

    async def operated(self) -> list[str]:
        """The packages of which the key owns an OperatorCap. Needs no `connect`."""
        kinds = [str(item.object_type) for item in await self._owned_objects()]
        return sorted({kind.partition("::")[0] for kind in kinds if kind.endswith("::settlement::OperatorCap")})

    async def publish(self) -> tuple[str, str]:
        """Publish the committed bytecode of the exchange package. Package id and digest.

        The publisher gets the AdminCap, an OperatorCap, and the UpgradeCap: whoever owns that may upgrade.
        """
        coins = [(item.balance or 0, item.object_id) for item in await self._owned_objects(SUI_COIN)]
        if not coins:
            raise Refused(f"{self._settings.url}: {self._key.address} owns no SUI coin for gas")
        self._gas_coin = max(coins)[1]

        async def build() -> Any:
            builder = ProgrammableTransactionBuilder(compress_inputs=True)
            modules = [list(code) for code in load_modules("exchange", published_modules())]
            cap = builder.publish(modules, [_address("0x1"), _address("0x2")])
            builder.transfer_objects(_pure(builder, address_bytes(self._key.address)), [cap])
            return builder

        effects = await self._submit_fresh(build)
        for item in effects.changed_objects:
            if item.output_state is not None and item.output_state.name.endswith("PACKAGE_WRITE"):
                return str(item.object_id), str(effects.transaction_digest)
        raise Refused(f"{effects.transaction_digest}: published nothing")

    async def rotate(self, listings: list[VaultListing], to: str) -> tuple[str, str]:
        """A fresh OperatorCap for address `to`, named by every vault: the old one counts nowhere. Cap and digest."""

        async def build() -> Any:
            builder, admin = await self._as_admin()
            cap = self._call(builder, "new_operator", [admin], None)
            identity = builder.move_call(
                target=_address("0x2"),
                arguments=[cap],
                type_arguments=[_type_argument(f"{self._package}::settlement::OperatorCap")],
                module="object",
                function="id",
            )
            for listing in listings:
                vault = builder.input_obj_from_objarg(_shared(listing.vault, listing.initial_version))
                self._call(builder, "set_operator", [vault, admin, identity], listing.coin_type)
            builder.transfer_objects(_pure(builder, address_bytes(to)), [cap])
            return builder

        effects = await self._submit_fresh(build)
        made = [
            str(item.object_id)
            for item in effects.changed_objects
            if item.object_type.endswith("::settlement::OperatorCap") and item.input_version is None
        ]
        return made[0], str(effects.transaction_digest)

    async def set_paused(self, listings: list[VaultListing], paused: bool) -> str:
        """Stop the operator in all vaults, or let it work again; owners pay in and exit all the same. The digest."""

        async def build() -> Any:
            builder, admin = await self._as_admin()
            flag = _pure(builder, bytes([paused]))
            for listing in listings:
                vault = builder.input_obj_from_objarg(_shared(listing.vault, listing.initial_version))
                self._call(builder, "set_paused", [vault, admin, flag], listing.coin_type)
            return builder

        return str((await self._submit_fresh(build)).transaction_digest)

    async def _submit_fresh(self, build: Callable[[], Awaitable[Any]]) -> Any:
        """Submit what `build` makes; made anew while others use up the gas coin's version first. The effects."""
        for attempt in range(_TRIES):
            try:
                return await self._submit(await build())
            except Refused as refused:
                if _STALE not in str(refused) or attempt + 1 == _TRIES:
                    raise
                await asyncio.sleep(0.05 * (attempt + 1))
        raise AssertionError("unreachable")

    async def _as_admin(self) -> tuple[Any, Any]:
        if not self._admin_cap:
            raise Refused(f"{self._key.address} owns no AdminCap of {self._package}")
        builder = ProgrammableTransactionBuilder(compress_inputs=True)
        return builder, builder.input_obj_from_objarg(_owned(await self._object(self._admin_cap)))
