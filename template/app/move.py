"""`uv run stores move --from URL`: bring the records of another store into the app's own."""

import argparse
import asyncio
import os
import sys
import time
from decimal import Decimal

from pydantic import SecretStr

from app.foundation.messages import load_messages
from app.foundation.project import load_project
from app.foundation.settings import Settings
from app.preflight import check_store
from app.standards.environment import settings_so_far, stop
from app.stores.base import Spending, StoreUnavailableError
from app.stores.choose import choose_store
from app.stores.moving import InFlightError, Kind, Moved, MoveError, Records, move, open_records

EX_USAGE = 64
EX_UNAVAILABLE = 69
EX_TEMPFAIL = 75  # sysexits.h: the same command will do later

FROM = "OLD_STORE_URL"  # in the environment: a URL with a password belongs into no shell's history
STORES = {
    "sqlite": "sqlite",
    "redis": "redis",
    "rediss": "redis",
    "postgres": "postgres",
    "postgresql": "postgres",
}
LOOK_AGAIN_SECONDS = 0.5
SHOW_EVERY = 1000


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Exit codes: 0 moved and checked, 64 for what cannot be carried out, 69 when a store fails, 75
    while requests run on the old store. 78 for an environment that is not complete.
    """
    say = load_messages(load_project().language).text
    parser = argparse.ArgumentParser(prog="stores", description=say("move.about"))
    commands = parser.add_subparsers(dest="command", required=True)
    add = commands.add_parser("move", help=say("move.about")).add_argument
    add("--from", dest="source", metavar="URL", help=say("move.help_from", name=FROM))
    add("--to", dest="target", metavar="URL", help=say("move.help_to"))
    add("--wait", action="store_true", help=say("move.help_wait"))
    given = parser.parse_args(arguments)
    source = given.source or os.environ.get(FROM, "")
    try:
        settings = _settings(given.target)
        kind = _kind(source)
        asyncio.run(check_store(settings))  # makes the tables where there are none yet
        moved = _moved(kind, source, settings, wait=given.wait)
        spending = asyncio.run(_spending(settings))
    except MoveError as error:
        print(say(f"move.{error.complaint}", **error.facts), file=sys.stderr)
        if isinstance(error, InFlightError):
            return EX_TEMPFAIL
        return EX_UNAVAILABLE if error.complaint == "failed" else EX_USAGE
    _report(moved, spending)
    return 0


def _moved(kind: str, source: str, settings: Settings, *, wait: bool) -> Moved:
    project = load_project()
    old = open_records(kind, source, project.slug)
    try:
        new = open_records(project.store, settings.store_url, project.slug)
        try:
            return _patiently(old, new) if wait else move(old, new, _show)
        finally:
            new.close()
    finally:
        old.close()


def _patiently(old: Records, new: Records) -> Moved:
    said = False
    while True:
        try:
            return move(old, new, _show)
        except InFlightError as error:
            if not said:
                say = load_messages(load_project().language).text
                print(say("move.waiting", **error.facts), file=sys.stderr, flush=True)
            said = True
            time.sleep(min(LOOK_AGAIN_SECONDS, error.ends_in))


async def _spending(settings: Settings) -> Spending:
    store = choose_store(settings)
    try:
        await store.open()
        return await store.spending()
    except StoreUnavailableError as error:
        raise MoveError("failed", address=store.address, reason=error) from error
    finally:
        await store.close()


def _settings(target: str | None) -> Settings:
    """The environment, as far as it is right: what a move needs is where the store is."""
    settings, problems = settings_so_far()
    if target is not None:
        if _kind(target) != load_project().store:
            raise MoveError("other_store", store=load_project().store)
        return settings.model_copy(update={settings.store_setting: SecretStr(target)})
    if missing := [problem for problem in problems if problem.name == settings.store_setting]:
        stop(missing)
    return settings


def _kind(url: str) -> str:
    scheme = url.partition(":")[0]
    if scheme not in STORES:
        raise MoveError("wrong_url", names="sqlite:///, redis://, rediss://, postgresql://")
    return STORES[scheme]


def _show(kind: Kind, met: int) -> None:
    if met % SHOW_EVERY == 0 and met:
        say = load_messages(load_project().language).text
        print(say(f"move.{kind}", met=met), file=sys.stderr, flush=True)


def _report(moved: Moved, spending: Spending) -> None:
    say = load_messages(load_project().language).text
    for kind in ("money", "answers", "memos", "entries"):
        line = say(f"move.{kind}", met=moved.met[kind])
        print(say("move.line", line=line, new=moved.new[kind]))
    usd = Decimal(spending.settled_nano) / 10**9
    print(say("move.checked", usd=f"{usd:.6f}"))
