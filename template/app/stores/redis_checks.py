"""What the app looks at when it meets a Redis server: can it be used, and what does it promise?"""

import ssl
from typing import Any

from redis import exceptions
from redis.asyncio import Redis

from app.stores.base import Concern, StoreSetupError

SCHEMA_VERSION = 1
OLDEST_VERSION = 7


def address(redis: Redis) -> str:
    """Where the server is, for a person."""
    facts = redis.connection_pool.connection_kwargs
    return f"{facts.get('host', 'localhost')}:{facts.get('port', 6379)}"


async def check(redis: Redis, schema_key: str) -> None:
    """Raise `StoreSetupError` for what a person must mend; other errors pass."""
    try:
        info = await _info(redis)
        if info.get("role") == "slave":
            raise StoreSetupError("store_replica", address=address(redis))
        version = str(info.get("redis_version", OLDEST_VERSION))
        if int(version.split(".")[0]) < OLDEST_VERSION:
            raise StoreSetupError(
                "store_version", address=address(redis), found=version, needed=OLDEST_VERSION
            )
        await redis.set(schema_key, SCHEMA_VERSION, nx=True)
        found = int(await redis.get(schema_key) or SCHEMA_VERSION)
        if found > SCHEMA_VERSION:
            raise StoreSetupError("store_newer", found=found, known=SCHEMA_VERSION)
    except (exceptions.RedisError, OSError) as error:
        complaint = _complaint(error)
        if complaint is None:
            raise
        raise StoreSetupError(
            complaint,
            address=address(redis),
            database=redis.connection_pool.connection_kwargs.get("db", 0),
            reason=_first_line(error),
        ) from error


async def concerns(redis: Redis) -> tuple[Concern, ...]:
    """The server's settings that weaken a promise, as far as it tells them."""
    info, found = await _info(redis), []
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction":
        found.append(Concern("redis_eviction", {"policy": policy}))
    if info.get("aof_enabled") == 0:
        snapshots = await _setting(redis, "save") != ""
        found.append(Concern("redis_snapshots_only" if snapshots else "redis_no_persistence"))
    elif (sync := await _setting(redis, "appendfsync")) not in {None, "always"}:
        found.append(Concern("redis_everysec", {"policy": str(sync)}))
    return tuple(found)


async def _info(redis: Redis) -> dict[str, Any]:
    """What the server says of itself; nothing where this user may not ask."""
    try:
        return dict(await redis.info())
    except exceptions.NoPermissionError:
        return {}


async def _setting(redis: Redis, name: str) -> str | None:
    """A setting of the server; None where it does not tell (managed servers often do not)."""
    try:
        found = await redis.config_get(name)
    except exceptions.ResponseError:
        return None
    value: Any = next(iter(found.values()), None)
    return value.decode() if isinstance(value, bytes) else value


def _complaint(error: Exception) -> str | None:
    """The complaint that an error stands for; None when the server is only down."""
    text = str(error).lower()
    if isinstance(error, exceptions.NoPermissionError):
        return "store_permission"
    if isinstance(error, exceptions.AuthenticationError) or "wrongpass" in text:
        return "store_password"
    if "db index is out of range" in text:
        return "store_database"
    if isinstance(error, exceptions.InvalidResponse) or "denied" in text:
        return "store_refused"
    causes = (error, error.__cause__, error.__context__)
    if "ssl" in text or any(isinstance(cause, ssl.SSLError) for cause in causes):
        return "store_tls"
    return None


def _first_line(error: Exception) -> str:
    """The error's first words: what servers say here holds no secret."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
