"""The platform's REST of a whole exchange, as `byline up` starts it, over a catalogue of a grown platform: answers by
the clock beside a route that does nothing, search, writes with purchases, payments and refunds among them, a licence
paid and split twelve ways until it is final on the chain, and how late the event loop woke meanwhile.

Every answer is checked by what was asked; what was written is read again at the end, and everybody's balance is what
the load moved, to the last unit.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote
from uuid import uuid4

import asyncpg
import uvloop

from bench.api_catalogue import Catalogue, Sizes, chapter_text, fill, sell_much
from bench.api_load import Connection, Request, Timed, drive
from bench.api_people import Person, join
from bench.harness import Row, WrongResult, median, unjudged
from byline.settings import Settings
from byline.up import Exchange

__all__ = ["LEFT_OUT", "MIX", "run"]

LEFT_OUT = "a network, TLS, rate limits; the catalogue was written by SQL, without events and files; no other load"
MIX = (
    "reads: works by id 26 %, lists of works 14 %, half of them by several filters, creators 12 %, chapters and offers "
    "10 %, licence codes 10 %, availability 8 %, search 8 %, half of it with filters, what is owed for many sales 2 %; "
    "writes 10 %: of these drafts, edits, chapters, follows 60 %, purchases from a balance 20 %, half of them "
    "twelve buyers of one work at once, payment intents and their payments 15 %, refunds of purchases 5 %"
)
FULL, SMOKE = Sizes(10_000, 100_000, 50_000), Sizes(50, 400, 100)
CONNECTIONS, PER_SECOND = 32, 500
READ_MS, WRITE_MS, SEARCH_MS, FINAL_S = 50.0, 150.0, 100.0, 15.0
ON_TIME = 0.99
"""The share of wake-ups of the event loop that come at most LATE_S late: work that blocks it would show there."""
LATE_S = 0.05
TOP_UP = Decimal(25)
MONEY = ("purchase", "bestseller", "payment", "refund")
PAYEES = 12
WRITES = ("refund",) * 12 + ("purchase",) * 24 + ("bestseller",) * 2 + ("payment",) * 36 + ("work",) * 144
"""In any order, `bestseller` for as many purchases at once as there are people. Judged among all writes: of twelve at
once the last waits for the others by itself."""
WRITE_COUNT = len(WRITES) + WRITES.count("bestseller") * (PAYEES - 1)
WRITES_PERCENT = 10
FEE = Decimal("12.01")
FILE_BYTES = 64 * 2**20
PATIENCE_S = 120.0
CHAPTER = "The letter was heavier than it looked, and the road was longer than the map. " * 4
_LAG = re.compile(r'^event_loop_lag_seconds_bucket\{le="([^"]+)"\} ([0-9.e+]+)$', re.MULTILINE)


def run(
    smoke: bool,
    seed: int,
    seconds: Annotated[float | None, "How long the load lasts, in seconds; 60 if not given."] = None,
) -> list[Row]:
    """One exchange, one catalogue, all rows."""
    with tempfile.TemporaryDirectory(prefix="byline-bench-") as folder:
        Path(folder).chmod(0o711)  # an embedded PostgreSQL under another uid must pass
        settings = Settings(
            Path(folder) / "data", api_port=0, gateway_port=0, marketdata_port=0, chain_port=0, quiet_market=True,
            batch_interval_s=1.0 if smoke else 10.0, api_public_per_minute=0, api_account_per_minute=0,
            unproved_per_day=10_000_000, api_trading_per_minute=0, api_auth_per_minute=0, api_catalogue_per_hour=0,
            seed=seed % 2**32,
        )  # fmt: skip
        rows = uvloop.run(_measure(settings, SMOKE if smoke else FULL, seconds or (3 if smoke else 60), smoke))
    return unjudged(rows) if smoke else rows


async def _measure(settings: Settings, sizes: Sizes, seconds: float, smoke: bool) -> list[Row]:
    exchange = Exchange(settings)
    async with exchange, AsyncExitStack() as stack:
        catalogue = await fill(exchange.database_url(), sizes, settings.seed)
        port = int(exchange.status("api")["port"])
        open_ = [Connection(settings.host, port) for _ in range(CONNECTIONS)]
        connections = [await stack.enter_async_context(connection) for connection in open_]
        first = connections[0]
        people = [await join(settings, first, f"Ink {number}", "creator") for number in range(PAYEES)]
        staff = await join(settings, first, "Staff", "admin")
        given = [await _faucet(first, person) for person in people]
        rng = random.Random(settings.seed)
        count = int(seconds * PER_SECOND)
        bare = await drive(connections, itertools.repeat(_bare(), count // 4), PER_SECOND)
        seller = await join(settings, first, "Bestseller", "creator")
        owed = Decimal(await sell_much(exchange.database_url(), seller.account_id, 2 * sizes.licences)).scaleb(-6)
        load = _Load(catalogue, people, staff, rng, seller, owed)
        refunds = count * WRITES_PERCENT // 100 * WRITES.count("refund") // WRITE_COUNT
        await load.to_give_back(connections, refunds + PAYEES, exchange.database_url())
        before, busy = await _lag(first), _busy_s(exchange)
        timed = await drive(connections, itertools.islice(load.requests(), count), PER_SECOND)
        spent_ms = {name: (now - busy[name]) * 1e3 / count for name, now in _busy_s(exchange).items()}
        after = await _lag(first)
        await load.read_again(first)
        moved = await load.balances_again(first, given)
        rows = _answers(bare, timed)
        rows += [Row("the load", f"{what}, by the books at its end", value, unit) for what, value, unit in moved]
        rows += [Row("the load", f"CPU of {name} a request", value, "ms") for name, value in spent_ms.items()]
        rows += _lag_rows("the load", before, after)
        rows += await _uploads(connections, people[0], 1 if smoke else 4, smoke)
        rows += await _purchases(settings, first, people, 1 if smoke else 5, rng)
        failed = [child.name for child in exchange.supervisor.failed()]
    if failed:
        raise WrongResult(f"processes died under the load: {failed}")
    return rows


# ---------------------------------------------------------------- the mix


def _bare() -> Request:
    def check(data: Any) -> None:
        if not data["time"]:
            raise WrongResult("a time without a time")

    return Request("bare", "GET", "/v1/time", check)


async def _faucet(connection: Connection, person: Person) -> Decimal:
    """What the faucet gave of USDC."""
    (deposit,) = await connection.data("POST", "/v1/faucet", {"assets": ["USDC"]}, person.headers)
    return Decimal(deposit["amount"])


@dataclass(frozen=True, slots=True)
class _Bought:
    id: str
    buyer: int
    price: Decimal


@dataclass
class _Load:
    """Draws the requests of MIX. `seller` has sold much, and nothing meanwhile: they are owed `owed` USDC. `_made` are
    the works that the writes made, with the title each has last."""

    catalogue: Catalogue
    people: list[Person]
    staff: Person
    rng: random.Random
    seller: Person
    owed: Decimal

    def __post_init__(self) -> None:
        self._made: dict[str, tuple[str, Person]] = {}
        sold = list(range(len(self.catalogue.works)))
        self.rng.shuffle(sold)
        self._for_sale = iter(sold)
        self._writes = self._write_kinds()
        self._crowd: list[tuple[int, int]] = []
        self._bought: list[_Bought] = []
        self._returns: list[_Bought] = []
        self._unpaid: list[tuple[str, str, int]] = []
        self._spent = [Decimal(0)] * len(self.people)
        self._paid_in = [Decimal(0)] * len(self.people)
        self._refunded: list[_Bought] = []

    def requests(self) -> Iterator[Request]:
        reads: list[tuple[float, Callable[[], Request]]] = [
            (26, self._work), (14, self._list), (12, self._creator), (10, self._parts), (10, self._code),
            (8, self._availability), (8, self._search), (2, self._owed),
            (WRITES_PERCENT * len(WRITES) / WRITE_COUNT, self._write),
        ]  # fmt: skip
        kinds, weights = [kind for _, kind in reads], [weight for weight, _ in reads]
        while True:
            yield self.rng.choices(kinds, weights)[0]()
            while self._crowd:
                yield self._purchase("bestseller", *self._crowd.pop())

    async def to_give_back(self, connections: list[Connection], count: int, dsn: str) -> None:
        """Buys what the refunds of the load give back, and waits until each sale has been divided."""
        purchases = (
            self._purchase("purchase", number % len(self.people), next(self._for_sale)) for number in range(count)
        )
        await drive(connections, purchases, PER_SECOND)
        self._returns, self._bought = self._bought, []
        db = await asyncpg.connect(dsn)
        try:
            await _until(lambda: _all_divided(db), "the sales before the load were not divided")
        finally:
            await db.close()

    async def read_again(self, connection: Connection) -> None:
        """Every work that was made has the title that it was given last."""
        for id_, (title, person) in self._made.items():
            found = await connection.data("GET", f"/v1/works/{id_}", headers=person.headers)
            if found["title"] != title:
                raise WrongResult(f"work {id_} has the title {found['title']!r}, last written was {title!r}")
        if not self._made:
            raise WrongResult("the load wrote nothing")

    async def balances_again(self, connection: Connection, given: list[Decimal]) -> list[tuple[str, float, str]]:
        """Everybody has what the faucet gave, with what was paid in and given back, without what was spent.
        Counts of what was moved."""
        for number, person in enumerate(self.people):
            expected = given[number] + self._paid_in[number] - self._spent[number]
            await _until(
                lambda: _has(connection, person, expected),  # noqa: B023
                f"account {person.account_id} did not come to {expected} USDC",
            )
        for bought in self._refunded:
            found = await connection.data("GET", f"/v1/purchases/{bought.id}", None, self.people[bought.buyer].headers)
            if found["status"] != "refunded" or Decimal(found["refunded"]) != bought.price:
                raise WrongResult(f"a purchase that was given back is {found}")
        for bought in [*self._bought, *self._returns]:
            found = await connection.data("GET", f"/v1/purchases/{bought.id}", None, self.people[bought.buyer].headers)
            if found["status"] != "completed" or Decimal(found["refunded"]):
                raise WrongResult(f"a purchase is {found}")
        counts = {"purchases": len(self._bought), "refunds": len(self._refunded)}
        if not all(counts.values()) or not any(self._paid_in):
            raise WrongResult(f"the load moved no money: {counts}, paid in {self._paid_in}")
        return [(what, float(count), "count") for what, count in counts.items()]

    def _read(
        self, name: str, path: str, holds: Callable[[Any], bool], headers: dict[str, str] | None = None
    ) -> Request:
        def check(data: Any) -> None:
            if not holds(data):
                raise WrongResult(f"GET {path} gave {str(data)[:300]}")

        return Request(name, "GET", path, check, None, headers)

    def _any(self) -> int:
        return self.rng.randrange(len(self.catalogue.works))

    def _work(self) -> Request:
        number = self._any()
        id_, title = self.catalogue.works[number], self.catalogue.titles[number]
        return self._read("read", f"/v1/works/{id_}", lambda data: (data["id"], data["title"]) == (id_, title))

    def _list(self) -> Request:
        """By one filter, or by several that fit many works together, a few, or none, though each fits many."""
        sort = self.rng.choice(["newest", "oldest", "title"])
        if self.rng.random() < 0.5:
            filters = self.rng.choice(
                ["", "kind=story", "category=film", "genre=drama",
                 f"creator_id={self.rng.choice(self.catalogue.creators)}"]
            )  # fmt: skip
            return self._read("read", f"/v1/works?limit=20&sort={sort}&{filters}", lambda data: 1 <= len(data) <= 20)
        filters, least, most = self.rng.choice(
            [("kind=story&category=literature&genre=drama", 20, 20), ("kind=film&category=art&genre=thriller", 0, 0),
             ("category=music&genre=poetry", 0, 0), ("kind=story&price_min=49.5", 0, 20),
             (f"kind=story&tag={self.rng.choice(self.catalogue.words)}", 0, 20)]
        )  # fmt: skip
        return self._read("read", f"/v1/works?limit=20&sort={sort}&{filters}", lambda data: least <= len(data) <= most)

    def _creator(self) -> Request:
        if self.rng.random() < 0.3:
            path = f"/v1/creators?limit=20&sort={self.rng.choice(['newest', 'followers', 'trending', 'name'])}"
            return self._read("read", path, lambda data: len(data) == 20)
        id_ = self.rng.choice(self.catalogue.creators)
        return self._read("read", f"/v1/creators/{id_}", lambda data: data["id"] == id_)

    def _parts(self) -> Request:
        number, draw = self._any(), self.rng.random()
        inside, offer = f"/v1/works/{self.catalogue.works[number]}", self.catalogue.offers[number].id
        chapter = self.catalogue.chapters[number]
        if draw < 0.4:
            return self._read("read", f"{inside}/offers", lambda data: [each["id"] for each in data] == [offer])
        if draw < 0.7:
            return self._read("read", f"{inside}/chapters", lambda data: [each["id"] for each in data] == [chapter])
        body = chapter_text(number) if number % 2 == 0 else None  # the others are to be bought
        return self._read("read", f"{inside}/chapters/{chapter}", lambda data: data["body"] == body)

    def _code(self) -> Request:
        code = self.rng.choice(self.catalogue.codes)
        return self._read("read", f"/v1/authorizations/{code}", lambda data: data["valid"] and data["code"] == code)

    def _availability(self) -> Request:
        id_ = self.rng.choice(self.catalogue.windowed)

        def holds(data: Any) -> bool:
            return data["work_id"] == id_ and data["available"] and len(data["openings"]) == 1

        return self._read("read", f"/v1/availability/{id_}?territory=PG", holds)

    def _search(self) -> Request:
        """A word that some title has, its beginning, or two words; or, among filters, what costs most: words that
        nearly all works have, one after the other, a letter, or a word with what few or no works are."""
        if self.rng.random() < 0.5:
            title = self.catalogue.titles[self._any()].lower().split()
            text = self.rng.choice([title[0], title[-1][:4], f"{title[0]} {title[1]}"])
            return self._found(text, "", 1, 20)
        first, second = self.catalogue.words[1:3]  # the most common, as they are drawn
        text, filters, least, most = self.rng.choice(
            [(f'"{first} {second}"', "kind=film", 0, 20), (first[0], "kind=film&category=art", 0, 20),
             (first, "kind=audio&genre=poetry", 0, 0), (first[0], "kind=film&category=film&genre=mystery", 0, 0),
             (f"{first} {self.rng.choice(self.catalogue.words)}", "genre=thriller", 0, 20),
             (self.rng.choice(self.catalogue.words), f"tag={first}&language=en", 0, 20)]
        )  # fmt: skip
        return self._found(text, filters, least, most)

    def _found(self, text: str, filters: str, least: int, most: int) -> Request:
        path = f"/v1/works/search?q={quote(text)}&limit=20&{filters}"
        return self._read("search", path, lambda data: least <= len(data) <= most)

    def _owed(self) -> Request:
        def holds(data: Any) -> bool:
            (row,) = data
            return Decimal(row["payable"]) + Decimal(row["held"]) == self.owed and Decimal(row["held"]) > 0

        return self._read("read", "/v1/royalties/balance", holds, self.seller.headers)

    def _write_kinds(self) -> Iterator[str]:
        yield "bestseller"  # one at least, however short the load
        while True:
            yield from self.rng.sample(WRITES, len(WRITES))

    def _write(self) -> Request:
        kind, number = next(self._writes), self.rng.randrange(len(self.people))
        if kind == "refund" and self._returns:
            return self._refund(self._returns.pop())
        if kind == "payment":
            return self._pay(*self._unpaid.pop()) if self._unpaid else self._intent(number)
        if kind == "purchase":
            return self._purchase(kind, number, next(self._for_sale))
        if kind == "bestseller":
            sold = next(self._for_sale)
            self._crowd = [(buyer, sold) for buyer in range(len(self.people))]
            return self._purchase(kind, *self._crowd.pop())
        return self._of_works(self.people[number])

    def _of_works(self, person: Person) -> Request:
        draw = self.rng.random()
        made = self.rng.choice(list(self._made.items())) if self._made else None
        if made is None or draw < 0.4:
            return self._draft(person)
        id_, (_, owner) = made
        if draw < 0.65:
            return self._edit(id_, owner)
        if draw < 0.85:
            return self._chapter(id_, owner)
        return self._follow(person)

    def _purchase(self, name: str, buyer: int, number: int) -> Request:
        """From the balance: the answer comes when the core has moved the money."""
        work, offer = self.catalogue.works[number], self.catalogue.offers[number]
        price = Decimal(offer.price_units).scaleb(-6)
        self._spent[buyer] += price

        def check(data: Any) -> None:
            said = data["offer_id"], data["work_id"], data["status"], Decimal(data["price"])
            if said != (offer.id, work, "completed", price):
                raise WrongResult(f"a purchase came back as {data}")
            self._bought.append(_Bought(data["id"], buyer, price))

        body = {"offer_id": offer.id, "method": "balance", "price": f"{price:f}"}
        return Request(name, "POST", "/v1/purchases", check, body, self.people[buyer].once())

    def _intent(self, payer: int) -> Request:
        def check(data: Any) -> None:
            if (data["status"], Decimal(data["amount"])) != ("requires_payment", TOP_UP):
                raise WrongResult(f"an intent came back as {data}")
            self._unpaid.append((data["provider_ref"], data["client_secret"], payer))

        body = {"asset": "USDC", "amount": str(TOP_UP)}
        return Request("payment", "POST", "/v1/payments/intents", check, body, self.people[payer].once())

    def _pay(self, ref: str, secret: str, payer: int) -> Request:
        """At the provider, whose signed events bring the money."""

        def check(data: Any) -> None:
            if data["status"] != "succeeded":
                raise WrongResult(f"a payment came back as {data}")
            self._paid_in[payer] += TOP_UP

        body = {"intent": ref, "client_secret": secret}
        return Request("payment", "POST", "/v1/test-provider/payments", check, body)

    def _refund(self, bought: _Bought) -> Request:
        self._spent[bought.buyer] -= bought.price

        def check(data: Any) -> None:
            if (data["purchase_id"], data["status"], Decimal(data["amount"])) != (bought.id, "succeeded", bought.price):
                raise WrongResult(f"a refund came back as {data}")
            self._refunded.append(bought)

        return Request("refund", "POST", f"/v1/purchases/{bought.id}/refund", check, {}, self.staff.once())

    def _draft(self, person: Person) -> Request:
        title = f"Draft {uuid4().hex[:12]}"

        def check(data: Any) -> None:
            if (data["title"], data["status"]) != (title, "draft"):
                raise WrongResult(f"a draft came back as {data}")
            self._made[data["id"]] = title, person

        return Request("write", "POST", "/v1/works", check, {"kind": "story", "title": title}, person.headers)

    def _edit(self, id_: str, owner: Person) -> Request:
        tag = uuid4().hex[:12]

        def check(data: Any) -> None:
            if data["tags"] != [tag]:
                raise WrongResult(f"an edit came back as {data}")

        return Request("write", "PATCH", f"/v1/works/{id_}", check, {"tags": [tag]}, owner.headers)

    def _chapter(self, id_: str, owner: Person) -> Request:
        def check(data: Any) -> None:
            if data["title"] != "One":
                raise WrongResult(f"a chapter came back as {data}")

        body = {"title": "One", "body": CHAPTER}
        return Request("write", "POST", f"/v1/works/{id_}/chapters", check, body, owner.headers)

    def _follow(self, person: Person) -> Request:
        path = f"/v1/creators/{self.rng.choice(self.catalogue.creators)}/follow"
        return Request("write", "POST", path, lambda data: None, None, person.headers)


def _percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def _answers(bare: list[Timed], timed: list[Timed]) -> list[Row]:
    case = f"{CONNECTIONS} connections, {PER_SECOND} requests/s by the clock"
    floor = [one.milliseconds for one in bare]
    rows = [Row(f"{case}: a route that does nothing", "p95", _percentile(floor, 0.95), "ms")]
    kinds: list[tuple[str, tuple[str, ...], float | None]] = [
        ("read", ("read",), READ_MS), ("write", ("write", *MONEY), WRITE_MS), ("search", ("search",), SEARCH_MS),
        *((name, (name,), None if name == "bestseller" else WRITE_MS) for name in MONEY),
    ]  # fmt: skip
    for name, names, must in kinds:
        found = [one.milliseconds for one in timed if one.name in names]
        for share, judged in ((0.5, None), (0.95, must), (0.99, None)):
            value, base = _percentile(found, share), _percentile(floor, share)
            rows.append(Row(f"{case}: {name}", f"p{share * 100:.0f}", value, "ms", base, value / base, judged))
    return rows


def _busy_s(exchange: Exchange) -> dict[str, float]:
    """CPU time so far of the API's process, and of PostgreSQL's processes together."""
    parents: dict[int, int] = {}
    spent: dict[int, float] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended meanwhile; its parent has its time
            fields = path.read_text().rpartition(")")[2].split()
            parents[int(path.parent.name)] = int(fields[1])
            spent[int(path.parent.name)] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    def below(pid: int) -> float:
        return spent[pid] + sum(below(child) for child, parent in parents.items() if parent == pid)

    names = {"the API": "api", "PostgreSQL": "postgres"}
    return {name: below(int(exchange.status(process)["pid"])) for name, process in names.items()}


# ---------------------------------------------------------------- the event loop


async def _lag(connection: Connection) -> Mapping[float, float]:
    """Wake-ups of the API's event loop by how late they were: at most so many seconds → how many."""
    status, text = await connection.send("GET", "/metrics")
    found = {float(bound): float(count) for bound, count in _LAG.findall(text.decode())}
    if status != 200 or not found:
        raise WrongResult("/metrics has no histogram of the event loop's lag")
    return found


def _lag_rows(case: str, before: Mapping[float, float], after: Mapping[float, float]) -> list[Row]:
    """Shares of wake-ups that came at most so late."""
    total = after[float("inf")] - before[float("inf")]
    if not total:
        raise WrongResult("the event loop did not wake")
    shares = {bound: (after[bound] - before[bound]) / total for bound in (0.005, 0.02, LATE_S)}
    return [
        Row(f"event loop under {case}", f"wake-ups at most {bound * 1000:.0f} ms late", share, "x",
            must=ON_TIME if bound == LATE_S else None)
        for bound, share in shares.items()
    ]  # fmt: skip


async def _uploads(connections: list[Connection], person: Person, files: int, smoke: bool) -> list[Row]:
    """Files hashed while others read: their parts, and the whole file when they are put together."""
    size = 2**20 if smoke else FILE_BYTES
    content = random.Random(size).randbytes(size)
    before = await _lag(connections[-1])
    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for connection in connections[:files]:
            group.create_task(_upload(connection, person, content))
    elapsed = time.perf_counter() - started
    after = await _lag(connections[-1])
    rate = files * size / 2**20 / elapsed
    case = f"{files} uploads of {size // 2**20} MiB at once"
    return [Row(case, "received, hashed, checked", rate, "MiB/s"), *_lag_rows(case, before, after)]


async def _upload(connection: Connection, person: Person, content: bytes) -> None:
    body = {"name": "master.bin", "content_type": "audio/flac", "size_bytes": len(content)}
    content = b"fLaC" + content[4:]
    upload = await connection.data("POST", "/v1/uploads", body, person.headers)
    path, part = f"/v1/uploads/{upload['id']}", int(upload["part_bytes"])
    headers = {**person.headers, "content-type": "application/octet-stream"}
    for number, at in enumerate(range(0, len(content), part), 1):
        await connection.data("PUT", f"{path}/parts/{number}", content[at : at + part], headers)
    await connection.data("POST", f"{path}/complete", None, person.headers)

    async def state() -> Any:
        found = await connection.data("GET", path, None, person.headers)
        return found if found["status"] != "scanning" else None

    found = await _until(state, "an upload was not checked")
    if found["status"] != "ready" or found["file"]["size_bytes"] != len(content):
        raise WrongResult(f"an upload ended as {found}")


async def _all_divided(db: Any) -> bool:
    return not await db.fetchval("SELECT EXISTS (SELECT FROM royalties.distribution WHERE status = 'pending')")


async def _has(connection: Connection, person: Person, amount: Decimal) -> bool:
    balances = await connection.data("GET", "/v1/users/me/balances", None, person.headers)
    return any(row["asset"] == "USDC" and Decimal(row["total"]) == amount for row in balances)


async def _until(ask: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (found := await ask()):
        if time.monotonic() > deadline:
            raise WrongResult(f"{what} in {PATIENCE_S:.0f} s")
        await asyncio.sleep(0.02)
    return found


# ---------------------------------------------------------------- a licence paid


async def _purchases(
    settings: Settings, connection: Connection, people: list[Person], count: int, rng: random.Random
) -> list[Row]:
    """From asking to pay a fee until its twelve shares are final on the chain, at random moments of a batch."""
    studio = await join(settings, connection, "Studio", "studio")
    await _faucet(connection, studio)
    work = await _split_work(connection, people)
    active_s: list[float] = []
    final_s: list[float] = []
    for _ in range(count):
        await asyncio.sleep(rng.uniform(0, settings.batch_interval_s))
        terms = {
            "license_type": "standard", "base_fee": str(FEE), "territories": ["PG"], "duration": "P1D",
            "scope": ["adapt"], "revenue_share_bps": 0, "auto_approve": True,
        }  # fmt: skip
        made = await connection.data("POST", f"/v1/works/{work}/license-terms", terms, people[0].headers)
        applied = await connection.data("POST", "/v1/license-applications", {"terms_id": made["id"]}, studio.once())
        started = time.perf_counter()
        path = f"/v1/licenses/{applied['license_id']}"
        await connection.data("POST", f"{path}/pay", None, studio.once())
        await _until(lambda: _active(connection, studio, path), "a paid licence was not active")  # noqa: B023
        active_s.append(time.perf_counter() - started)
        number = len(final_s) + 1
        await _until(lambda: _final(connection, people[0], work, number), "its shares were not final")  # noqa: B023
        final_s.append(time.perf_counter() - started)
    case = f"a licence of {FEE} USDC split {PAYEES} ways, batches of {settings.batch_interval_s:g} s"
    return [
        Row(case, "paid to active, median", median(active_s), "s"),
        Row(case, "paid to final on the embedded chain, median", median(final_s), "s"),
        Row(case, "paid to final on the embedded chain, worst", max(final_s), "s", must=FINAL_S),
    ]


async def _split_work(connection: Connection, people: list[Person]) -> str:
    """A published story whose twelve makers have agreed on their shares."""
    owner = people[0]
    work = await connection.data("POST", "/v1/works", {"kind": "story", "title": "Twelve"}, owner.headers)
    inside = f"/v1/works/{work['id']}"
    body = {"title": "One", "body": CHAPTER}
    chapter = await connection.data("POST", f"{inside}/chapters", body, owner.headers)
    await connection.data("POST", f"/v1/chapters/{chapter['id']}/publish", None, owner.headers)
    await connection.data("POST", f"{inside}/publish", None, owner.headers)
    shares = [10_000 - 833 * (PAYEES - 1)] + [833] * (PAYEES - 1)
    lines = [
        {"account_id": person.account_id, "role": "collaborator", "bps": bps}
        for person, bps in zip(people, shares, strict=True)
    ]
    rule = await connection.data("PUT", f"{inside}/royalty-rules", {"lines": lines}, owner.headers)
    for person in people:
        if person.account_id in rule["waits_for"]:
            agreed = {"rule_id": rule["id"], "agree": True}
            last = await connection.data("POST", f"{inside}/royalty-rules/consent", agreed, person.headers)
    if last["status"] != "effective":
        raise WrongResult(f"the rule of shares is {last}")
    return str(work["id"])


async def _active(connection: Connection, studio: Person, path: str) -> bool:
    found = await connection.data("GET", path, None, studio.headers)
    return bool(found["status"] == "active")


async def _final(connection: Connection, owner: Person, work: str, count: int) -> bool:
    """Whether the last of `count` distributions has a digest at each line. Raises WrongResult of a wrong split."""
    found = (await connection.data("GET", f"/v1/royalties/works/{work}", None, owner.headers))["distributions"]
    if len(found) < count or found[0]["status"] != "posted":
        return False
    lines = found[0]["lines"]
    if sum(Decimal(line["amount"]) for line in lines) != FEE or len(lines) != PAYEES + 1:
        raise WrongResult(f"{FEE} was split into {lines}")
    return all(line["digests"] for line in lines)
