"""The command line. Every command has `--help` with an example; errors are one line, with what to do."""

from __future__ import annotations

import json
import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Optional
from uuid import UUID

import typer
from rich.console import Console
from typer.core import TyperGroup

from byline.settings import Settings, load_settings
from engine.messages.errors import ExchangeError

__all__ = ["app", "main"]

app = typer.Typer(
    name="byline",
    help="An exchange for creators' tokens, and the licences and royalties behind them, on one ledger.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
feed_app = typer.Typer(help="Replay a recorded market through the order entry.", no_args_is_help=True)
journal_app = typer.Typer(help="Look after the journal.", no_args_is_help=True)
app.add_typer(feed_app, name="feed")
app.add_typer(journal_app, name="journal")
key_app = typer.Typer(help="Keys: which there are, and API keys of order entry, by the operator.", no_args_is_help=True)
app.add_typer(key_app, name="key")
people_app = typer.Typer(help="Roles of accounts, keys of sealed columns, the audit trail.", no_args_is_help=True)
app.add_typer(people_app, name="people")
jobs_app = typer.Typer(help="Work outside of requests that the platform gave up.", no_args_is_help=True)
app.add_typer(jobs_app, name="jobs")
events_app = typer.Typer(help="Events that the platform gave up to hand over.", no_args_is_help=True)
app.add_typer(events_app, name="events")
money_app = typer.Typer(help="Commands of money that wait for a person.", no_args_is_help=True)
app.add_typer(money_app, name="money")
settle_app = typer.Typer(
    help="""Settlement on Sui: publish the contracts, open vaults, rotate the operator, pause, look, end a halt.

Without settings it works on the embedded node of the running exchange (`open-vault`: of the stopped one).
For a Sui network set `BYLINE_CHAIN_URL`
(`https://HOST:PORT` of a full node's gRPC), a key (`BYLINE_CHAIN_KEY`, a sealed key file; `BYLINE_KEY_PASSPHRASE` opens
it) or a program that signs (`BYLINE_CHAIN_SIGNER`), and `BYLINE_CHAIN_COINS`. The order for a new network: fund the
key's address with SUI, `publish`, start the exchange, which opens the vaults, `status`. See docs/settlement.md.""",
    no_args_is_help=True,
)
app.add_typer(settle_app, name="settle")


class Decided(StrEnum):
    """What became of a stuck command of money."""

    posted = "posted"
    refused = "refused"


class _VerifyGroup(TyperGroup):
    """`verify PROOF BATCH` is short for `verify batch PROOF BATCH`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args.insert(0, "batch")
        return super().parse_args(ctx, args)


verify_app = typer.Typer(
    help="""Check what the exchange says against a Sui node.

`byline verify PROOF BATCH --node URL [--previous BATCH-BEFORE]` is short for `byline verify batch …`: a balance in a
batch. `--node`: a Sui node that you trust, `http(s)://HOST:PORT`. Exit status 0: all holds. 1: something does not, and
what. 2: it could not be checked, since the node does not answer or the command is wrong.""",
    no_args_is_help=True,
    cls=_VerifyGroup,
)
app.add_typer(verify_app, name="verify")

console = Console(stderr=False, highlight=False, soft_wrap=True)  # a line that is piped must stay one

DataOption = Annotated[
    Optional[Path],
    typer.Option("--data", help="The data directory.", show_default=".data, or BYLINE_DATA_DIRECTORY"),
]


def _settings(data: Path | None, **overrides: Any) -> Settings:
    return load_settings(data_directory=data, **overrides)


@app.command()
def up(
    data: DataOption = None,
    seconds: Annotated[Optional[float], typer.Option(min=1, help="Stop after this long, then check all.")] = None,
    json_path: Annotated[Optional[Path], typer.Option("--json", help="Write the summary here.")] = None,
    ack: Annotated[Optional[str], typer.Option(help="durable: answers wait for the disk. memory: they do not.")] = None,
    quiet_market: Annotated[bool, typer.Option(help="No simulated traders.")] = False,
    orders_per_s: Annotated[Optional[int], typer.Option(help="What the simulated traders send.")] = None,
    batch_seconds: Annotated[Optional[float], typer.Option(help="Time between two settlement cuts.")] = None,
    free_ports: Annotated[bool, typer.Option(help="Take any free ports instead of 7400–7403.")] = False,
    seed: Annotated[Optional[int], typer.Option(help="Seed of the simulated traders.")] = None,
) -> None:
    """Start a whole exchange and keep it running until Ctrl-C.

    With `--seconds` it is bounded: at the end the journal is replayed from its first record, money is counted, the
    batches on the chain are compared, and the exit status is 0 only if every check held.

    Example: `byline up --seconds 40 --json summary.json`
    """
    from byline.up import run_exchange

    if json_path:
        json_path.touch()  # a path that cannot be written is said now, not after the run
    listening = ("api", "gateway", "marketdata", "marketdata_b", "chain")
    ports = {f"{name}_port": 0 for name in listening} if free_ports else {}
    settings = _settings(
        data, ack_mode=ack, quiet_market=quiet_market or None, trader_orders_per_s=orders_per_s,
        batch_interval_s=batch_seconds, seed=seed, **ports,
    )  # fmt: skip
    raise typer.Exit(run_exchange(settings, console=console, seconds=seconds, json_path=json_path))


@app.command()
def status(
    data: DataOption = None,
    once: Annotated[bool, typer.Option(help="Print one table and leave.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON and leave.")] = False,
) -> None:
    """Show a live table of the running exchange: processes, sequences, lag, batches.

    Example: `byline status --once`
    """
    from byline.status_table import show_status

    raise typer.Exit(show_status(_settings(data), console=console, once=once, as_json=as_json))


@app.command()
def replay(
    commands: Annotated[
        Path,
        typer.Argument(help="One JSON command a line, - for standard input; see docs/rulebook.md."),
    ],
    events: Annotated[Optional[Path], typer.Option(help="Write the events here instead of printing them.")] = None,
    reference: Annotated[bool, typer.Option(help="Use the plain-Python reference instead of the core.")] = False,
    state_hash: Annotated[bool, typer.Option(help="Add a last line with sequence and state hash.")] = False,
) -> None:
    """Run commands through the matching core and print the events as JSON lines.

    Example: `byline replay commands.jsonl --state-hash`
    """
    from byline.replay_door import replay_file

    replay_file(commands, events, reference=reference, state_hash=state_hash)


@app.command()
def openapi(
    out: Annotated[Optional[Path], typer.Option(help="Write it here instead of printing it.")] = None,
) -> None:
    """Print the OpenAPI document of the REST interface. Needs no running exchange.

    Example: `byline openapi --out openapi.json`
    """
    from platform_api.app import openapi_document

    text = json.dumps(openapi_document(), indent=2)
    if out:
        out.write_text(text + "\n")
    else:
        print(text)


@app.command()
def trader(
    name: Annotated[str, typer.Argument(help="1 to 40 of A–Z a–z 0–9 _ - .")],
    data: DataOption = None,
) -> None:
    """Open an account with test money and an API key at the running exchange (embedded chain only).

    Example: `byline trader alice`
    """
    from byline.newcomer import open_trader

    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,40}", name):
        raise typer.BadParameter("a name is 1 to 40 of A–Z a–z 0–9 _ - .", param_hint="NAME")
    account, url, key = open_trader(_settings(data), name)
    console.print(f"account      [bold]{account}[/], with test money", soft_wrap=True)
    console.print(f"order entry  [bold]{url}[/]", soft_wrap=True)
    console.print(f"private key  [bold]{key}[/]  (keep it: it is the account)", soft_wrap=True)


_WalletOption = Annotated[Path, typer.Option("--wallet", help="The wallet's key file; made if it is missing.")]
_TAKES_MINUS = {"ignore_unknown_options": True}
"""An amount below zero is refused as an amount, not as an option that nobody knows."""
_ApiOption = Annotated[
    Optional[str],
    typer.Option("--api", help="Address of REST.", show_default="that of the exchange on the data directory"),
]


@app.command(context_settings=_TAKES_MINUS)
def deposit(
    asset: Annotated[str, typer.Argument(help="As the exchange names it, for example USDC.")],
    amount: Annotated[str, typer.Argument(help="A decimal, for example 25.5.")],
    wallet: _WalletOption = Path("wallet.key"),
    api: _ApiOption = None,
    node: Annotated[
        Optional[str],
        typer.Option("--node", help="gRPC of a Sui node.", show_default="the embedded chain of that exchange"),
    ] = None,
    data: DataOption = None,
) -> None:
    """Pay in on the chain from a wallet of yours, and wait until it is booked. See docs/settlement.md.

    Example: `byline deposit USDC 250`
    """
    from byline.wallet import deposit as pay_in

    pay_in(_rest(api, data), _node(node, data), wallet, asset, amount, console=console)


@app.command(context_settings=_TAKES_MINUS)
def withdraw(
    asset: Annotated[str, typer.Argument(help="As the exchange names it, for example USDC.")],
    amount: Annotated[str, typer.Argument(help="A decimal, for example 25.5.")],
    wallet: _WalletOption = Path("wallet.key"),
    to: Annotated[
        Optional[str], typer.Option("--to", help="An address of your list.", show_default="the wallet")
    ] = None,
    api: _ApiOption = None,
    data: DataOption = None,
) -> None:
    """Ask for your money back on the chain: the wallet signs the request, and a batch pays it.

    Example: `byline withdraw USDC 100`
    """
    from byline.wallet import withdraw as pay_out

    pay_out(_rest(api, data), wallet, asset, amount, to, console=console)


def _rest(given: str | None, data: Path | None) -> str:
    return given or _address_of("api", data, "--api http://HOST:PORT")


def _node(given: str | None, data: Path | None) -> str:
    return given or _settings(data).chain_url or _address_of("chain", data, "--node http://HOST:PORT")


def _address_of(name: str, data: Path | None, instead: str) -> str:
    from byline.running import running_process

    status = running_process(_settings(data).data_directory, name, instead=f"or give {instead}")
    return f"http://{status['host']}:{status['port']}"


@key_app.command("register")
def key_register(
    key: Annotated[Optional[str], typer.Argument(help="Public key, 64 hex digits; or --name.")] = None,
    account: Annotated[Optional[list[str]], typer.Option(help="Once or more; the first is the default.")] = None,
    name: Annotated[Optional[str], typer.Option(help="Make the key here: DATA/keys/NAME.key.")] = None,
    scope: Annotated[Optional[list[str]], typer.Option(help="read, trade, cancel_only, transfer, withdraw.")] = None,
    tier: Annotated[Optional[str], typer.Option(help="plain, trader, maker or unlimited.")] = None,
    protection: Annotated[Optional[str], typer.Option(help='As {"window_ms":1000,"fills":20}.')] = None,
    collar_ppm: Annotated[Optional[int], typer.Option(help="How far from the reference price, millionths.")] = None,
    market: Annotated[Optional[list[str]], typer.Option(help="Only these.")] = None,
    network: Annotated[Optional[list[str]], typer.Option(help="Sign-in from these alone, as 10.0.0.0/8.")] = None,
    expires_at: Annotated[Optional[int], typer.Option(help="ns since 1970.")] = None,
    data: DataOption = None,
) -> None:
    """Register an API key at the running exchange, with what narrows it. Signs in with DATA/keys/operator.key.

    Without `--scope`: read and trade. What the fields mean stands in docs/protocol/order-entry.md.

    Example: `byline key register --name desk --account user:alice --tier maker --collar-ppm 50000`
    """
    from byline.key_tools import protection_of, register_key

    if name is not None and not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,39}", name):
        raise typer.BadParameter("a name is 1 to 40 of A–Z a–z 0–9 _ - .", param_hint="--name")
    narrowed = {
        "tier": tier, "protection": protection_of(protection), "collar_ppm": collar_ppm, "markets": market,
        "addresses": network, "expires_at": expires_at,
    }  # fmt: skip
    answer, path = register_key(_settings(data), key, name, account or [], scope or ["read", "trade"], narrowed)
    console.print_json(json.dumps(answer))
    if path is not None:
        console.print(f"private key  [bold]{path}[/]", soft_wrap=True)


@key_app.command("list")
def key_list(data: DataOption = None) -> None:
    """Show which keys there are and what each is for: the exchange's own, and all API keys that live. Never a secret.

    Example: `byline key list`
    """
    from byline.key_tools import list_keys

    for line in list_keys(_settings(data)):
        console.print(line, soft_wrap=True, markup=False)


@key_app.command("revoke")
def key_revoke(
    key: Annotated[str, typer.Argument(help="Public key, 64 hex digits.")], data: DataOption = None
) -> None:
    """End an API key: its sessions end at once, and everything that they placed is canceled.

    Example: `byline key revoke 64-HEX-DIGITS`
    """
    from byline.key_tools import revoke_key

    revoke_key(_settings(data), key)
    console.print("revoked")


@app.command()
def snapshot(data: DataOption = None) -> None:
    """Make the running core write a snapshot now, so that its next start has less to replay.

    Example: `byline snapshot`
    """
    from byline.operator import request_snapshot

    answer = request_snapshot(_settings(data))
    console.print(f"snapshot at sequence {answer['sequence']}: {answer['path']} ({answer['size_bytes']:,} bytes)")


@app.command()
def restart(
    name: Annotated[str, typer.Argument(help="As `byline status` names it: core, backup, backoffice, api …")],
    data: DataOption = None,
) -> None:
    """Start one process of the running exchange again, also one that stayed down. The others go on.

    A core that starts again pulls the orders of those who asked for that when their connection ends.

    Example: `byline restart backup`, after its disk is mounted again
    """
    from byline.operator import request_restart

    before = request_restart(_settings(data), name)
    console.print(f"{name} is started again (it was {before}); `byline status` shows when it is ready")


@feed_app.command("bitstamp")
def feed_bitstamp(
    data: DataOption = None,
    rate: Annotated[int, typer.Option(min=1, help="Commands a second, by the clock of the plan.")] = 10_000,
    accounts: Annotated[int, typer.Option(min=1, max=512, help="How many traders share the feed.")] = 32,
    limit: Annotated[Optional[int], typer.Option(min=1, help="Only the first N commands.")] = None,
    json_path: Annotated[Optional[Path], typer.Option("--json", help="Write the table here as JSON too.")] = None,
) -> None:
    """Replay 30 real minutes of Bitstamp BTC/USD, order by order, through the websocket order entry.

    The capture (2.9 MB) is downloaded when first asked for and checked by its digest. If no exchange runs on the data
    directory, one is started for the time of the feed.

    Example: `byline feed bitstamp --rate 20000`
    """
    from byline.feed.runner import run_feed

    settings = _settings(data)
    raise typer.Exit(
        run_feed(settings, console=console, rate=rate, accounts=accounts, limit=limit, json_path=json_path)
    )


@journal_app.command("verify")
def journal_verify(
    data: DataOption = None,
    replayed: Annotated[bool, typer.Option("--replay", help="Also replay it and compare every state hash.")] = False,
) -> None:
    """Read every record of the journal: checksum, hash chain, sequence, segment digests.

    The exchange must be stopped: the end of a running journal moves. Beside a running one verify what `byline restore`
    brings back of its backup. Exit status 0: all valid. 1: something differs, and where.

    Example: `byline journal verify --replay`
    """
    from byline.journal_tools import verify_journal

    raise typer.Exit(verify_journal(_settings(data), console=console, replay=replayed))


@journal_app.command("truncate")
def journal_truncate(
    to: Annotated[int, typer.Option(min=0, help="The last sequence that stays.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data: DataOption = None,
) -> None:
    """Cut the journal behind a sequence, when it is damaged there and no backup has more. What is cut is kept aside.

    The exchange must be stopped. Acknowledged commands behind the sequence are lost; docs/operations.md says when this
    is right. Refused where a sealed settlement batch lies behind the sequence.

    Example: `byline journal truncate --to 182734`
    """
    from byline.journal_tools import truncate_journal

    raise typer.Exit(truncate_journal(_settings(data), to, console=console, yes=yes))


@app.command()
def rebuild(data: DataOption = None) -> None:
    """Wipe the projections in PostgreSQL and write them anew from the journal: orders, trades, balances, candles.

    Beside a running exchange it shows the progress and ends when they are there again; without one it happens at the
    next start. Accounts, sessions and other people's data are not touched.

    Example: `byline rebuild`
    """
    from byline.rebuild import rebuild_projections

    rebuild_projections(_settings(data), console=console)


@app.command()
def restore(
    source: Annotated[str, typer.Option("--from", help="The backup: what BYLINE_BACKUP_URL was.")],
    data: DataOption = None,
    to: Annotated[Optional[str], typer.Option(help="Last sequence, or moment as 2026-11-21T20:15:00+00:00.")] = None,
    identity: Annotated[Optional[str], typer.Option(help="Of the journal, where the backup holds several.")] = None,
    replayed: Annotated[bool, typer.Option("--replay", help="Also replay it and tell the state hash.")] = False,
) -> None:
    """Bring a journal back from its backup into an empty data directory; checks every record, and tells its times.

    Keys and people's data are not in the backup: docs/operations.md says what to keep besides.

    Example: `byline restore --from s3://bucket/exchange --data /srv/byline --replay`
    """
    from byline.restore_tools import restore_directory

    settings = _settings(data)
    raise typer.Exit(
        restore_directory(
            source, settings.data_directory, to=to, identity=identity, replayed=replayed,
            embedded_chain=not settings.chain_url, console=console,
        )  # fmt: skip
    )


@people_app.command("grant")
def people_grant(
    who: Annotated[str, typer.Argument(help="Account id, user name, or address of a linked wallet.")],
    role: Annotated[str, typer.Argument(help="creator, studio, moderator, admin, operator, super_admin …")],
    data: DataOption = None,
    departments: Annotated[Optional[list[str]], typer.Option("--department", help="Narrows an admin.")] = None,
    take_away: Annotated[bool, typer.Option("--revoke", help="Take the role away instead.")] = False,
) -> None:
    """Grant an account a role. The only way to the first admin, and to super_admin; each use is audited.

    Example: `byline people grant 0x5f… admin --department users`
    """
    from byline.people import grant_role

    console.print(grant_role(_settings(data), who, role, departments or [], take_away=take_away))


@people_app.command("ban")
def people_ban(
    who: Annotated[str, typer.Argument(help="Account id, user name, or address of a linked wallet.")],
    reason: Annotated[str, typer.Option(help="Why, for the audit trail.")],
    data: DataOption = None,
) -> None:
    """Ban an account that staff have suspended, for good: nothing undoes it. Its money and its works stay its own.

    Example: `byline people ban 0x5f… --reason "Sold the works of others, three times."`
    """
    from byline.people import ban_account

    console.print(ban_account(_settings(data), who, reason))


@people_app.command("rotate-keys")
def people_rotate_keys(data: DataOption = None) -> None:
    """Add a key for sealed columns. It seals after the next start of the API, which then seals older values anew.

    Example: `byline people rotate-keys`
    """
    from byline.people import rotate_column_keys

    console.print(rotate_column_keys(_settings(data)))


@people_app.command("verify-audit")
def people_verify_audit(data: DataOption = None) -> None:
    """Check the chain of the audit trail. Exit status 1: an entry was changed or is missing.

    Example: `byline people verify-audit`
    """
    from byline.people import verify_audit

    sound, text = verify_audit(_settings(data))
    console.print(text)
    raise typer.Exit(0 if sound else 1)


@jobs_app.command("list")
def jobs_list(data: DataOption = None) -> None:
    """Jobs that failed as often as their queue allows, the oldest hundred, with their last errors.

    Example: `byline jobs list`
    """
    from byline.job_tools import failed_jobs

    console.print(failed_jobs(_settings(data)) or "no job has failed")


@jobs_app.command("requeue")
def jobs_requeue(
    ids: Annotated[Optional[list[int]], typer.Argument(help="Of `byline jobs list`; none: all that failed.")] = None,
    data: DataOption = None,
) -> None:
    """Run failed jobs again, with all their retries. A job may run twice: each is made for that.

    Example: `byline jobs requeue 4711`
    """
    from byline.job_tools import requeue

    console.print(requeue(_settings(data), ids or []))


@events_app.command("list")
def events_list(data: DataOption = None) -> None:
    """Events that a consumer failed with ten times, the oldest hundred, with their last errors.

    Example: `byline events list`
    """
    from byline.event_tools import given_up

    console.print(given_up(_settings(data)) or "no event was given up")


@events_app.command("requeue")
def events_requeue(
    ids: Annotated[Optional[list[UUID]], typer.Argument(help="Of `byline events list`; none: all of them.")] = None,
    data: DataOption = None,
) -> None:
    """Hand events over again, to the consumers that have not taken them.

    Example: `byline events requeue 0197e7a2-5b7c-7c3e-9f0a-3f3c2b1a0d4e`
    """
    from byline.event_tools import hand_over

    console.print(hand_over(_settings(data), ids or []))


@money_app.command("list")
def money_list(data: DataOption = None) -> None:
    """Commands of money that are stuck, the oldest hundred: what each wants, and what the core shows under its ref.

    Example: `byline money list`
    """
    from byline.money_tools import stuck

    for line in stuck(_settings(data)) or ["no command of money is stuck"]:
        console.print(line, soft_wrap=True, markup=False)


@money_app.command("resolve")
def money_resolve(
    ref: Annotated[str, typer.Argument(help="Of `byline money list`.")],
    decision: Annotated[Decided, typer.Option("--as", help="What became of it, by what the core shows.")],
    reason: Annotated[str, typer.Option(help="Why, for the audit trail.")],
    data: DataOption = None,
) -> None:
    """Decide what became of a stuck command of money. What the core shows otherwise is refused; no money moves by it.

    Example: `byline money resolve buy:0197e7a25b7c7c3e9f0a3f3c2b1a0d4e --as posted --reason "restored from a copy"`
    """
    from byline.money_tools import resolve

    console.print(resolve(_settings(data), ref, decision.value, reason))


@journal_app.command("publish")
def journal_publish(
    folder: Annotated[Path, typer.Argument(help="Where; a publication that is there already is gone on with.")],
    data: DataOption = None,
) -> None:
    """Write the journal of all final batches without names, so that anyone can run it again.

    Works beside a running exchange. Each batch is replayed and compared before it is written; the next batch that is
    sealed vouches for the whole publication on the chain.

    Example: `byline journal publish /srv/published`
    """
    from byline.journal_publication import publish_journal

    raise typer.Exit(publish_journal(_settings(data), folder, console=console))


@verify_app.command("journal")
def verify_journal(
    folder: Annotated[Path, typer.Argument(help="A published journal.", exists=True, file_okay=False)],
    node: Annotated[Optional[str], typer.Option(help="A Sui node that you trust, http(s)://HOST:PORT.")] = None,
) -> None:
    """Run a published journal again and compare every state hash, trade, total and liability root.

    Needs no exchange, no database and no account. With a node the last batch, and by it all before, is held against
    the chain.

    Example: `byline verify journal published --node http://127.0.0.1:7403`
    """
    from byline.journal_publication import verify_published

    raise typer.Exit(verify_published(folder, node, console=console))


@settle_app.command("publish")
def settle_publish(
    yes: Annotated[bool, typer.Option("--yes", help="Also where the key operates a package already.")] = False,
    data: DataOption = None,
) -> None:
    """Publish the exchange's Move package. Its publisher gets AdminCap, OperatorCap and UpgradeCap.

    The embedded chain has the package from its beginning. A second package of the same key is asked for first; vaults
    that are open stay with the package that they were opened with.

    Example: `BYLINE_CHAIN_URL=https://fullnode.testnet.sui.io:443 byline settle publish`
    """
    from byline.settle import publish

    publish(_settings(data), console, yes=yes)


@settle_app.command("open-vault")
def settle_open_vault(
    assets: Annotated[list[str], typer.Argument(help="Names of assets, as USDC.")], data: DataOption = None
) -> None:
    """Open the vault of each asset that has none yet, before anybody pays in. The exchange must be stopped.

    The embedded chain's node is run for as long as this takes.

    A running exchange opens what is missing by itself, at the first batch with the asset.

    Example: `byline settle open-vault USDC INK`
    """
    from byline.settle import open_vaults

    open_vaults(_settings(data), console, assets)


@settle_app.command("mend-log")
def settle_mend_log(data: DataOption = None) -> None:
    """Cut off the torn ends that a crash left behind settlement's logs. The exchange must be stopped.

    The back office does the same when it starts. This is for when it does not: `byline journal truncate` must know the
    last batch, and reads no log that has such an end. What is cut off was never acted upon.

    Example: `byline settle mend-log`, then `byline journal truncate --to N`
    """
    from byline.settle import mend_logs

    mend_logs(_settings(data), console)


@settle_app.command("rotate")
def settle_rotate(
    to: Annotated[Optional[str], typer.Option(help="Sui address of the new operator; left out: the same key.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask where the address is not our key's.")] = False,
    data: DataOption = None,
) -> None:
    """Make a new operator capability and have every vault name it: the old one is worth nothing from then on.

    Needs the AdminCap. Do it when the operator's key may be known to others, and at fixed times. Batches in flight
    are signed anew by the new key.

    Example: `byline settle rotate --to 0x…`
    """
    from byline.settle import rotate

    rotate(_settings(data), console, to, yes=yes)


@settle_app.command("pause")
def settle_pause(
    off: Annotated[bool, typer.Option("--off", help="Let the operator work again.")] = False, data: DataOption = None
) -> None:
    """Stop the operator in every vault: no batch, no withdrawal. Owners can still pay in and exit.

    Needs the AdminCap. Trading goes on, batches queue, and go out in order after `--off`.

    Example: `byline settle pause`, later `byline settle pause --off`
    """
    from byline.settle import pause

    pause(_settings(data), console, not off)


@settle_app.command("status")
def settle_status(data: DataOption = None) -> None:
    """Show where settlement and the vaults stand. Exit status 1 if settlement is halted or does not run.

    Example: `byline settle status`
    """
    from byline.settle import show

    raise typer.Exit(0 if show(_settings(data), console) else 1)


@settle_app.command("resume")
def settle_resume(
    note: Annotated[str, typer.Option(help="What was found; it is kept in settlement's log.")], data: DataOption = None
) -> None:
    """End a halt after its cause was found: everything is checked again, and halts again if it is still so.

    Nothing is skipped and no number is changed. docs/settlement.md has a runbook for each halt.

    Example: `byline settle resume --note "node restored from its own log"`
    """
    from byline.settle import resume

    resume(_settings(data), console, note)


@app.command()
def proof(
    account: Annotated[str, typer.Argument(help="As `byline trader` prints it: user:alice.")],
    batch: Annotated[Optional[int], typer.Option(min=1, help="Left out: the last one that is final.")] = None,
    to: Annotated[Path, typer.Option(help="Folder for proof.json and batch.json.", file_okay=False)] = Path("."),
    data: DataOption = None,
) -> None:
    """Write the proof that an account's balances are counted in a settled batch, and the batch, for `byline verify`.

    For the operator, on the machine of the running exchange. Users ask for theirs with
    `GET /v1/users/me/proof?batch=N` and `GET /v1/settlement/batches/N`.

    Example: `byline proof user:alice`
    """
    from byline.proof_tools import write_proof

    write_proof(_settings(data), account, batch, to, console=console)


@verify_app.command("batch")
def verify_batch(
    proof: Annotated[Path, typer.Argument(help="From GET /v1/users/me/proof.", exists=True, dir_okay=False)],
    batch: Annotated[Path, typer.Argument(help="From GET /v1/settlement/batches/N.", exists=True, dir_okay=False)],
    node: Annotated[str, typer.Option(help="A Sui node that you trust, http(s)://HOST:PORT.")],
    previous: Annotated[
        Optional[Path], typer.Option(help="The file of the batch before, to check the link.", exists=True)
    ] = None,
) -> None:
    """Check that a balance is counted in a batch, and the batch against the chain.

    Needs no exchange, no database and no account: two files and a node. Exit status 0: all holds. 1: something
    does not, and what.

    Example: `byline verify proof.json batch.json --node http://127.0.0.1:7403`
    """
    from byline.verify_tools import verify_files

    raise typer.Exit(verify_files(proof, batch, previous, node, console=console))


@app.command()
def marketdata(
    data: DataOption = None,
    events: Annotated[Optional[str], typer.Option(help="nats://host:port of a relay; else the event log.")] = None,
) -> None:
    """Run one more market data process, on this host or on another one that a relay reaches, until Ctrl-C.

    Example: `byline marketdata --data /srv/feed --events nats://core-host:4222`
    """
    from byline.processes.entry import run_process

    settings = _settings(data, events_url=events)
    settings.data_directory.mkdir(parents=True, exist_ok=True)
    raise typer.Exit(run_process("marketdata", settings))


@app.command(hidden=True)
def process(name: Annotated[str, typer.Argument()]) -> None:
    """Run one process of the exchange; the supervisor calls this."""
    from byline.processes.entry import run_process

    raise typer.Exit(run_process(name, load_settings()))


def main() -> None:
    """Entry point. An expected error is one line on standard error and status 2, never a traceback."""
    if not __debug__:
        print(
            "byline: Python runs without assertions (-O, or PYTHONOPTIMIZE is set), and they guard the books: unset it",
            file=sys.stderr,
        )
        raise SystemExit(2)
    try:
        app()
    except (ExchangeError, OSError) as error:
        print(f"byline: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
