"""Outbox, relay, jobs, audit chain, idempotency and sealed columns, each over a real PostgreSQL."""

import asyncio
import hashlib
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import msgspec
import pytest

from byline.event_tools import given_up, hand_over
from byline.job_tools import failed_jobs, requeue
from byline.settings import load_settings
from engine.messages.errors import OutcomeUnknown, SettingsInvalid, Unavailable
from persistence.stores.postgres import migrate as migrations
from platform_api.errors import ApiError
from platform_api.idempotency import Idempotency
from platform_api.identity.people import TOKEN_EMAIL
from platform_api.kernel.audit import seal_entries, verify_chain
from platform_api.kernel.events import Events
from platform_api.kernel.jobs import QUEUES, Jobs, Worker, install_sql
from platform_api.kernel.relay import ATTEMPTS_MAX, Relay
from platform_api.kernel.sealing import KeyRing, Sealer, reseal
from platform_api.kernel.upkeep import enqueue_upkeep
from tests.support.waiting import until

TYPES = ("work.created", "work.published")


@pytest.fixture
async def database(world):
    await world.sql("DELETE FROM kernel.outbox")
    await world.sql("DELETE FROM jobs.pgqueuer")
    return world.kernel.database


async def test_event_is_told_if_and_only_if_its_change_was_committed(database):
    events, heard = Events(TYPES), []

    async def consumer(db, event):
        heard.append((event.type, event.subject_id, event.payload, event.version))

    events.subscribe("test", TYPES, consumer)
    relay = Relay(database, events)
    async with database.transaction() as db:
        await events.publish(db, "work.created", ("work", "w1"), {"title": "Ink"}, version=3)
    with pytest.raises(ZeroDivisionError):
        async with database.transaction() as db:
            await events.publish(db, "work.created", ("work", "w2"), {})
            _ = 1 / 0
    assert await relay.deliver_due() == 1
    assert heard == [("work.created", "w1", {"title": "Ink"}, 3)]
    assert await relay.deliver_due() == 0
    with pytest.raises(AssertionError, match="no context declares"):
        async with database.transaction() as db:
            await events.publish(db, "work.unheard_of", ("work", "w1"), {})


async def test_consumer_that_fails_gets_the_event_again_and_the_others_do_not(database, world):
    events, good, told, failures = Events(TYPES), [], [], 2

    async def steady(db, event):
        good.append(event.subject_id)

    async def shaky(db, event):
        nonlocal failures
        await db.execute("INSERT INTO public.effect VALUES ($1)", event.subject_id)
        if failures:
            failures -= 1
            raise ValueError("not today")

    await world.sql("DROP TABLE IF EXISTS public.effect")
    await world.sql("CREATE TABLE public.effect (id text)")
    events.subscribe("steady", TYPES, steady)
    events.subscribe("shaky", TYPES, shaky)
    events.listen(lambda event: told.append(event.subject_id))
    relay = Relay(database, events)
    async with database.transaction() as db:
        for name in ("a", "b"):
            await events.publish(db, "work.created", ("work", name), {})
    due = "UPDATE kernel.outbox SET next_attempt_at = now()"
    for _ in range(3):
        await relay.deliver_due()
        await world.sql(due)
    assert sorted(good) == ["a", "b"] and sorted(told) == ["a", "b"]
    assert sorted(row["id"] for row in await world.sql("SELECT id FROM public.effect")) == ["a", "b"]
    rows = await world.sql("SELECT attempts, delivered_at FROM kernel.outbox ORDER BY position")
    assert all(row["delivered_at"] for row in rows) and sorted(row["attempts"] for row in rows) == [1, 1]


async def test_event_that_always_fails_is_given_up_and_kept_and_one_that_waits_for_a_part_is_not(database, world):
    events, away = Events(TYPES), True

    async def broken(db, event):
        raise ValueError("never")

    async def waiting(db, event):
        if away:
            raise Unavailable("a part is away")

    events.subscribe("broken", ["work.created"], broken)
    events.subscribe("waiting", ["work.published"], waiting)
    relay = Relay(database, events)
    async with database.transaction() as db:
        await events.publish(db, "work.created", ("work", "a"), {})
        await events.publish(db, "work.published", ("work", "b"), {})
    for _ in range(ATTEMPTS_MAX + 2):
        await relay.deliver_due()
        await world.sql("UPDATE kernel.outbox SET next_attempt_at = now()")
    rows = {row["type"]: row for row in await world.sql("SELECT * FROM kernel.outbox")}
    given_up, kept = rows["work.created"], rows["work.published"]
    assert given_up["failed_at"] and given_up["attempts"] == ATTEMPTS_MAX and "never" in given_up["error"]
    assert kept["failed_at"] is None and kept["attempts"] == 0
    away = False
    assert await relay.deliver_due() == 1
    metrics = (await world.client.get("/metrics")).text
    assert 'outbox_events{state="failed"} 1.0' in metrics and 'outbox_events{state="waiting"} 0.0' in metrics
    assert (await world.data("GET", "/v1/status"))["components"]["events"] == "degraded"


async def test_two_relays_share_the_work_and_each_event_has_one_effect(database):
    events, heard = Events(TYPES), []

    async def consumer(db, event):
        await asyncio.sleep(0)
        heard.append(event.event_id)

    events.subscribe("test", TYPES, consumer)
    async with database.transaction() as db:
        for number in range(250):
            await events.publish(db, "work.created", ("work", str(number)), {})

    async def drain(relay):
        while await relay.deliver_due():
            pass

    await asyncio.gather(drain(Relay(database, events)), drain(Relay(database, events)))
    assert len(heard) == len(set(heard)) == 250


async def test_stream_that_is_away_holds_up_no_consumer_and_gets_every_event_later(database, world):
    events, heard, streamed, away, tried = Events(TYPES), [], [], True, 0

    async def consumer(db, event):
        heard.append(event.subject_id)

    async def stream(event):
        nonlocal tried
        tried += 1
        if away:
            raise Unavailable("away")
        streamed.append(event.subject_id)

    events.subscribe("test", TYPES, consumer)
    relay = Relay(database, events, stream)
    async with database.transaction() as db:
        for name in "abc":
            await events.publish(db, "work.created", ("work", name), {})
    await relay.deliver_due()
    assert heard == ["a", "b", "c"] and streamed == [] and tried == 1
    away = False
    await world.sql("UPDATE kernel.outbox SET next_attempt_at = now()")
    await relay.deliver_due()
    assert streamed == ["a", "b", "c"] and heard == ["a", "b", "c"]


class Body(msgspec.Struct, frozen=True):
    name: str


async def test_job_runs_if_and_only_if_its_transaction_was_committed(database, world):
    jobs, ran = Jobs(), []

    async def handler(body):
        ran.append(body)

    jobs.handle("notifications", "greet", Body, handler)
    async with database.transaction() as db:
        assert await jobs.enqueue(db, "notifications", "greet", Body("a"), dedupe_key="one")
        assert not await jobs.enqueue(db, "notifications", "greet", Body("b"), dedupe_key="one")
    with pytest.raises(ZeroDivisionError):
        async with database.transaction() as db:
            await jobs.enqueue(db, "notifications", "greet", Body("c"))
            _ = 1 / 0
    await Worker(world.dsn, jobs).drain()
    assert ran == [Body("a")]
    with pytest.raises(AssertionError):
        async with database.transaction() as db:
            await jobs.enqueue(db, "notifications", "unknown", Body("d"))


async def test_a_job_that_waits_is_withdrawn_with_its_transaction(database, world):
    jobs, ran = Jobs(), []

    async def handler(body):
        ran.append(body.name)

    jobs.handle("notifications", "greet", Body, handler)
    async with database.transaction() as db:
        for name in ("a", "b"):
            await jobs.enqueue(db, "notifications", "greet", Body(name), dedupe_key=name)
        await jobs.enqueue(db, "notifications", "greet", Body("c"))
    with pytest.raises(ZeroDivisionError):
        async with database.transaction() as db:
            await jobs.withdraw(db, "notifications", "greet", "a")
            _ = 1 / 0
    async with database.transaction() as db:
        await jobs.withdraw(db, "notifications", "greet", "b")
        await jobs.withdraw(db, "payments", "greet", "a")  # another's key
    await Worker(world.dsn, jobs).drain()
    assert sorted(ran) == ["a", "c"]


async def test_the_worker_is_told_of_jobs_that_can_begin_and_of_nothing_else(database, world):
    jobs, told = Jobs(), []

    async def handler(body):
        pass

    jobs.handle("notifications", "greet", Body, handler)
    listener = await asyncpg.connect(world.dsn)
    try:
        await listener.add_listener("ch_pgqueuer", lambda *notice: told.append(msgspec.json.decode(notice[3])))

        async def notices(statement):
            told.clear()
            async with database.transaction() as db:
                await db.execute(statement)
            async with database.transaction() as db:  # notices come in the order of their commits
                await db.execute("SELECT pg_notify('ch_pgqueuer', '{}')")
            await until(lambda: {} in told, what="the mark behind the statement")
            return [notice["operation"] for notice in told if notice]

        job = (
            "INSERT INTO jobs.pgqueuer (priority, status, entrypoint, execute_after)"
            " VALUES (0, 'queued', 'aside', {})"
        )
        assert await notices(job.format("now() + interval '1 hour'")) == []
        assert await notices(job.format("now()")) == ["insert"]
        assert await notices("UPDATE jobs.pgqueuer SET status = 'picked'") == []
        assert await notices("UPDATE jobs.pgqueuer SET heartbeat = now()") == []
        assert await notices("UPDATE jobs.pgqueuer SET status = 'queued' WHERE execute_after > now()") == []
        assert await notices("UPDATE jobs.pgqueuer SET status = 'queued'") == ["update"]
        assert await notices("DELETE FROM jobs.pgqueuer") == []
        async with database.transaction() as db:
            await jobs.enqueue(db, "notifications", "greet", Body("a"))
        await until(lambda: "insert" in [notice.get("operation") for notice in told], what="the notice of a job")
    finally:
        await listener.close()


@pytest.mark.parametrize("queue", ["notifications", "content_moderation", "payments"])
async def test_failing_job_runs_as_often_as_its_queue_says_and_is_then_kept_until_somebody_says_so(
    database, world, queue
):
    jobs, runs, good = Jobs(), 0, False

    async def handler(body):
        nonlocal runs
        runs += 1
        if not good:
            raise ValueError("not today")

    jobs.handle(queue, "try", Body, handler)
    async with database.transaction() as db:
        await jobs.enqueue(db, queue, "try", Body("a"))
    for due, waits in (("now() + interval '1 hour'", False), ("now() - interval '100 seconds'", True)):
        await world.sql(f"UPDATE jobs.pgqueuer SET execute_after = {due}")
        async with database.connection() as db:
            delays = await jobs.delays(db)
        assert set(delays) == set(QUEUES) and (delays[queue] >= 100) == waits and sum(delays.values()) == delays[queue]
    worker = Worker(world.dsn, jobs, retry_delay=timedelta(milliseconds=1))
    await worker.drain()
    assert runs == 1 + QUEUES[queue].retries
    async with database.connection() as db:
        assert await jobs.counts(db) == {(queue, "failed"): 1}
    assert f'jobs{{queue="{queue}",state="failed"}} 1.0' in (await world.client.get("/metrics")).text
    good = True
    (row,) = await world.sql("SELECT id FROM jobs.pgqueuer")
    async with database.transaction() as db:
        await jobs.requeue(db, [row["id"]])
    await worker.drain()
    async with database.connection() as db:
        assert await jobs.counts(db) == {} and runs == 2 + QUEUES[queue].retries


@pytest.mark.parametrize("fault", [Unavailable, OutcomeUnknown])
async def test_job_outlives_what_is_away_for_longer_than_its_retries(database, world, fault):
    jobs, runs, away = Jobs(), 0, True

    async def handler(body):
        nonlocal runs
        runs += 1
        if away:
            raise fault("the blob store is not reachable")

    jobs.handle("content_moderation", "look", Body, handler)
    async with database.transaction() as db:
        await jobs.enqueue(db, "content_moderation", "look", Body("a"), dedupe_key="a")
    worker = asyncio.create_task(Worker(world.dsn, jobs, retry_delay=timedelta(milliseconds=1)).run())
    try:
        for more in (1, 2):
            while not await world.sql("SELECT FROM jobs.pgqueuer WHERE execute_after > now() + interval '30 s'"):
                await asyncio.sleep(0.02)
            assert runs == more + QUEUES["content_moderation"].retries
            away = more < 2
            await world.sql("UPDATE jobs.pgqueuer SET execute_after = now()")
        while await world.sql("SELECT FROM jobs.pgqueuer"):
            await asyncio.sleep(0.02)
    finally:
        worker.cancel()
        await asyncio.wait([worker])
    assert runs == 3 + QUEUES["content_moderation"].retries


async def test_failed_jobs_are_listed_and_run_again_from_the_command_line(database, world, tmp_path):
    jobs, ran, good = Jobs(), [], False

    async def handler(body):
        if not good:
            raise ValueError(f"no {body.name} today")
        ran.append(body.name)

    jobs.handle("admin_actions", "sweep", Body, handler)
    async with database.transaction() as db:
        for name in ("ink", "paper"):
            await jobs.enqueue(db, "admin_actions", "sweep", Body(name))
    worker = Worker(world.dsn, jobs, retry_delay=timedelta(milliseconds=1))
    await worker.drain()
    settings = load_settings({}, data_directory=tmp_path, postgres_url=world.dsn)
    listed = await asyncio.to_thread(failed_jobs, settings)
    assert listed is not None
    told = [list(column.cells) for column in listed.columns]
    assert told[1:4] == [["admin_actions"] * 2, ["sweep"] * 2, [str(1 + QUEUES["admin_actions"].retries)] * 2]
    assert told[5] == ["ValueError: no ink today", "ValueError: no paper today"]
    good = True
    with pytest.raises(SettingsInvalid, match="no failed job has the id 1234567"):
        await asyncio.to_thread(requeue, settings, [int(told[0][0]), 1234567])
    assert await asyncio.to_thread(requeue, settings, [int(told[0][1])]) == "1 job runs again"
    await worker.drain()
    assert ran == ["paper"]
    assert await asyncio.to_thread(requeue, settings, []) == "1 job runs again"
    await worker.drain()
    assert await asyncio.to_thread(failed_jobs, settings) is None
    assert ran == ["paper", "ink"] and not await world.sql("SELECT FROM jobs.pgqueuer")


async def test_events_given_up_are_listed_and_handed_over_from_the_command_line(database, world, tmp_path):
    events, taken, good = Events(TYPES), [], False

    async def broken(db, event):
        if not good:
            raise ValueError(f"no {event.subject_id} today")
        taken.append(("broken", event.subject_id))

    async def sound(db, event):
        taken.append(("sound", event.subject_id))

    events.subscribe("test.broken", ["work.created"], broken)
    events.subscribe("test.sound", ["work.created"], sound)
    relay = Relay(database, events)
    async with database.transaction() as db:
        for subject in ("ink", "paper"):
            await events.publish(db, "work.created", ("work", subject), {})
    settings = load_settings({}, data_directory=tmp_path, postgres_url=world.dsn)
    for _ in range(ATTEMPTS_MAX):
        assert await asyncio.to_thread(given_up, settings) is None
        assert await relay.deliver_due() == 2
        await world.sql("UPDATE kernel.outbox SET next_attempt_at = now()")
    assert await relay.deliver_due() == 0
    listed = await asyncio.to_thread(given_up, settings)
    assert listed is not None
    told = [list(column.cells) for column in listed.columns]
    assert told[1:4] == [["work.created"] * 2, ["work ink", "work paper"], [str(ATTEMPTS_MAX)] * 2]
    assert told[5] == ["ValueError: no ink today", "ValueError: no paper today"]
    good = True
    unknown, (ink, paper) = uuid4(), map(UUID, told[0])
    with pytest.raises(SettingsInvalid, match=f"no event that was given up has the id {unknown}"):
        await asyncio.to_thread(hand_over, settings, [ink, unknown])
    assert await relay.deliver_due() == 0, "and nothing was done"
    assert await asyncio.to_thread(hand_over, settings, [paper]) == "1 event is handed over again"
    assert await relay.deliver_due() == 1
    assert await asyncio.to_thread(hand_over, settings, []) == "1 event is handed over again"
    assert await relay.deliver_due() == 1 and await asyncio.to_thread(given_up, settings) is None
    assert taken == [("sound", "ink"), ("sound", "paper"), ("broken", "paper"), ("broken", "ink")]


async def test_money_comes_before_notices_and_delayed_jobs_wait(database, world):
    jobs, ran = Jobs(), []

    async def handler(body):
        ran.append(body.name)

    for queue in QUEUES:
        jobs.handle(queue, "note", Body, handler)
    async with database.transaction() as db:
        for queue in ("notifications", "payments", "admin_actions"):
            await jobs.enqueue(db, queue, "note", Body(queue))
    rows = await world.sql("SELECT entrypoint FROM jobs.pgqueuer ORDER BY priority DESC, id")
    assert [row["entrypoint"] for row in rows] == ["payments", "admin_actions", "notifications"]
    async with database.transaction() as db:
        await jobs.enqueue(db, "analytics_updates", "note", Body("later"))
        await jobs.enqueue(db, "notifications", "note", Body("tomorrow"), run_after=timedelta(days=1))
    rows = await world.sql(
        "SELECT entrypoint, execute_after - created AS wait FROM jobs.pgqueuer WHERE execute_after > created"
    )
    assert {row["entrypoint"]: row["wait"] for row in rows} == {
        "analytics_updates": timedelta(seconds=5), "notifications": timedelta(days=1),
    }  # fmt: skip


async def test_worker_starts_anew_when_its_connections_are_cut(database, world):
    jobs, ran, first = Jobs(), asyncio.Queue(), True

    async def handler(body):
        nonlocal first
        if first:
            first = False
            await world.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        await ran.put(body.name)

    jobs.handle("payments", "pay", Body, handler)
    async with database.transaction() as db:
        await jobs.enqueue(db, "payments", "pay", Body("a"))
    task = asyncio.create_task(Worker(world.dsn, jobs).run())
    try:
        assert await ran.get() == "a"
        connection = await asyncpg.connect(world.dsn)
        async with connection.transaction():
            await jobs.enqueue(connection, "payments", "pay", Body("b"))
        await connection.close()
        while await ran.get() != "b":  # the first may run again: its end was not noted
            pass
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_queue_tables_are_those_of_the_pinned_version():
    text = (Path(migrations.__file__).parent / "migrations" / "0006_kernel.sql").read_text()
    wanted = install_sql().splitlines()[2:]  # the first line is a comment with the version
    assert "\n".join(wanted).strip() in text


async def test_audit_entries_form_a_chain_that_nobody_changes_unseen(database, world):
    audit = world.kernel.audit
    async with database.transaction() as db:
        while await seal_entries(db):
            pass
        start, _ = await verify_chain(db)
        for number in range(3):
            await audit.record(
                db, "work.changed", ("work", f"w{number}"), actor=uuid4(), old={"title": "a", "price": 1, "token": "t"},
                new={"title": "b", "price": 1, "token": "u"},
            )  # fmt: skip
    async with database.transaction() as db:
        assert await seal_entries(db) == 3
    rows = await world.sql("SELECT * FROM kernel.audit_entry WHERE resource_id = 'w1' ORDER BY position DESC LIMIT 1")
    assert msgspec.json.decode(rows[0]["old_values"]) == {"title": "a", "token": "[redacted]"}
    assert msgspec.json.decode(rows[0]["new_values"]) == {"title": "b", "token": "[redacted]"}
    async with database.connection() as db:
        assert await verify_chain(db) == (start + 3, None)
    for statement in (
        "UPDATE kernel.audit_entry SET new_values = '{}'", "DELETE FROM kernel.audit_entry",
        "UPDATE kernel.audit_entry SET hash = '\\x00'", "TRUNCATE kernel.audit_entry",
    ):  # fmt: skip
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await world.sql(statement)
    connection = await asyncpg.connect(world.dsn)
    try:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("ALTER TABLE kernel.audit_entry DISABLE TRIGGER ALL")
        await connection.execute("UPDATE kernel.audit_entry SET new_values = '{}' WHERE id = $1", rows[0]["id"])
        assert await verify_chain(connection) == (start + 1, start + 2)
        await transaction.rollback()
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("ALTER TABLE kernel.audit_entry DISABLE TRIGGER ALL")
        await connection.execute("DELETE FROM kernel.audit_entry WHERE id = $1", rows[0]["id"])
        assert await verify_chain(connection) == (start + 1, start + 3)
        await transaction.rollback()
    finally:
        await connection.close()


async def test_key_makes_a_change_happen_once_also_for_two_at_the_same_instant(database, world):
    session, _ = await world.sign_in()
    idempotency, route, runs = Idempotency(database), "POST /v1/test", 0
    await world.sql("DROP TABLE IF EXISTS public.change")
    await world.sql("CREATE TABLE public.change (n int)")

    async def work(db):
        nonlocal runs
        runs += 1
        await db.execute("INSERT INTO public.change VALUES ($1)", runs)
        await asyncio.sleep(0.01)
        return 201, b'{"run": %d}' % runs

    def ask(key="k", body=None):
        return idempotency.once(session["account_id"], route, key, body or {"a": 1}, work)

    answers = await asyncio.gather(*(ask() for _ in range(6)))
    assert sorted(replayed for _, replayed in answers) == [False] + [True] * 5
    assert {answer for answer, _ in answers} == {(201, b'{"run": 1}')} and runs == 1
    with pytest.raises(ApiError) as refused:
        await ask(body={"a": 2})
    assert refused.value.reason == "idempotency_key_reuse"

    async def failing(db):
        await work(db)
        raise ValueError

    with pytest.raises(ValueError):
        await idempotency.once(session["account_id"], route, "other", {}, failing)
    assert (await ask("other", {"b": 1}))[1] is False  # nothing is left of a run that failed
    assert len(await world.sql("SELECT * FROM public.change")) == 2
    await ask(None)
    await ask(None)
    assert len(await world.sql("SELECT * FROM public.change")) == 4

    await world.sql("UPDATE kernel.idempotency_record SET created_at = now() - interval '25 hours' WHERE key = 'k'")
    again = await asyncio.gather(*(ask(body={"a": 3}) for _ in range(4)))  # a day later the key is anybody's again
    assert sorted(replayed for _, replayed in again) == [False] + [True] * 3
    assert len({answer for answer, _ in again}) == 1
    assert len(await world.sql("SELECT * FROM public.change")) == 5


async def test_run_that_died_is_taken_over_when_its_lease_is_over(database, world):
    session, _ = await world.sign_in()
    idempotency, account, route = Idempotency(database), session["account_id"], "POST /v1/orders"
    started = asyncio.Event()

    async def dies():
        started.set()
        await asyncio.Event().wait()

    async def works():
        return 200, b"{}"

    task = asyncio.create_task(idempotency.run(account, route, "k", {}, dies))
    await started.wait()
    with pytest.raises(ApiError) as refused:
        await idempotency.run(account, route, "k", {}, works)
    assert refused.value.reason == "in_progress"
    await world.sql("UPDATE kernel.idempotency_record SET leased_until = now() - interval '1 second'")
    assert await idempotency.run(account, route, "k", {}, works) == ((200, b"{}"), False)
    assert await idempotency.run(account, route, "k", {}, dies) == ((200, b"{}"), True)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await world.sql("UPDATE kernel.idempotency_record SET created_at = now() - interval '2 days'")
    await idempotency.prune()
    assert await world.sql("SELECT 1 FROM kernel.idempotency_record") == []


async def test_values_of_an_older_key_are_sealed_anew(database, world):
    session, _ = await world.sign_in()
    ring = KeyRing.fresh()
    old, new = Sealer(ring), Sealer(ring.turned())
    ids = [uuid4() for _ in range(250)]
    for id_ in ids:
        await world.sql(
            "INSERT INTO identity.email_token (id, account_id, hash, email_sealed, email_digest, expires_at)"
            " VALUES ($1, $2, $3, $4, $3, now())",
            id_, UUID(session["account_id"]), hashlib.sha256(id_.bytes).digest(), old.seal(TOKEN_EMAIL, id_, str(id_)),
        )  # fmt: skip
    await world.sql("DELETE FROM identity.email_token WHERE NOT id = ANY($1)", ids)
    assert await reseal(database, new, [TOKEN_EMAIL]) == 250
    assert await reseal(database, new, [TOKEN_EMAIL]) == 0
    for row in await world.sql("SELECT id, email_sealed FROM identity.email_token"):
        assert bytes(row["email_sealed"])[1:5] == b"\0\0\0\x02"
        assert new.open(TOKEN_EMAIL, row["id"], bytes(row["email_sealed"])) == str(row["id"])
    await world.sql("DELETE FROM identity.email_token")


async def test_upkeep_is_one_job_however_often_it_is_asked_for(database, world):
    async with database.transaction() as db:
        for _ in range(3):
            await enqueue_upkeep(world.kernel, db)
    assert len(await world.sql("SELECT 1 FROM jobs.pgqueuer")) == 1
    await world.settle()
    assert await world.sql("SELECT 1 FROM jobs.pgqueuer") == []
