"""What is PostgreSQL's own: the schema, the slots of the money, locks, a server in trouble."""

import asyncio
import multiprocessing
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from zoneinfo import ZoneInfo

import psycopg
import pytest

from app.stores import postgres_setup
from app.stores.base import (
    Admission,
    Admitted,
    Cap,
    Claim,
    Connection,
    Decision,
    Entry,
    Rate,
    Refused,
    Settlement,
    StoredAnswer,
    StoreSetupError,
    StoreUnavailableError,
)
from app.stores.postgres import POOL_SIZE, PostgresStore, connect
from tests.servers import store_url
from tests.servers.postgres import PASSWORD, PostgresServer, own

ANSWER = StoredAnswer(200, "application/json", b"sealed", complete=True)
SCHEMA = "own_test"


def store_at(url: str, timeout: float = 5) -> PostgresStore:
    store = connect(Connection(url, "own-test", timeout, ZoneInfo("UTC")))
    assert isinstance(store, PostgresStore)
    return store


def admission(name: str, amount: int = 10, cap: int = 1_000_000) -> Admission:
    rates = (Rate("caller", "caller:alice", 1_000_000, 60),)
    return Admission(name, amount, 30, rates, (Cap("app", "app", cap),))


def query(url: str, statement: str) -> list[tuple[object, ...]]:
    """Ask the database as the superuser; unqualified names are the app's."""
    with closing(session(url)) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def session(url: str) -> psycopg.Connection:
    """A session of an operator."""
    options = f"-c search_path={SCHEMA} -c default_transaction_read_only=off"
    return psycopg.connect(url, autocommit=True, options=options)


async def comes_to_none(url: str, counting: str) -> None:
    """Wait until the database counts none any more."""
    deadline = time.monotonic() + 5
    while (found := query(url, counting)) != [(0,)]:
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.02)


@contextmanager
def rates_held(url: str) -> Iterator[None]:
    """Another session has locked every rate, and sleeps."""
    with closing(session(url)) as holder, holder.transaction():
        holder.execute("SELECT FROM rates FOR UPDATE")
        yield


async def refused_in(seconds: float, step: Awaitable[object]) -> None:
    """Assert that the step says in time that the store is unavailable, and says no secret.

    `seconds` are a good deal more than it takes, for a busy machine, and less than it would take
    without what is tested: twice its timeout, or the timeout where it is known to fail at once.
    """
    started = time.monotonic()
    with pytest.raises(StoreUnavailableError) as raised:
        await step
    assert time.monotonic() - started < seconds
    assert PASSWORD not in repr(raised.value)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return store_url(tmp_path)


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresStore]:
    opened = store_at(url)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server to be frozen and killed."""
    with own(None) as started:
        yield started


# ------------------------------------------------------------ the start


async def test_ten_instances_that_start_at_once_share_one_schema(url: str) -> None:
    stores = [store_at(url) for _ in range(10)]
    await asyncio.gather(*(store.open() for store in stores))
    decisions = await asyncio.gather(
        *(store.admit(admission(str(i), 10, 50)) for i, store in enumerate(stores))
    )
    assert sum(isinstance(decision, Admitted) for decision in decisions) == 5
    assert query(url, "SELECT version FROM schema_version") == [(1,)]
    for store in stores:
        await store.close()


async def test_what_stays_in_a_collection_is_not_written_again(
    url: str, store: PostgresStore
) -> None:
    for number in range(5):
        await store.collect("bad", [Entry(str(number), b"sealed")], 100, 4)
    assert len(await store.collected("bad", 10)) == 4
    assert query(url, "SELECT count(*) FROM entries WHERE xmax::text <> '0'") == [(0,)]


async def test_two_releases_run_side_by_side(
    url: str, store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    query(url, "DROP TABLE entries")  # as a release left it that knew no collections
    monkeypatch.setattr(postgres_setup, "REAP_ROWS", 499)
    newer = store_at(url)
    await newer.open()
    await newer.collect("bad", [Entry("a", b"sealed")], 100, 10)
    assert [entry.key for entry in await newer.collected("bad", 10)] == ["a"]
    assert isinstance(await store.admit(admission("a", 60, 100)), Admitted)
    assert isinstance(await newer.admit(admission("b", 60, 100)), Refused)
    await newer.settle(Settlement("a", 10))
    assert (await store.spending()).settled_nano == 10
    await newer.close()


async def test_a_schema_of_a_newer_release_is_refused(url: str, store: PostgresStore) -> None:
    query(url, "UPDATE schema_version SET version = 99")
    with pytest.raises(StoreSetupError) as raised:
        await store_at(url).open()
    assert raised.value.complaint == "store_newer"
    assert raised.value.facts == {"found": 99, "known": 1}


async def test_a_user_without_any_rights_but_a_schema_of_its_own(url: str) -> None:
    name = f"kit_{time.monotonic_ns()}"
    query(url, f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    own_url = url.replace("//postgres:", f"//{name}:")
    with pytest.raises(StoreSetupError) as raised:
        await store_at(own_url).open()
    assert raised.value.complaint == "store_permission"
    query(url, f"CREATE SCHEMA {SCHEMA} AUTHORIZATION {name}")
    store = store_at(own_url)
    await store.open()
    assert isinstance(await store.admit(admission("a")), Admitted)
    await store.close()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ((PASSWORD, "not-the-password"), "store_password"),
        ((f":{PASSWORD}", ""), "store_password"),
        (("/app_", "/no_such_database_"), "store_database"),
        (("/app_", "?sslmode=require&dbname=app_"), "store_tls"),
        (("/app_", "?pgbouncer=true&dbname=app_"), "postgres_parameter"),
        (("127.0.0.1", "[::1"), "postgres_url"),
        (("/app_", "?sslmode=perhaps&dbname=app_"), "store_refused"),
    ],
)
async def test_what_a_person_must_mend(url: str, change: tuple[str, str], complaint: str) -> None:
    store = store_at(url.replace(*change))
    with pytest.raises(StoreSetupError) as raised:
        await store.open()
    assert raised.value.complaint == complaint
    assert PASSWORD not in f"{raised.value!r} {store.address} {raised.value.__cause__!r}"
    assert raised.value.__context__ is raised.value.__cause__
    await refused_in(4, store.admit(admission("a")))


async def test_settings_that_break_the_locks_are_refused(url: str) -> None:
    database = url.rpartition("/")[2]
    for setting in (
        "default_transaction_isolation = 'serializable'",
        "default_transaction_read_only = on",
    ):
        query(url, f"ALTER DATABASE {database} SET {setting}")
        with pytest.raises(StoreSetupError) as raised:
            await store_at(url).open()
        assert raised.value.complaint == "store_refused"
        assert str(raised.value.facts["reason"]) in setting.replace(" = ", "=").replace("'", "")
        query(url, f"ALTER DATABASE {database} RESET ALL")


async def test_what_weakens_the_promises_is_a_concern(url: str, store: PostgresStore) -> None:
    assert await store.concerns() == ()
    query(url, f"ALTER DATABASE {url.rpartition('/')[2]} SET synchronous_commit = off")
    weak = store_at(url)
    (concern,) = await weak.concerns()
    assert (concern.name, concern.facts) == ("postgres_synchronous_commit", {"value": "off"})
    await weak.close()


# ------------------------------------------------------------ the money


async def test_the_cap_is_exact_with_many_at_its_edge(url: str) -> None:
    cap, dice = 10_000, random.Random(1)  # noqa: S311 (no secret)
    stores = [store_at(url) for _ in range(2)]
    for store in stores:
        await store.open()
    held: dict[str, int] = {}
    misfits: list[int] = []

    async def spend(worker: int) -> None:
        for number in range(40):
            name, amount = f"{worker}-{number}", dice.randint(1, 400)
            store = stores[worker % 2]
            if not isinstance(await store.admit(admission(name, amount, cap)), Admitted):
                misfits.append(amount)
                continue
            held[name] = amount
            if dice.random() < 0.5:
                cost = dice.randint(0, amount)
                await store.settle(Settlement(name, cost))
                held[name] = cost

    async def watch() -> None:
        while True:
            spending = await stores[0].spending()
            assert spending.settled_nano + spending.reserved_nano <= cap
            await asyncio.sleep(0.005)

    watcher = asyncio.create_task(watch())
    await asyncio.gather(*(spend(worker) for worker in range(16)))
    assert not watcher.done()
    watcher.cancel()
    spending = await stores[0].spending()
    committed = spending.settled_nano + spending.reserved_nano
    assert committed == sum(held.values())
    assert misfits
    # What is left can be had to the last nano-dollar, wherever it lies.
    rest = cap - committed
    assert isinstance(await stores[0].admit(admission("more", rest + 1, cap)), Refused)
    assert isinstance(await stores[1].admit(admission("rest", rest, cap)), Admitted)
    for store in stores:
        await store.close()


async def test_a_cost_beyond_the_reservation_counts_against_the_cap(store: PostgresStore) -> None:
    for name in ("a", "b"):
        assert isinstance(await store.admit(admission(name, 10, 100)), Admitted)
    await store.settle(Settlement("a", 95))
    assert isinstance(await store.admit(admission("c", 1, 100)), Refused)
    await store.settle(Settlement("b", 0))
    assert isinstance(await store.admit(admission("c", 6, 100)), Refused)
    assert isinstance(await store.admit(admission("c", 5, 100)), Admitted)


async def test_processes_with_different_caps_each_keep_their_own(store: PostgresStore) -> None:
    assert isinstance(await store.admit(admission("a", 60, 100)), Admitted)
    assert isinstance(await store.admit(admission("b", 1, 50)), Refused)
    assert isinstance(await store.admit(admission("c", 40, 100)), Admitted)
    assert isinstance(await store.admit(admission("d", 1, 100)), Refused)
    assert isinstance(await store.admit(admission("e", 50, 150)), Admitted)


async def test_a_refusal_writes_nothing() -> None:
    transactions = "SELECT pg_snapshot_xmax(pg_current_snapshot())"
    with own(None, autovacuum="off") as server:  # its housekeeping writes too, when it likes
        store = store_at(server.url)
        await store.open()
        await store.admit(admission("a", 100, 100))
        before = query(server.url, transactions)
        for number in range(10):
            assert isinstance(await store.admit(admission(str(number), 1, 100)), Refused)
        assert query(server.url, transactions) == before
        await store.close()


async def test_two_settlements_at_once_warn_once(url: str, store: PostgresStore) -> None:
    names = [str(number) for number in range(16)]
    for name in names:
        await store.admit(admission(name, 10, 160))
    warnings = await asyncio.gather(*(store.settle(Settlement(name, 10)) for name in names))
    reaped = await store.reap()
    assert len([warning for warning in (*warnings, *reaped.warnings) if warning]) == 1


def _mix(url: str, seed: int) -> Counter[str]:
    """Everything that a store does, on few rows, for some seconds. In a process of its own."""
    dice, ends = random.Random(seed), time.monotonic() + 3  # noqa: S311 (no secret)
    outcomes: Counter[str] = Counter()

    async def client(store: PostgresStore, number: int) -> None:
        while time.monotonic() < ends:
            name, amount = f"{seed}-{number}-{time.monotonic_ns()}", dice.choice([1, 20, 300])
            who = dice.choice("ab")
            claim = Claim(f"key of {who}", "f", 1) if dice.random() < 0.5 else None
            asked = Admission(
                reservation=name,
                amount_nano=amount,
                lease_seconds=dice.choice([0.02, 2]),
                rates=(
                    Rate("ip", f"ip:{dice.choice('xyz')}", 1000, 1),
                    Rate("caller", f"caller:{who}", 1000, 1),
                ),
                caps=(Cap("app", "app", 5000), Cap("caller", f"caller:{who}", 4000)),
                claim=claim,
            )
            decision: Decision = await store.admit(asked)
            outcomes[type(decision).__name__] += 1
            if isinstance(decision, Admitted) and dice.random() < 0.9:
                await store.dispatch(name)
                await store.renew(name, 2)
                cost = dice.choice([0, 0, 1, amount + 1 if dice.random() < 0.1 else 0])
                key, answer = (claim.key, ANSWER) if claim else (None, None)
                await store.settle(Settlement(name, cost, key, answer))
            if dice.random() < 0.05:
                await store.reap()

    async def run() -> None:
        store = store_at(url)
        await store.open()
        await asyncio.gather(*(client(store, number) for number in range(4)))
        await store.close()

    asyncio.run(run())
    return outcomes


async def test_nobody_waits_for_each_other(url: str) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(8, mp_context=context) as pool:
        outcomes = sum(pool.map(_mix, [url] * 8, range(8)), Counter[str]())
    assert outcomes["Admitted"] > 50
    statistics = (
        "SELECT deadlocks, conflicts FROM pg_stat_database WHERE datname = current_database()"
    )
    assert query(url, statistics) == [(0, 0)]
    store = store_at(url)
    await asyncio.sleep(2)
    while (await store.reap()).more:
        pass
    spending = await store.spending()
    assert spending.reserved_nano == 0
    for who in "ab":
        assert (await store.spending(f"caller:{who}")).reserved_nano == 0
    wrong = "SELECT * FROM spend WHERE settled_nano < 0 OR reserved_nano <> 0"
    assert query(url, wrong) == []
    await store.close()


# ------------------------------------------------------------ a server in trouble


async def test_a_frozen_server_is_reported_in_time_and_its_late_step_changes_nothing(
    server: PostgresServer,
) -> None:
    store = store_at(server.url, timeout=1)
    await store.open()
    await store.ping()
    server.freeze()
    try:
        steps = [store.admit(admission(f"frozen {number}")) for number in range(POOL_SIZE + 5)]
        await asyncio.gather(*(refused_in(1.9, step) for step in steps))
        await refused_in(1.9, store_at(server.url, timeout=1).open())
    finally:
        server.thaw()
    await store.ping()
    assert (await store.spending()).reserved_nano == 0
    await store.close()


async def test_a_killed_server_is_used_again_as_soon_as_it_is_back(server: PostgresServer) -> None:
    store = store_at(server.url)
    await store.open()
    before = (await store.spending()).settled_nano
    await asyncio.gather(*(store.admit(admission(f"a{number}")) for number in range(POOL_SIZE)))
    server.kill()
    await refused_in(4, store.settle(Settlement("a0", 7)))
    late = store_at(server.url)
    await refused_in(4, late.open())
    server.start()
    for number in range(POOL_SIZE):
        await store.settle(Settlement(f"a{number}", 7))
    # One that was never opened does that work now.
    assert (await late.spending()).settled_nano - before == 7 * POOL_SIZE
    assert (await late.spending()).reserved_nano == 0
    await store.close()
    await late.close()


async def test_a_replica_is_refused_and_a_promoted_one_is_used(server: PostgresServer) -> None:
    store = store_at(server.url)
    await store.open()
    server.make_standby()
    with pytest.raises(StoreSetupError) as raised:
        await store_at(server.url).open()
    assert raised.value.complaint == "store_replica"
    await refused_in(4, store.admit(admission("a")))
    await refused_in(4, store.ping())
    server.promote()
    assert isinstance(await store.admit(admission("b")), Admitted)
    await store.close()


async def test_a_row_that_another_session_holds_is_reported_in_time(url: str) -> None:
    store = store_at(url, timeout=1)
    await store.open()
    await store.admit(admission("a"))
    with rates_held(url):
        await asyncio.gather(
            *(refused_in(1.9, store.admit(admission(f"waits {i}"))) for i in range(5))
        )
        # The server gives up too: first the place in the queue, then the row. Nobody is left.
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        await comes_to_none(url, waiting)
    assert isinstance(await store.admit(admission("b")), Admitted)
    await store.close()


async def test_a_server_without_a_free_connection_is_reported_at_once(url: str) -> None:
    name = f"few_{time.monotonic_ns()}"
    database = url.rpartition("/")[2]
    query(url, f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}' CONNECTION LIMIT 1")
    query(url, f"GRANT CREATE ON DATABASE {database} TO {name}")
    own_url = url.replace("//postgres:", f"//{name}:")
    store = store_at(own_url)
    with closing(psycopg.connect(own_url)):
        await refused_in(4, store.open())
        await refused_in(4, store.admit(admission("a")))
    await store.ping()
    # It has one connection now; whoever needs a second at the same time is told so.
    results = await asyncio.gather(
        *(store.admit(admission(f"b{number}")) for number in range(5)), return_exceptions=True
    )
    assert any(isinstance(result, Admitted) for result in results)
    assert isinstance(await store.admit(admission("c")), Admitted)
    await store.close()


async def test_a_step_that_is_cancelled_leaves_a_working_store(url: str) -> None:
    store = store_at(url)
    await store.open()
    await store.admit(admission("a"))
    with rates_held(url):
        step = asyncio.create_task(store.admit(admission("b")))
        await asyncio.sleep(0.1)
        step.cancel()
        started = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await step
        assert time.monotonic() - started < 4  # and not when its timeout is over
    assert isinstance(await store.admit(admission("c")), Admitted)
    await store.close()


async def test_connections_that_an_operator_ends_are_replaced(
    url: str, store: PostgresStore
) -> None:
    await asyncio.gather(*(store.ping() for _ in range(5)))
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    query(url, f"SELECT pg_terminate_backend(pid) {others}")
    await comes_to_none(url, f"SELECT count(*) {others}")
    for number in range(5):
        assert isinstance(await store.admit(admission(str(number))), Admitted)


async def test_no_session_holds_anything_between_steps(url: str, store: PostgresStore) -> None:
    """As behind a pooler in transaction mode: each step may meet another session."""
    await asyncio.gather(*(store.admit(admission(str(number))) for number in range(20)))
    await store.reap()
    sessions = (
        "SELECT DISTINCT a.state, l.locktype"
        " FROM pg_stat_activity a LEFT JOIN pg_locks l USING (pid)"
        " WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()"
    )
    assert query(url, sessions) == [("idle", None)]


async def test_a_schema_that_is_gone_is_made_anew(url: str, store: PostgresStore) -> None:
    query(url, f"DROP SCHEMA {SCHEMA} CASCADE")
    assert isinstance(await store.admit(admission("a")), Admitted)
