"""What is Redis's own: its script, its clock, its settings, and what it says when it refuses."""

import asyncio
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import UTC, date, datetime, timedelta
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from redis import Redis

from app.stores.base import (
    Admitted,
    Claim,
    Replay,
    Settlement,
    Store,
    StoreSetupError,
    StoreUnavailableError,
)
from tests.conftest import StartApp
from tests.fake_provider import FakeProvider, Reply, Usage
from tests.servers import store_url
from tests.servers.ports import free_port
from tests.servers.proxy import Proxy
from tests.servers.redis import RedisServer, own
from tests.stores import ANSWER, CLAIM, Clock, admission, make_store


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with own() as started:
        yield started


async def opened(url: str, timeout: float = 5, clock: Clock | None = None) -> Store:
    store = make_store(url, clock, timeout=timeout)
    await store.open()
    return store


def said(server: RedisServer, *command: str) -> str:
    """What the server answers, as it is."""
    connection: Any = server.client().connection_pool.get_connection()
    connection.send_command(*command)
    answer = connection.read_response()
    return answer.decode() if isinstance(answer, bytes) else str(answer)


async def complaint(url: str) -> StoreSetupError:
    """What `open` complains of."""
    store = make_store(url, None, timeout=2)
    with pytest.raises(StoreSetupError) as caught:
        await store.open()
    await store.close()
    return caught.value


async def test_a_server_that_forgets_its_scripts_is_told_again(server: RedisServer) -> None:
    store = await opened(server.url)
    for _ in range(3):
        server.client().script_flush()
        assert isinstance(await store.admit(admission(str(time.monotonic()))), Admitted)
    await store.close()


async def test_a_user_who_may_not_name_scripts_sends_them(server: RedisServer) -> None:
    rights = ("+@all", "-script", "-evalsha", "-info", "-config")
    said(server, "ACL", "SETUSER", "app", "on", ">secret-1", "~*", *rights)
    store = await opened(server.url.replace("//", "//app:secret-1@"))
    assert isinstance(await store.admit(admission("a", claim=CLAIM)), Admitted)
    assert await store.settle(Settlement("a", 1, "key", ANSWER)) is None
    assert isinstance(await store.admit(admission("b", claim=CLAIM)), Replay)
    assert await store.concerns() == ()
    await store.close()


async def test_every_key_of_a_step_lies_in_one_slot_of_a_cluster() -> None:
    with own(cluster_enabled="yes", cluster_port=free_port(), databases=1) as server:
        said(server, "CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        while "cluster_state:ok" not in said(server, "CLUSTER", "INFO"):
            await asyncio.sleep(0.05)
        store = await opened(server.url, clock=(clock := Clock()))
        for name in ("a", "b"):
            await store.admit(admission(name, claim=Claim(name, "f", 10)))
            await store.dispatch(name)
        await store.settle(Settlement("a", 1, "a", ANSWER))
        clock.now += 31
        await store.reap()
        await store.remember("memo", b"value", 10)
        assert await store.open_incident("store", 10)
        spending = await store.spending()
        assert (spending.settled_nano, spending.reserved_nano) == (11, 0)
        for key in server.client().scan_iter():
            assert str(key).startswith("b'{contract-test}:")
        await store.close()


async def test_a_step_that_comes_too_late_does_nothing(server: RedisServer) -> None:
    store = await opened(server.url, timeout=1)
    assert isinstance(await store.admit(admission("in time", quota=2)), Admitted)
    server.freeze()
    started = time.monotonic()
    with pytest.raises(StoreUnavailableError):
        await store.admit(admission("too late", quota=2, claim=CLAIM))
    assert time.monotonic() - started < 1.9
    await asyncio.sleep(0.3)
    server.thaw()
    await asyncio.sleep(0.3)
    assert (await store.spending()).reserved_nano == 10
    admitted = await store.admit(admission("again", quota=2, claim=CLAIM))
    assert isinstance(admitted, Admitted)
    assert admitted.rates[0].remaining == 0
    await store.close()


async def test_a_restart_costs_no_request_more_than_it_must(server: RedisServer) -> None:
    store = await opened(server.url, timeout=1)
    await asyncio.gather(*(store.admit(admission(str(n), 1)) for n in range(16)))
    server.stop()
    with pytest.raises(StoreUnavailableError):
        await store.admit(admission("down"))
    server.start()
    for number in range(16):
        assert isinstance(await store.admit(admission(f"up {number}", 1)), Admitted)
    assert (await store.spending()).reserved_nano == 32
    await store.close()


async def test_after_a_failover_the_new_primary_is_found(server: RedisServer) -> None:
    """On a managed server the name leads elsewhere, and the old primary stays, as a replica."""
    with own() as other, closing(Proxy(server.port)) as proxy:
        store = await opened(f"redis://127.0.0.1:{proxy.port}/0")
        await asyncio.gather(*(store.admit(admission(str(n), 1)) for n in range(16)))
        proxy.lead_to(other.port)
        with server.client() as client:
            client.replicaof("127.0.0.1", str(other.port))
        with pytest.raises(StoreUnavailableError):
            await store.admit(admission("a"))
        admitted = await asyncio.gather(*(store.admit(admission(f"b{n}", 1)) for n in range(16)))
        assert all(isinstance(one, Admitted) for one in admitted)
        await store.close()


def test_a_warning_is_given_though_the_stores_word_was_lost(
    server: RedisServer, start_app: StartApp, fake: FakeProvider
) -> None:
    """The settlement that reaches the 80 % is done, and its answer comes too late."""
    with closing(Proxy(server.port)) as proxy, ThreadPoolExecutor(1) as pool:
        url = f"redis://127.0.0.1:{proxy.port}/0"
        app = start_app(
            store_url=url, store_timeout_seconds=1, max_attempts=1, daily_cost_cap_usd=0.0025
        )
        fake.next(Reply("word", usage=Usage(50, 1000), delay_before=1))
        with app.http() as http:
            body = {"messages": [{"role": "user", "content": "Hello"}]}
            answer = pool.submit(http.post, "/v1/chat/completions", json=body)
            fake.ledger.wait_for(1)
            proxy.set("delay", 0.7)
            assert answer.result().status_code == 200
            proxy.set("pass")
        deadline = time.monotonic() + 15
        while not (found := app.log_lines(message="80 % of the daily cost cap is spent")):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert len(found) == 1


async def test_a_server_that_is_down_at_the_start_is_used_once_it_is_up(
    server: RedisServer,
) -> None:
    server.stop()
    store = make_store(server.url, None, timeout=1)
    with pytest.raises(StoreUnavailableError):
        await store.open()
    with pytest.raises(StoreUnavailableError):
        await store.ping()
    server.start()
    assert isinstance(await store.admit(admission("a")), Admitted)
    await store.close()


async def test_memory_that_is_full_refuses_and_forgets_nothing(server: RedisServer) -> None:
    store = await opened(server.url)
    await store.admit(admission("before", claim=CLAIM))
    server.client().config_set("maxmemory", 1)
    for work in (
        store.ping,
        partial(store.admit, admission("b")),
        partial(store.settle, Settlement("before", 1)),
    ):
        with pytest.raises(StoreUnavailableError):
            await work()
    server.client().config_set("maxmemory", 0)
    await store.settle(Settlement("before", 1, "key", ANSWER))
    assert (await store.spending()).settled_nano == 1
    assert isinstance(await store.admit(admission("c", claim=CLAIM)), Replay)
    await store.close()


async def test_a_lease_whose_facts_are_gone_holds_nobody_up(tmp_path: Path) -> None:
    """A server that evicts keys may drop the reservations and keep their leases."""
    clock, url = Clock(), store_url(tmp_path)
    store = await opened(url, clock=clock)
    for name in ("early", "late"):
        await store.admit(admission(name, claim=CLAIM if name == "early" else None))
        clock.now += 20
    with closing(Redis.from_url(url)) as client:
        client.delete("{contract-test}:reservations")
    assert not await store.dispatch("late")
    await store.settle(Settlement("early", 5, "key", ANSWER))
    assert isinstance(await store.admit(admission("another", claim=CLAIM)), Admitted)
    clock.now += 60
    assert (await store.reap()).more is False
    assert (await store.spending()).reserved_nano == 20  # as the server has it; "another" is ended
    await store.close()


async def test_what_has_expired_leaves_no_key(tmp_path: Path) -> None:
    clock, url = Clock(), store_url(tmp_path)
    store = await opened(url, clock=clock)
    for number in range(50):
        await store.admit(admission(str(number), 1, 1000, 1000, Claim(str(number), "f", 1)))
        await store.dispatch(str(number))
        if number % 2:
            await store.settle(Settlement(str(number), 1, str(number), ANSWER))
    clock.now += 1000
    while (await store.reap()).more:
        pass
    await store.remember("memo", b"value", 1)
    clock.now += 401 * 86400
    while (await store.reap()).more:
        pass
    await asyncio.sleep(1.1)
    client = Redis.from_url(url)
    left = {key.removeprefix(b"{contract-test}:") for key in client.scan_iter("*")}
    # A rate is kept for two windows, and the ping for a minute: Redis ends them by itself.
    assert {key.split(b":")[0] for key in left} <= {b"rate", b"ping", b"schema"}
    assert all(client.ttl(b"{contract-test}:" + key) > 0 for key in left - {b"schema"})
    await store.close()


async def test_each_complaint_says_what_to_mend(server: RedisServer) -> None:
    client = server.client()
    wrong_database = await complaint(server.url.removesuffix("/0") + "/99999")
    assert (wrong_database.complaint, wrong_database.facts["database"]) == ("store_database", 99999)
    client.set("{contract-test}:schema", 7)
    assert (await complaint(server.url)).facts == {"found": 7, "known": 1}
    client.delete("{contract-test}:schema")
    said(server, "ACL", "SETUSER", "weak", "on", ">secret-1", "~*", "+info", "+get")
    assert (await complaint(server.url.replace("//", "//weak:secret-1@"))).complaint == (
        "store_permission"
    )
    with own(replicaof=f"127.0.0.1 {server.port}") as replica:
        assert (await complaint(replica.url)).complaint == "store_replica"
    with own(requirepass="secret-1") as locked:
        for url in (
            locked.url.replace(":secret-1@", ""),
            locked.url.replace("secret-1", "secret-2"),
        ):
            error = await complaint(url)
            assert error.complaint == "store_password"
            assert "secret" not in str(error.facts)


async def test_tls_is_spoken_and_certificates_are_checked(
    server: RedisServer, tmp_path: Path
) -> None:
    certificate = _certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        plain_reader, plain_writer = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.gather(_pipe(reader, plain_writer), _pipe(plain_reader, writer))

    listener = await asyncio.start_server(forward, "127.0.0.1", 0, ssl=context)
    url = f"rediss://127.0.0.1:{listener.sockets[0].getsockname()[1]}/0"
    error = await complaint(url)
    assert error.complaint == "store_tls"
    assert "certificate" in str(error.facts["reason"]).lower()
    store = await opened(f"{url}?ssl_ca_certs={certificate}")
    assert isinstance(await store.admit(admission("a")), Admitted)
    await store.close()
    listener.close()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()


def _certificate(folder: Path) -> Path:
    """A certificate for 127.0.0.1 that nobody has signed, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    path = folder / "server.pem"
    path.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(pem)
    )
    return path


async def test_settings_that_weaken_a_promise_are_named() -> None:
    async def names(**configuration: Any) -> list[str]:
        with own(**configuration) as server:
            store = await opened(server.url)
            found = [concern.name for concern in await store.concerns()]
            await store.close()
            return found

    assert await names(appendfsync="always") == []
    assert await names(appendfsync="everysec") == ["redis_everysec"]
    assert await names(appendonly="no", save="") == ["redis_no_persistence"]
    assert await names(appendonly="no", save="60 1") == ["redis_snapshots_only"]
    assert await names(appendfsync="always", maxmemory_policy="allkeys-lru") == ["redis_eviction"]


async def test_a_day_that_the_app_did_not_expect_is_found(tmp_path: Path) -> None:
    clock = Clock()
    store = await opened(store_url(tmp_path), clock=clock)
    for days in (0, 1, 3, 30, -200):
        clock.now += days * 86400
        spending = await store.spending()
        assert spending.day == date.fromtimestamp(clock.now)
        assert isinstance(await store.admit(admission(f"{days}", 1)), Admitted)
    await store.close()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "no-such-host.invalid:6379"])
async def test_a_server_that_is_not_there_is_unavailable(address: str) -> None:
    store = make_store(f"redis://:secret-1@{address}/0", None, timeout=1)
    started = time.monotonic()
    with pytest.raises(StoreUnavailableError) as caught:
        await store.open()
    assert time.monotonic() - started < 1.9
    assert store.address == address
    assert "secret" not in f"{caught.value}"
    await store.close()
