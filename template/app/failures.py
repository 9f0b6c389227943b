"""`uv run failures list|export`: what went wrong, and tests that it does not go wrong again."""

import argparse
import asyncio
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

from app.foundation.messages import load_messages
from app.foundation.project import load_project
from app.launch.failures.cases import as_toml, write_new
from app.launch.failures.envelope import Envelopes
from app.launch.failures.reading import Failure, failures, totals
from app.standards.environment import settings_so_far
from app.stores.base import StoreSetupError, StoreUnavailableError
from app.stores.choose import choose_store

EX_USAGE = 64
EX_UNAVAILABLE = 69
EX_CONFIG = 78
CASES = "tests/yours/cases"
_UNITS = {"m": 60, "h": 3600, "d": 86400}
_SHOWN = 60


def main(arguments: list[str] | None = None) -> int:
    """Run the command. Exit codes: 0 done, 64 no such time, 69 no store, 78 no ADMIN_TOKEN."""
    say = load_messages(load_project().language).text
    parser = argparse.ArgumentParser(prog="failures", description=say("failures.about"))
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("list", "export"):
        add = commands.add_parser(name, help=say(f"failures.help_{name}")).add_argument
        add("--since", default="", help=say("failures.help_since"))
        if name == "export":
            add("--to", default=CASES, metavar="FOLDER", help=say("failures.help_to"))
    given = parser.parse_args(arguments)
    try:
        at_most = _age(given.since)
    except ValueError:
        print(say("failures.no_time", given=given.since), file=sys.stderr)
        return EX_USAGE
    settings, _ = settings_so_far()
    envelopes = Envelopes(settings.admin_token)
    if given.command == "export" and not envelopes.seals:
        print(say("failures.no_token"), file=sys.stderr)
        return EX_CONFIG
    try:
        found, counts = asyncio.run(_read(envelopes))
    except (StoreUnavailableError, StoreSetupError) as error:
        print(say("failures.no_store", reason=error), file=sys.stderr)
        return EX_UNAVAILABLE
    found = [failure for failure in found if failure.age <= at_most]
    if given.command == "list":
        _list(found, counts)
    else:
        _export(found, given.to)
    if locked := sum(failure.locked for failure in found):
        print(say("failures.locked", count=locked), file=sys.stderr)
    return 0


async def _read(envelopes: Envelopes) -> tuple[list[Failure], dict[str, int]]:
    store = choose_store(settings_so_far()[0])
    try:
        await store.open()
        return await failures(store, envelopes), await totals(store)
    finally:
        await store.close()


def _list(found: list[Failure], counts: dict[str, int]) -> None:
    say = load_messages(load_project().language).text
    if not found:
        print(say("failures.none"))
        return
    for cause in dict.fromkeys(failure.cause for failure in found):
        examples = [failure for failure in found if failure.cause == cause]
        times = counts.get(cause, len(examples))
        print(say("failures.cause", cause=cause, times=times, examples=len(examples)))
        for failure in examples:
            facts = failure.facts
            print(f"  {facts.at[:19]}Z  {failure.times}x  {facts.request_id}  {_shown(failure)}")


def _shown(failure: Failure) -> str:
    """The beginning of what was asked last, as it may stand in a terminal."""
    asked = failure.text.question if failure.text else ()
    text = asked[-1][1] if asked else ""
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _export(found: list[Failure], folder: str) -> None:
    say = load_messages(load_project().language).text
    told = [failure for failure in found if failure.text is not None and failure.text.question]
    new = 0
    for failure in told:
        facts = failure.facts
        about = say(
            "failures.case",
            cause=failure.cause,
            times=failure.times,
            at=facts.at,
            request_id=facts.request_id,
        )
        content, path = as_toml(failure, about), Path(folder, f"{failure.name}.toml")
        if folder == "-":
            print(content)
        elif write_new(path, content):
            new += 1
            print(path)
    if folder != "-":
        known = len(told) - new
        print(say("failures.exported", new=new, known=known, folder=folder), file=sys.stderr)
    if without := len(found) - len(told):
        print(say("failures.no_text", count=without), file=sys.stderr)


def _age(since: str) -> float:
    """The most seconds that a failure may lie back. Raises `ValueError`."""
    if not since:
        return float("inf")
    if (span := re.fullmatch(r"(\d{1,6})([mhd])", since)) is not None:
        return int(span[1]) * _UNITS[span[2]]
    moment = datetime.fromisoformat(since)
    return (datetime.now(UTC) - (moment if moment.tzinfo else moment.astimezone())).total_seconds()
