"""The chain port over pysui's gRPC client, unmodified, against any Sui node: LocalSui, a test network, mainnet.

Transactions are built with explicit object references, so that building asks nothing and signing is repeatable; the
references (capability, gas coins, vaults) are read just before. Expiry is the next epoch. The operator's largest SUI
coin pays; when it runs low or is gone, all of them are read anew and pay together, for what somebody sends is a coin of
its own; but for those that another connection of the same purse pays with. The key never reaches pysui: a Signer signs,
in this process or in another.

A `http://` URL means plaintext and is for loopback only; pysui always opens TLS, so its channel is replaced (a private
attribute, held by a test). What differs on a real network: coins come from the settings instead of being published as
test coins, and deposits stand on the chain before the exchange books them.

Worst case: every call is bounded by `timeout_s`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pysui.sui.sui_common.sui_commands as commands
from grpclib.client import Channel
from grpclib.const import Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
from pysui import PysuiConfiguration
from pysui.sui.sui_bcs import bcs
from pysui.sui.sui_common.config.confgroup import GroupProtocol, NetworkType
from pysui.sui.sui_common.factory import client_factory
from pysui.sui.sui_common.txn_transaction_builder import ProgrammableTransactionBuilder
from pysui.sui.sui_grpc.pgrpc_requests import GetObjectsOwnedByAddressSC, GetServiceInfo

from engine.messages.errors import OutcomeUnknown, Refused, SettingsInvalid, Unavailable
from settlement.chain.encoding import (
    CLOCK_ID,
    SUI_COIN,
    VaultHeader,
    address_bytes,
    address_text,
    base58_text,
    transaction_digest,
    u64,
    vector,
    vector_u8,
)
from settlement.chain.events import ChainEvent, decode_event
from settlement.chain.localsui.movevm import coin_module
from settlement.chain.port import (
    ChainInfo,
    CoinPart,
    Execution,
    Part,
    Signed,
    VaultListing,
    VaultPaused,
    VaultState,
)
from settlement.chain.purse import Purse
from settlement.chain.signer import Signer

__all__ = ["SuiChain", "SuiSettings"]

ENTRIES_PER_APPLY = 500
"""An address list is one pure argument of at most 16,384 bytes: 511 addresses."""
OWNED_PER_REQUEST = 1_000
COINS_PER_PAY_IN = 200
GAS_COINS_MOST = 200
"""Sui takes 256 coins as one transaction's gas."""
OBJECTS_PER_REQUEST = 50
ASKED_MOST = 3
ASKED_AGAIN_S = 0.05
"""Until a question is asked for the second time; twice that until the third."""
CONFIG_FILE = "PysuiConfig.json"
_UNKNOWN_OUTCOME = {
    Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED, Status.INTERNAL, Status.UNKNOWN, Status.ABORTED, Status.CANCELLED,
    Status.DATA_LOSS, Status.RESOURCE_EXHAUSTED,
}  # fmt: skip
_NO_ANSWER = (OSError, asyncio.TimeoutError, StreamTerminatedError, ProtocolError, GRPCError)

# pysui logs a traceback for every status but OK; here each becomes an exception that says the same.
logging.getLogger("pgrpc_client").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class SuiSettings:
    """`coin_types`: asset → coin type on a real network; without an entry a test coin is published."""

    url: str
    config_directory: Path
    package: str = ""
    """Needed only where the signer's address operates several packages and no vault is open yet."""
    vault: str = ""
    """One of the vaults that are open: its package is the one, whatever else the address operates."""
    coin_types: dict[str, str] = field(default_factory=dict)
    publish_test_coins: bool = True
    exit_delay_ms: int = 86_400_000
    gas_budget_mist: int = 20_000_000_000
    gas_floor_mist: int = 100_000_000
    """With less in the gas coin nothing is sent: an aborted transaction would pay all the same."""
    timeout_s: float = 10.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or not parts.port:
            raise SettingsInvalid(f"chain url {self.url!r} must be http(s)://HOST:PORT")
        if parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
            raise SettingsInvalid(f"chain url {self.url!r}: plaintext is for loopback only, use https")


class SuiChain:
    """One node, one operator key."""

    def __init__(self, settings: SuiSettings, key: Signer, purse: Purse | None = None) -> None:
        """`purse`: shared with the other connections of this key; by default it is alone."""
        self._settings, self._key, self._purse = settings, key, purse or Purse()
        self._client = _client(settings)
        self._package = ""
        self._operator_caps: list[str] = []
        self._admin_cap = ""
        self._pays_apart = False
        """It pays with its one coin, and gathers no others."""
        self._paid_in: set[str] = set()
        """Coins that the transaction being built pays in: they cannot pay its gas."""

    # ------------------------------------------------------------ port

    async def connect(self) -> ChainInfo:
        info = await self._request(GetServiceInfo())
        await self._find_owned()
        embedded = info.chain == "embedded"
        server = info.server or ""
        executor = server.partition("executor=")[2].partition(" ")[0] if embedded else "validators"
        chain = "embedded (not a network)" if embedded else str(info.chain)
        return ChainInfo(chain, str(info.chain_id), executor, self._package, self._key.address)

    async def _find_owned(self) -> None:
        """Package, capabilities and gas coin of our address. Raises Refused if something is missing."""
        coins: list[tuple[int, str]] = []
        operators, admins = [], []
        wanted = await self._package_of_vaults() or self._settings.package or self._package
        for item in await self._owned_objects():
            package, _, kind = item.object_type.partition("::")
            is_ours = not wanted or kind.startswith("coin::") or address_bytes(package) == address_bytes(wanted)
            if kind == "settlement::OperatorCap" and is_ours:
                operators.append((package, item.object_id))
            elif kind == "settlement::AdminCap" and is_ours:
                admins.append((package, item.object_id))
            elif item.object_type in (SUI_COIN, _long_form(SUI_COIN)):
                coins.append((int(item.balance or 0), item.object_id))
        where = f"{self._settings.url}: {self._key.address}"
        if not operators or not coins:
            missing = "no OperatorCap" if not operators else "no SUI coin for gas"
            raise Refused(f"{where} owns {missing}: send it one from its owner")
        packages = sorted({package for package, _ in operators})
        if len(packages) > 1:
            raise Refused(
                f"{where} operates several packages ({', '.join(packages)}), and no vault is open that would tell "
                "which is this exchange's: set BYLINE_CHAIN_PACKAGE to one of them"
            )
        self._package = packages[0]
        self._operator_caps = sorted(identity for _, identity in operators)
        self._admin_cap = next((identity for package, identity in admins if package == self._package), "")
        others = self._purse.of_others(self)
        self._gas_coin = max([coin for coin in coins if coin[1] not in others] or coins)[1]

    async def _package_of_vaults(self) -> str:
        """Empty while no vault is known. A second package of the same key must not stop what runs on the first."""
        if not self._settings.vault:
            return ""
        return str((await self._object(self._settings.vault)).object_type).partition("::")[0]

    async def open_vaults(
        self, assets: list[tuple[str, int]], first_batch: int, beside: Sequence[VaultListing] = ()
    ) -> list[VaultListing]:
        if not assets:
            return []
        if not self._admin_cap:
            raise Refused(
                f"{self._key.address} owns no AdminCap: a vault for {assets[0][0]} must be opened by its owner"
            )
        coins: dict[str, tuple[str, str | None, int]] = {
            asset: (self._settings.coin_types[asset], None, 0) for asset, _ in assets if self._is_configured(asset)
        }
        coins |= await self._publish([(asset, number) for asset, number in assets if asset not in coins])
        named = await self._named_operator(beside) or self._operator_caps[0]
        builder = ProgrammableTransactionBuilder(compress_inputs=True)
        admin = builder.input_obj_from_objarg(_owned(await self._object(self._admin_cap)))
        operator = _pure(builder, address_bytes(named))
        first, delay = _pure(builder, u64(first_batch)), _pure(builder, u64(self._settings.exit_delay_ms))
        for asset, _ in assets:
            self._call(builder, "open", [admin, operator, first, delay], coins[asset][0])
        effects = await self._submit(builder)
        opened = {
            _vault_coin(item.object_type): item
            for item in effects.changed_objects
            if "::settlement::Vault<" in item.object_type and item.input_version is None
        }
        return [
            VaultListing(
                asset, coin_type, opened[_normal(coin_type)].object_id, first_batch,
                int(opened[_normal(coin_type)].output_version), faucet, faucet_version,
            )
            for asset, (coin_type, faucet, faucet_version) in ((name, coins[name]) for name, _ in assets)
        ]  # fmt: skip

    async def vault_states(self, listings: list[VaultListing]) -> dict[str, VaultState]:
        items = await self._objects([listing.vault for listing in listings])
        states = {}
        for listing in listings:
            header = VaultHeader.decode(bytes(items[listing.vault].contents.value))
            states[listing.asset] = VaultState(
                header.next_seq, header.next_part, header.next_withdrawal, header.chain, header.pool, header.paused,
                header.last_root, header.last_liabilities, header.last_pool, header.deficit,
                str(items[listing.vault].previous_transaction or ""),
            )  # fmt: skip
        return states

    async def sign(self, part: Part, listings: dict[str, VaultListing]) -> Signed:
        vaults = await self._headers([listings[coin.asset] for coin in part.coins])
        operator = await self._operator_of(vaults)
        self._paid_in = set()
        builder = ProgrammableTransactionBuilder(compress_inputs=True)
        cap = builder.input_obj_from_objarg(_owned(await self._object(operator)))
        clock = builder.input_obj_from_objarg(_shared(address_text(CLOCK_ID), 1, mutable=False))
        for coin in part.coins:
            listing = listings[coin.asset]
            vault = builder.input_obj_from_objarg(_shared(listing.vault, listing.initial_version))
            if coin.deposits and listing.faucet:
                self._deposit(builder, listing, vault, coin.deposits)
            elif coin.deposits:
                await self._pay_in(builder, listing, vault, coin.deposits)
            self._commit(builder, listing, vault, cap, clock, part, coin)
            for index, payout in enumerate(coin.payouts):
                arguments = [
                    vault, cap, _pure(builder, payout.row), _pure(builder, payout.recipient),
                    _pure(builder, u64(payout.amount)), _pure(builder, u64(vaults[coin.asset].next_withdrawal + index)),
                ]  # fmt: skip
                self._call(builder, "withdraw", arguments, listing.coin_type)
        return await self._sign(builder)

    async def _headers(self, listings: list[VaultListing]) -> dict[str, VaultHeader]:
        """By asset."""
        items = await self._objects([listing.vault for listing in listings])
        return {
            listing.asset: VaultHeader.decode(bytes(items[listing.vault].contents.value)) for listing in listings
        }

    async def _operator_of(self, vaults: dict[str, VaultHeader]) -> str:
        """The capability that all the vaults name and we own. Asked before sending: an abort costs gas."""
        if paused := sorted(asset for asset, header in vaults.items() if header.paused):
            raise VaultPaused(f"the vault of {', '.join(paused)} is paused")
        named = {address_text(header.operator) for header in vaults.values()}
        if not named <= set(self._operator_caps):
            await self._find_owned()  # rotated since we looked
        if not named:  # a batch before the first settled asset
            return self._operator_caps[0]
        if len(named) != 1 or not named <= set(self._operator_caps):
            raise Unavailable(
                f"the vaults name operator {', '.join(sorted(named))}; {self._key.address} owns "
                f"{', '.join(self._operator_caps)}"
            )
        return named.pop()

    async def _named_operator(self, listings: Sequence[VaultListing]) -> str:
        """The capability that these vaults name; after a rotation not any that we own will do. Empty: no vaults."""
        if not listings:
            return ""
        named = {address_text(header.operator) for header in (await self._headers(list(listings))).values()}
        if len(named) > 1:
            raise Unavailable(f"the vaults name several operators ({', '.join(sorted(named))}): rotate first")
        return named.pop()

    async def send(self, signed: Signed) -> Execution:
        command = commands.ExecuteTransaction(
            tx_bytestr=base64.b64encode(signed.raw).decode(),
            sig_array=[base64.b64encode(signed.signature).decode()],
        )
        try:
            result = await self._client.execute(command=command, timeout=self._timeout)
        except _NO_ANSWER as error:
            raise OutcomeUnknown(f"{self._settings.url}: {type(error).__name__}: {error}") from error
        if not result.is_ok():
            status, words = _failure(result.result_string)
            if status is None or status in _UNKNOWN_OUTCOME:
                raise OutcomeUnknown(f"{self._settings.url}: {words}")
            raise Refused(f"{self._settings.url}: {words}")
        if other := self._other(result.result_data, signed.digest):
            raise OutcomeUnknown(other)
        return _execution(result.result_data, self._package)

    async def find(self, digest: str) -> Execution | None:
        transaction = await self._execute(commands.GetTransaction(digest=digest), missing_is_none=True)
        if transaction is None:
            return None
        if other := self._other(transaction, digest):
            raise Unavailable(other)
        return _execution(transaction, self._package)

    def _other(self, transaction: Any, digest: str) -> str:
        """Empty, or that the answer is of another transaction than the one asked about."""
        if transaction.digest == digest:
            return ""
        return f"{self._settings.url}: asked about transaction {digest}, the node answers with {transaction.digest}"

    async def head(self) -> int:
        info = await self._request(GetServiceInfo())
        return int(info.checkpoint_height or 0)

    async def events(self, after: int, limit: int) -> tuple[int, list[ChainEvent]]:
        last = min(await self.head(), after + limit)
        found: list[ChainEvent] = []
        for number in range(after + 1, last + 1):
            command = commands.GetCheckpointBySequence(sequence_number=number)
            checkpoint = (await self._execute(command)).checkpoint
            if int(checkpoint.sequence_number or 0) != number:
                shown = checkpoint.sequence_number
                raise Unavailable(f"{self._settings.url}: asked for checkpoint {number}, the node answers with {shown}")
            for transaction in checkpoint.transactions:
                found += _events(transaction, self._package, number)
        return max(after, last), found

    async def close(self) -> None:
        self._purse.leave(self)
        await self._client.close()

    # ------------------------------------------------------------ gas

    async def pay_apart(self) -> None:
        """Pay from now on with a coin that nobody else of the purse pays with, and no other: the smallest that is worth
        it. A single coin is split, a quarter of it for us. Raises Unavailable, OutcomeUnknown, Refused."""
        coins = await self._worthy_coins()
        if len(coins) == 1:
            self._gas_coin = coins[0][1]
            builder = ProgrammableTransactionBuilder(compress_inputs=True)
            part = builder.split_coin(bcs.Argument("GasCoin"), [_pure(builder, u64(coins[0][0] // 4))])
            builder.transfer_objects(_pure(builder, address_bytes(self._key.address)), [part])
            await self._submit(builder)
            coins = await self._worthy_coins()
        others = self._purse.of_others(self)
        free = [identity for _, identity in coins if identity not in others]
        if not free:
            raise Unavailable(f"{self._key.address} has no SUI coin that nobody pays with: send SUI there")
        self._gas_coin, self._pays_apart = free[0], True

    async def _worthy_coins(self) -> list[tuple[int, str]]:
        """Balance and id of the SUI coins that gas can be paid with, the smallest first; all if none is enough."""
        found = [(int(item.balance or 0), item.object_id) for item in await self._owned_objects(SUI_COIN)]
        return sorted(coin for coin in found if coin[0] >= self._settings.gas_floor_mist) or sorted(found)

    @property
    def _gas_coin(self) -> str:
        return self._purse.coin(self)

    @_gas_coin.setter
    def _gas_coin(self, identity: str) -> None:
        self._purse.take(self, identity)

    # ------------------------------------------------------------ building

    def _deposit(self, builder: Any, listing: VaultListing, vault: Any, deposits: list[tuple[bytes, int]]) -> None:
        """Mint test coins at the faucet and put them into the vault, row by row."""
        assert listing.faucet is not None
        package, module, _ = listing.coin_type.split("::")
        faucet = builder.input_obj_from_objarg(_shared(listing.faucet, listing.faucet_initial_version))
        for start in range(0, len(deposits), ENTRIES_PER_APPLY):
            chunk = deposits[start : start + ENTRIES_PER_APPLY]
            total = _pure(builder, u64(sum(amount for _, amount in chunk)))
            coin = builder.move_call(
                target=_address(package), arguments=[faucet, total], type_arguments=[], module=module, function="mint"
            )
            owners = _pure(builder, vector(row for row, _ in chunk))
            amounts = _pure(builder, vector(u64(amount) for _, amount in chunk))
            self._call(builder, "deposit_many", [vault, coin, owners, amounts], listing.coin_type)

    async def _pay_in(
        self, builder: Any, listing: VaultListing, vault: Any, deposits: list[tuple[bytes, int]]
    ) -> None:
        """Pay them in from our own coins. Raises Unavailable: there are not enough."""
        kind = f"0x2::coin::Coin<{listing.coin_type}>"
        gas = self._purse.of_others(self) | {self._gas_coin}
        owned = [item for item in await self._owned_objects(kind) if item.object_id not in gas and item.balance]
        owned.sort(key=lambda item: (-int(item.balance), item.object_id))
        needed, taken, used = sum(amount for _, amount in deposits), 0, []
        for item in owned[:COINS_PER_PAY_IN]:
            if taken < needed:
                used.append(builder.input_obj_from_objarg(_owned(item)))
                self._paid_in.add(item.object_id)
                taken += int(item.balance)
        if taken < needed:
            raise Unavailable(
                f"{self._key.address} has {taken} units of {listing.coin_type} to pay in, {needed} are needed: send "
                f"them there"
            )
        if used[1:]:
            builder.merge_coins(used[0], used[1:])
        for start in range(0, len(deposits), ENTRIES_PER_APPLY):
            chunk = deposits[start : start + ENTRIES_PER_APPLY]
            coin = builder.split_coin(used[0], [_pure(builder, u64(sum(amount for _, amount in chunk)))])
            owners = _pure(builder, vector(row for row, _ in chunk))
            amounts = _pure(builder, vector(u64(amount) for _, amount in chunk))
            self._call(builder, "deposit_many", [vault, coin, owners, amounts], listing.coin_type)

    def _commit(
        self, builder: Any, listing: VaultListing, vault: Any, cap: Any, clock: Any, part: Part, coin: CoinPart
    ) -> None:
        head = [vault, cap, *(_pure(builder, u64(number)) for number in (part.batch, part.number, part.count))]
        head.append(_pure(builder, vector_u8(coin.previous)))
        said = (vector_u8(part.root), u64(coin.liabilities), vector_u8(part.trades_digest))
        says = [_pure(builder, data) for data in said]
        chunks = [
            coin.entries[start : start + ENTRIES_PER_APPLY] for start in range(0, len(coin.entries), ENTRIES_PER_APPLY)
        ]
        if len(chunks) <= 1:
            entries = _entry_arguments(builder, chunks[0] if chunks else [])
            self._call(builder, "commit_batch", [*head, *says, *entries, clock], listing.coin_type)
            return
        batch = self._call(builder, "begin", head, listing.coin_type)
        for chunk in chunks:
            self._call(builder, "apply", [vault, batch, *_entry_arguments(builder, chunk)], listing.coin_type)
        self._call(builder, "finish", [vault, batch, *says, clock], listing.coin_type)

    def _call(self, builder: Any, function: str, arguments: list[Any], coin_type: str | None) -> Any:
        return builder.move_call(
            target=_address(self._package),
            arguments=arguments,
            type_arguments=[] if coin_type is None else [_type_argument(coin_type)],
            module="settlement",
            function=function,
        )

    async def _publish(self, assets: list[tuple[str, int]]) -> dict[str, tuple[str, str | None, int]]:
        """Publish a test coin for each asset: coin type, faucet, its initial version."""
        if not assets:
            return {}
        if not self._settings.publish_test_coins:
            raise Refused(f"no coin type is configured for {assets[0][0]}, and test coins are off")
        builder = ProgrammableTransactionBuilder(compress_inputs=True)
        names = {}
        for asset, number in assets:
            name, code = coin_module(number)
            names[name] = asset
            cap = builder.publish([list(code)], [_address("0x1"), _address("0x2")])
            builder.move_call(
                target=_address("0x2"), arguments=[cap], type_arguments=[], module="package", function="make_immutable"
            )
        effects = await self._submit(builder)
        published: dict[str, tuple[str, str | None, int]] = {}
        for item in effects.changed_objects:
            if item.object_type.endswith("::Faucet"):
                package, name, _ = item.object_type.split("::")
                coin_type = f"{package}::{name}::{name.upper()}"
                published[names[name]] = (coin_type, item.object_id, int(item.output_version))
        return published

    async def _sign(self, builder: Any) -> Signed:
        epoch = await self._execute(commands.GetBasicCurrentEpochInfo())
        gas = await self._gas()
        budget, payment = min(self._settings.gas_budget_mist, _mist(gas)), [_reference(coin) for coin in gas]
        data = bcs.TransactionData(
            "V1",
            bcs.TransactionDataV1(
                builder.finish_for_inspect(),
                _address(self._key.address),
                bcs.GasData(payment, _address(self._key.address), int(epoch.reference_gas_price), budget),
                bcs.TransactionExpiration("Epoch", int(epoch.epoch or 0) + 1),
            ),
        )
        raw = bytes(data.serialize())
        return Signed(raw, await self._key.sign_transaction(raw), base58_text(transaction_digest(raw)))

    async def _gas(self) -> list[Any]:
        """The coins that pay; what is left of them ends up in the first. Raises Unavailable: all is too little."""
        least, us = self._settings.gas_floor_mist, address_bytes(self._key.address)
        with contextlib.suppress(Refused):  # merged or sent away
            coin = await self._object(self._gas_coin)
            if int(coin.balance or 0) >= least and address_bytes(coin.owner.address or "0x0") == us:
                return [coin]
        owned, spoken_for = [], self._purse.of_others(self) | self._paid_in
        if not self._pays_apart:
            owned = await self._owned_objects(SUI_COIN)
        coins = [item for item in owned if item.object_id not in spoken_for]
        coins.sort(key=lambda item: (-int(item.balance or 0), item.object_id))
        coins = coins[:GAS_COINS_MOST]
        if _mist(coins) < least:
            left = f"{self._key.address} has {_mist(coins)} MIST left for gas, less than {least}"
            if self._pays_apart:
                left = f"coin {self._gas_coin} has less than {least} MIST left for gas"
            raise Unavailable(f"{left}: send SUI there")
        self._gas_coin = coins[0].object_id
        return coins

    async def _submit(self, builder: Any) -> Any:
        """Sign and execute a set-up transaction; its effects. Same bytes again on doubt, a few times."""
        signed = await self._sign(builder)
        for attempt in range(5):
            try:
                execution = await self.send(signed)
                break
            except OutcomeUnknown:
                if attempt == 4:
                    raise
                await asyncio.sleep(0.2 * 2**attempt)
        if not execution.success:
            raise Refused(f"{execution.digest}: {execution.error}")
        transaction = await self._execute(commands.GetTransaction(digest=signed.digest))
        if other := self._other(transaction, signed.digest):
            raise Unavailable(other)
        return transaction.effects

    # ------------------------------------------------------------ asking

    @property
    def _timeout(self) -> float:
        return self._settings.timeout_s

    def _is_configured(self, asset: str) -> bool:
        return asset in self._settings.coin_types

    async def _execute(self, command: Any, *, missing_is_none: bool = False) -> Any:
        return await self._ask(lambda: self._client.execute(command=command, timeout=self._timeout), missing_is_none)

    async def _request(self, request: Any) -> Any:
        return await self._ask(lambda: self._client.execute_grpc_request(request=request, timeout=self._timeout))

    async def _ask(self, question: Callable[[], Awaitable[Any]], missing_is_none: bool = False) -> Any:
        """The answer to a question that changes nothing, which is asked again when no answer came: a batch takes a
        dozen of them, and to begin it anew for each one that is lost would take minutes where one in five is.

        Raises Unavailable, Refused.
        """
        for attempt in range(ASKED_MOST - 1):
            try:
                return await self._ask_once(question(), missing_is_none)
            except Unavailable:
                await asyncio.sleep(ASKED_AGAIN_S * 2**attempt)
        return await self._ask_once(question(), missing_is_none)

    async def _ask_once(self, call: Awaitable[Any], missing_is_none: bool) -> Any:
        try:
            result = await call
        except _NO_ANSWER as error:
            raise Unavailable(f"{self._settings.url}: {type(error).__name__}: {error}") from error
        if result.is_ok():
            return result.result_data
        status, words = _failure(result.result_string)
        if status == Status.NOT_FOUND and missing_is_none:
            return None
        if status is None or status in _UNKNOWN_OUTCOME:
            raise Unavailable(f"{self._settings.url}: {words}")
        raise Refused(f"{self._settings.url}: {words}")

    async def _owned_objects(self, kind: str | None = None) -> list[Any]:
        """Everything our address owns, or what is of that type: page by page, for anybody may send us rubbish."""
        found: list[Any] = []
        token: bytes | None = None
        while True:
            question = GetObjectsOwnedByAddressSC(
                owner=self._key.address, object_type=kind, page_size=OWNED_PER_REQUEST, page_token=token
            )
            page = await self._request(question)
            found += page.objects
            token = page.next_page_token
            if not token:
                return found

    async def _object(self, identity: str) -> Any:
        return (await self._objects([identity]))[identity]

    async def _objects(self, identities: list[str]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for start in range(0, len(identities), OBJECTS_PER_REQUEST):
            chunk = identities[start : start + OBJECTS_PER_REQUEST]
            reply = await self._execute(commands.GetMultipleObjects(object_ids=chunk))
            for item in reply.objects:
                if item.object is not None:
                    found[item.object.object_id] = item.object
        if missing := [identity for identity in identities if identity not in found]:
            raise Refused(f"{self._settings.url}: object {missing[0]} is not there")
        return found


def _client(settings: SuiSettings) -> Any:
    """pysui's gRPC client with a configuration that lives in our directory and holds no key of ours."""
    settings.config_directory.mkdir(parents=True, exist_ok=True)
    # Made anew at every start: pysui refuses to begin on an old one.
    (settings.config_directory / CONFIG_FILE).unlink(missing_ok=True)
    config = PysuiConfiguration.initialize_config(
        in_folder=settings.config_directory, init_groups=[{"name": "byline", "make_active": True}]
    )
    profile = {
        "profile_name": "node",
        "url": settings.url,
        "network_type": list(NetworkType)[-1],
        "faucet_url": None,
        "faucet_status_url": None,
        "make_active": True,
    }
    # pysui wants a key for its active address. It gets a throw-away one: signing is done by the Signer.
    throw_away = base64.b64encode(b"\0" + transaction_digest(b"no key")).decode()
    config.new_group(
        group_name="session",
        profile_block=[profile],
        key_block=[{"key_string": throw_away, "alias": "unused"}],
        active_address_index=0,
        group_protocol=GroupProtocol.GRPC,
        make_group_active=True,
        persist=False,
    )
    client = client_factory(config)
    parts = urlsplit(settings.url)
    if parts.scheme == "http":
        client._channel.close()
        client._channel = Channel(parts.hostname, parts.port)
    return client


def _failure(result_string: Any) -> tuple[Status | None, str]:
    """Status and words of pysui's failure, which is the arguments of a GRPCError or text."""
    if isinstance(result_string, tuple) and result_string and isinstance(result_string[0], Status):
        return result_string[0], f"{result_string[0].name}: {result_string[1]}"
    return None, str(result_string)


def _events(transaction: Any, package: str, checkpoint: int) -> list[ChainEvent]:
    """The vault events of an executed transaction, in order."""
    if transaction.events is None:
        return []
    at = transaction.timestamp
    at_ms = int(at.timestamp() * 1000) if at is not None else 0
    decoded = (
        decode_event(
            event.event_type, bytes(event.contents.value), package,
            checkpoint=checkpoint, digest=transaction.digest, index=index, at_ms=at_ms,
        )
        for index, event in enumerate(transaction.events.events)
    )  # fmt: skip
    return [event for event in decoded if event is not None]


def _execution(transaction: Any, package: str) -> Execution:
    status = transaction.effects.status
    error = status.error
    abort = error.abort.abort_code if error is not None and error.abort is not None else None
    paying = [
        event.kind
        for event in _events(transaction, package, transaction.checkpoint or 0)
        if event.kind in ("Withdrawn", "WithdrawalSkipped")
    ]
    return Execution(
        digest=transaction.digest,
        success=bool(status.success),
        abort_code=None if abort is None else int(abort),
        error="" if error is None else str(error.description or error.kind),
        gas_mist=int(transaction.effects.gas_used.computation_cost or 0),
        checkpoint=None if transaction.checkpoint is None else int(transaction.checkpoint),
        kind="" if error is None or error.kind is None else str(error.kind.name),
        skipped=[place for place, kind in enumerate(paying) if kind == "WithdrawalSkipped"],
    )


def _mist(coins: list[Any]) -> int:
    return sum(int(coin.balance or 0) for coin in coins)


def _type_argument(kind: str) -> Any:
    return bcs.TypeTag("Struct", bcs.StructTag.from_type_str(kind))


def _address(text: str) -> Any:
    return bcs.Address.from_str(address_text(address_bytes(text)))


def _pure(builder: Any, data: bytes) -> Any:
    return builder.input_pure(bcs.BuilderArg("Pure", list(data)))


def _reference(item: Any) -> Any:
    return bcs.ObjectReference(_address(item.object_id), int(item.version), bcs.Digest.from_str(item.digest))


def _owned(item: Any) -> Any:
    return bcs.ObjectArg("ImmOrOwnedObject", _reference(item))


def _shared(identity: str, initial_version: int, *, mutable: bool = True) -> Any:
    return bcs.ObjectArg("SharedObject", bcs.SharedObjectReference(_address(identity), initial_version, mutable))


def _entry_arguments(builder: Any, entries: Iterable[tuple[bytes, int]]) -> list[Any]:
    entries = list(entries)
    return [
        _pure(builder, vector(row for row, _ in entries)),
        _pure(builder, vector(u64(abs(amount)) for _, amount in entries)),
        _pure(builder, vector(b"\1" if amount < 0 else b"\0" for _, amount in entries)),
    ]


def _normal(coin_type: str) -> str:
    address, module, name = coin_type.split("::")
    return f"{address_text(address_bytes(address))}::{module}::{name}"


def _long_form(kind: str) -> str:
    return kind.replace("0x2::", address_text(address_bytes("0x2")) + "::")


def _vault_coin(kind: str) -> str:
    return _normal(kind.partition("::settlement::Vault<")[2][:-1])
