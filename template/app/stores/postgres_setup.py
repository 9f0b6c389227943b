"""Getting PostgreSQL ready: the URL, the server, the schema; and what a person must mend."""

import re
from hashlib import sha256
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from app.stores.base import (
    KEEP_COUNTS,
    KEEP_DAYS,
    KEEP_EXPIRED_SECONDS,
    REAP_LEASES,
    REAP_ROWS,
    WARN_AT_PERCENT,
    Concern,
    StoreSetupError,
    StoreUnavailableError,
)
from app.stores.postgres_pool import PooledConnection

VERSION = 1
OLDEST_SERVER = 14
SLOTS = 16  # of the app's money: see postgres_schema.sql

# A dead peer is noticed while nobody uses its connection (seconds).
_DEFAULTS = {"keepalives_idle": "20", "keepalives_interval": "5", "keepalives_count": "3"}

# What libpq and servers say of a connection that was not made: libpq hands on no error code. Their
# words for what passes by itself, and what a person must mend.
_PASSES = re.compile(
    r"connection refused|failed to resolve host|no route to host|network is unreachable"
    r"|timeout expired|too many (connections|clients)|connection slots are reserved"
    r"|starting up|shutting down|recovery mode|server closed the connection",
    re.IGNORECASE,
)
_REFUSALS = (
    (r"no pg_hba\.conf entry.*(no encryption|SSL off)", "store_tls"),
    (r"certificate|SSL|TLS|channel binding", "store_tls"),
    (r"database .* does not exist|no such database", "store_database"),
    (r"authentication failed|no password|no such user|role .* does not exist", "store_password"),
    (r"permission denied", "store_permission"),
    (r"invalid|FATAL|ERROR", "store_refused"),
)


def schema_name(namespace: str) -> str:
    """The app's own schema. Names that begin with pg_ belong to PostgreSQL."""
    name = namespace.replace("-", "_")
    return f"app_{name}" if name.startswith("pg_") else name


def address_of(url: str) -> str:
    """Where the server is, without user and password."""
    parts = _parts(url)
    if isinstance(parts, StoreSetupError):
        return "postgresql://"
    hosts, ports = parts.get("host", "localhost").split(","), parts.get("port", "5432").split(",")
    places = [f"{host}:{ports[min(i, len(ports) - 1)]}" for i, host in enumerate(hosts)]
    return f"postgresql://{','.join(places)}/{database_of(url)}"


def database_of(url: str) -> str:
    """The name of the database; libpq takes the user's where there is none."""
    parts = _parts(url)
    if isinstance(parts, StoreSetupError):
        return ""
    return parts.get("dbname") or parts.get("user") or ""


def conninfo_of(url: str, namespace: str) -> str:
    """What libpq is given. Raises `StoreSetupError` for a URL that it cannot read."""
    stated = _parts(url)
    if isinstance(stated, StoreSetupError):
        raise stated
    own = {**_DEFAULTS, "fallback_application_name": namespace, **stated}
    return make_conninfo("", **{**own, "client_encoding": "UTF8"})


def _parts(url: str) -> dict[str, str] | StoreSetupError:
    """The parts of a URL as libpq reads it, or what is wrong with it."""
    try:
        return {name: str(value) for name, value in conninfo_to_dict(url).items()}
    except psycopg.Error as error:
        # Its text may quote the whole URL, password included: it goes no further than here.
        unknown = re.search(r'invalid URI query parameter: "([^"]*)"', str(error))
        if unknown is not None:
            return StoreSetupError("postgres_parameter", name=unknown[1])
        return StoreSetupError("postgres_url")


def kind_of(error: BaseException) -> str:
    """The kind of trouble, in a few words that hold no address and no secret."""
    passing = _PASSES.search(str(error))
    if isinstance(error, TimeoutError):
        return "PostgreSQL: no answer in time"
    return f"PostgreSQL: {passing[0] if passing else type(error).__name__}"


def complaint_of(error: Exception, url: str) -> StoreSetupError | StoreUnavailableError:
    """What an error at start means: something to mend, or a server that does not answer."""
    sqlstate = getattr(error, "sqlstate", None)
    reason = re.sub(r"^connection (failed|is bad): (connection to .* failed: )?", "", str(error))
    facts = {"address": address_of(url), "reason": reason.partition("\n")[0]}
    if sqlstate == psycopg.errors.InsufficientPrivilege.sqlstate:
        return StoreSetupError("store_permission", **facts)
    if sqlstate is None and isinstance(error, psycopg.Error) and not _PASSES.search(reason):
        for pattern, complaint in _REFUSALS:
            if re.search(pattern, reason):
                return StoreSetupError(complaint, database=database_of(url), **facts)
    return StoreUnavailableError(kind_of(error))


class Schema:
    """The app's tables, and the functions of this release."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._tables = _sql("postgres_schema.sql", app=f'"{name}"')
        steps = _sql(
            "postgres_steps.sql",
            slots=SLOTS,
            warn_at_percent=WARN_AT_PERCENT,
            reap_leases=REAP_LEASES,
            reap_rows=REAP_ROWS,
            keep_expired_seconds=KEEP_EXPIRED_SECONDS,
            keep_days=KEEP_DAYS,
            keep_minutes=KEEP_COUNTS[60],
            keep_hours=KEEP_COUNTS[3600],
        )
        self.release = "_" + sha256(steps.encode()).hexdigest()[:8]
        self._steps = steps.replace("@app@", f'"{name}"').replace("@release@", self.release)

    def step(self, name: str, arguments: int) -> str:
        """The statement that calls one of postgres_steps.sql's functions."""
        gaps = ", ".join(["%s"] * arguments)
        return f'SELECT * FROM "{self.name}".{name}{self.release}({gaps})'  # noqa: S608 (own names)

    async def prepare(self, connection: PooledConnection, address: str) -> float:
        """Create what is missing, however many processes do so at once; the server's clock.

        Raises `StoreSetupError` for a server that cannot be used.
        """
        found = connection.info.server_version // 10000
        if found < OLDEST_SERVER:
            raise StoreSetupError(
                "store_version", address=address, found=str(found), needed=str(OLDEST_SERVER)
            )
        cursor = await connection.execute(
            "SELECT pg_is_in_recovery(), current_setting('transaction_read_only'),"
            " current_setting('default_transaction_isolation'), to_regproc(%s) IS NOT NULL",
            [f'"{self.name}".close_incident{self.release}'],
        )
        replica, read_only, isolation, complete = await cursor.fetchone() or ()
        if replica:
            raise StoreSetupError("store_replica", address=address)
        for name, value, wanted in (
            ("default_transaction_read_only", read_only, "off"),
            ("default_transaction_isolation", isolation, "read committed"),
        ):
            if value != wanted:
                raise StoreSetupError("store_refused", address=address, reason=f"{name}={value}")
        if not complete:
            await self._create(connection)
        await self._check_version(connection)
        cursor = await connection.execute("SELECT date_part('epoch', clock_timestamp())")
        (clock,) = await cursor.fetchone() or ()
        return float(clock)

    async def _create(self, connection: PooledConnection) -> None:
        async with connection.transaction():
            # Held until the transaction ends: one process at a time comes past this line.
            await connection.execute(
                "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"kit {self.name}"]
            )
            cursor = await connection.execute(
                "SELECT to_regnamespace(%s) IS NULL, to_regclass(%s) IS NULL,"
                " to_regproc(%s) IS NULL",
                [
                    f'"{self.name}"',
                    f'"{self.name}".schema_version',
                    f'"{self.name}".close_incident{self.release}',
                ],
            )
            no_schema, no_tables, no_steps = await cursor.fetchone() or ()
            if no_schema:
                await connection.execute(f'CREATE SCHEMA "{self.name}"')
            if no_tables:
                await connection.execute(self._tables)
                await connection.execute(
                    f'INSERT INTO "{self.name}".schema_version VALUES ({VERSION})'  # noqa: S608
                )
            else:
                await self._check_version(connection)
            if no_steps:
                # The functions of other releases stay: their processes may still be running.
                await connection.execute(self._steps)

    async def _check_version(self, connection: PooledConnection) -> None:
        cursor = await connection.execute(
            f'SELECT version FROM "{self.name}".schema_version'  # noqa: S608
        )
        (found,) = await cursor.fetchone() or ()
        if found > VERSION:
            raise StoreSetupError("store_newer", found=found, known=VERSION)


async def concerns_of(connection: PooledConnection) -> tuple[Concern, ...]:
    """The settings of the server that weaken what `stores/postgres.py` promises."""
    cursor = await connection.execute(
        "SELECT current_setting('fsync'), current_setting('full_page_writes'),"
        " current_setting('synchronous_commit'), current_setting('synchronous_standby_names')"
    )
    fsync, full_page_writes, commit, standbys = await cursor.fetchone() or ()
    switches = {"fsync": fsync, "full_page_writes": full_page_writes}
    found = [
        Concern("postgres_fsync", {"name": name})
        for name, value in switches.items()
        if value == "off"
    ]
    # The other values wait for this server's disk; "local" does not wait for its standbys.
    if commit == "off" or (commit == "local" and standbys):
        found.append(Concern("postgres_synchronous_commit", {"value": commit}))
    return tuple(found)


def _sql(file: str, **facts: object) -> str:
    text = Path(__file__).with_name(file).read_text(encoding="utf-8")
    for name, value in facts.items():
        text = text.replace(f"@{name}@", str(value))
    return text
