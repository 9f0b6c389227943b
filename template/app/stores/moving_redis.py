"""The records of a Redis or Valkey database, for a move."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from app.stores.base import KEEP_COUNTS, Entry, StoredAnswer
from app.stores.moving import (
    BATCH,
    IDENTITY,
    KEEP_IDENTITY_SECONDS,
    STEP_SECONDS,
    VERSION,
    Collected,
    DayMoney,
    Key,
    Lease,
    Memo,
    MoveError,
    Under,
    driver,
    subject_of,
)

_STEPS = (Path(__file__).parent / "moving_redis.lua").read_text(encoding="utf-8")


def open_records(url: str, namespace: str) -> "RedisRecords":
    """The records of one app in a database. No byte is sent yet."""
    return RedisRecords(url, namespace)


class RedisRecords:
    """`Records` of one app; a step is one run of `moving_redis.lua`."""

    def __init__(self, url: str, namespace: str) -> None:
        package = driver("redis", "redis[hiredis]")
        self._errors = (package.exceptions.RedisError, OSError)
        try:
            self._redis: Any = package.Redis.from_url(
                url,
                protocol=2,
                socket_timeout=STEP_SECONDS,
                socket_connect_timeout=STEP_SECONDS,
            )
        except ValueError:
            raise MoveError("wrong_url", names="redis://, rediss://") from None
        facts = self._redis.connection_pool.connection_kwargs
        self._address = f"{facts.get('host', 'localhost')}:{facts.get('port', 6379)}"
        self._tag = "{" + namespace + "}"
        self._run: Any = self._redis.register_script(_STEPS)

    @contextmanager
    def failures(self) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            # What Redis and its client say of an error holds no secret.
            raise MoveError("failed", address=self._address, reason=error) from error

    def identity(self, proposed: str) -> str:
        version = self._redis.get(self._key("schema"))
        if version is None or int(version) != VERSION:
            complaint = "not_ours" if version is None else "other_version"
            raise MoveError(complaint, address=self._address)
        keys = [self._key("memo", IDENTITY)]
        found: bytes = self._run(keys, ["identity", proposed, KEEP_IDENTITY_SECONDS])
        return found.decode()

    def leases(self) -> list[Lease]:
        return [
            Lease(
                date.fromisoformat(day.decode()),
                tuple(subject.decode() for subject in subjects),
                int(amount),
                claim.decode() or None,
                bool(dispatched),
                float(ends_in),
            )
            for day, amount, claim, dispatched, ends_in, *subjects in self._run(
                [self._key("leases"), self._key("reservations")], ["leases"]
            )
        ]

    def days(self) -> Iterator[DayMoney]:
        # `days` holds "<day> <subject>" by the day's number, and so day by day.
        for day, group in groupby(self._money(), key=lambda row: row[0]):
            money = list(group)
            settled = {subject: nano for _, subject, nano, _ in money}
            yield DayMoney(date.fromisoformat(day), settled, any(row[3] for row in money))

    def counts(self) -> dict[Under, int]:
        found: dict[Under, int] = {}
        seconds, _ = self._redis.time()
        start = self._key("counts", "")
        for key in self._redis.scan_iter(match=f"{start}*", count=1000):
            name, span = key.decode().removeprefix(start).rsplit(":", 1)
            for field, value in self._redis.hscan_iter(key, count=BATCH):
                number, _, label = field.decode().partition(" ")
                if int(number) >= seconds // int(span) - KEEP_COUNTS[int(span)]:
                    found[(name, int(span), int(number), label)] = int(value)
        return found

    def merge_counts(self, counts: Mapping[Under, int]) -> int:
        together: dict[tuple[str, int], list[tuple[str, int]]] = {}
        for (name, span, number, label), value in counts.items():
            together.setdefault((name, span), []).append((f"{number} {label}", value))
        new = 0
        for (name, span), fields in together.items():
            named = [
                (kind, who) for who in (name, subject_of(name)) for kind in ("counts", "counted")
            ]
            keys = [self._key(kind, who, str(span)) for kind, who in named]
            keep = span * (KEEP_COUNTS[span] + 1)
            for at in range(0, len(fields), BATCH):
                some = [part for pair in fields[at : at + BATCH] for part in pair]
                new += int(self._run(keys, ["counts", keep, *some]))
        return new

    def keys(self) -> Iterator[list[Key]]:
        fields = ("fingerprint", "status", "media_type", "body", "complete", "keep", "expires_at")
        for names, rows, now in self._hashes("claim", fields):
            found = []
            for name, row in zip(names, rows, strict=True):
                fingerprint, status, media_type, body, complete, keep, ends = row
                answer = None
                if status is not None:
                    kind = media_type.decode()
                    answer = StoredAnswer(int(status), kind, body, complete == b"1")
                if fingerprint is not None and (answer is None or float(ends) > now):
                    left = float(ends or now) - now
                    found.append(Key(name, fingerprint.decode(), answer, int(keep), left))
            yield found

    def memos(self) -> Iterator[list[Memo]]:
        for names, rows, now in self._hashes("memo", ("value", "expires_at")):
            yield [
                Memo(name, value, float(ends) - now)
                for name, (value, ends) in zip(names, rows, strict=True)
                if value is not None and float(ends) > now
            ]

    def entries(self) -> Iterator[list[Collected]]:
        start = self._key("entries", "")
        for found in self._redis.scan_iter(match=f"{start}*", count=1000):
            name, at = found.decode().removeprefix(start), 0
            while rows := self._run(self._entry_keys(name), ["entries", at, at + BATCH - 1]):
                at += len(rows)
                yield [
                    Collected(name, Entry(key.decode(), value, int(n), float(age)), float(left))
                    for key, value, n, age, left in rows
                    if float(left) > 0
                ]

    def merge_day(self, money: DayMoney) -> int:
        counters = [part for counter in money.settled_nano.items() for part in counter]
        day, number = money.day.isoformat(), money.day.toordinal()
        keys = [self._key("spend"), self._key("days")]
        return int(self._run(keys, ["day", day, number, int(money.warned), *counters]))

    def merge_keys(self, keys: list[Key]) -> int:
        calls = []
        for key in keys:
            if (answer := key.answer) is not None:
                facts = [key.expires_in, key.keep_seconds, key.fingerprint, answer.status]
                facts += [answer.media_type, int(answer.complete)]
                body = [] if answer.body is None else [answer.body]
                calls.append((self._key("claim", key.key), ["key", *facts, *body]))
        return self._run_all(calls)

    def merge_memos(self, memos: list[Memo]) -> int:
        return self._run_all(
            [(self._key("memo", memo.key), ["memo", memo.expires_in, memo.value]) for memo in memos]
        )

    def merge_entries(self, entries: list[Collected]) -> int:
        pipeline = self._redis.pipeline(transaction=False)
        for one in entries:
            entry = one.entry
            facts = [one.expires_in, entry.key, entry.value, entry.times, entry.age]
            self._run(self._entry_keys(one.name), ["entry", *facts], client=pipeline)
        return sum(map(int, pipeline.execute()))

    def _entry_keys(self, name: str) -> list[str]:
        return [self._key("entries", name), self._key("entry_ends", name)]

    def close(self) -> None:
        self._redis.close()

    def _key(self, *parts: str) -> str:
        return ":".join((self._tag, *parts))

    def _run_all(self, calls: list[tuple[str, list[Any]]]) -> int:
        """Run a step for each key, all on one way to the server; the sum of what they return."""
        pipeline = self._redis.pipeline(transaction=False)
        for key, arguments in calls:
            self._run([key], arguments, client=pipeline)
        return sum(map(int, pipeline.execute()))

    def _money(self) -> Iterator[tuple[str, str, int, bool]]:
        start = 0
        while rows := self._redis.zrange(self._key("days"), start, start + BATCH - 1):
            start += len(rows)
            names = [row.decode() for row in rows]
            fields = [f"{name} {kind}" for name in names for kind in ("settled", "warned")]
            values = self._redis.hmget(self._key("spend"), fields)
            for name, settled, warned in zip(names, values[::2], values[1::2], strict=True):
                day, _, subject = name.partition(" ")
                yield day, subject, int(settled or 0), warned is not None

    def _hashes(
        self, kind: str, fields: tuple[str, ...]
    ) -> Iterator[tuple[list[str], list[list[Any]], float]]:
        """The app's hashes of one kind: their names, their fields, and the server's time."""
        start = self._key(kind, "")
        # Whatever was there all the time is met, some of it perhaps twice.
        found = self._redis.scan_iter(match=f"{start}*", count=1000)
        while names := list(islice(found, BATCH)):
            pipeline = self._redis.pipeline(transaction=False)
            for name in names:
                pipeline.hmget(name, fields)
            seconds, micros = self._redis.time()
            now = seconds + micros / 1e6
            yield [name.decode().removeprefix(start) for name in names], pipeline.execute(), now
