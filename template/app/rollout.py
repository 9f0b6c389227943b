"""`uv run rollout report`: the candidate beside the proven model, from the store's counts."""

import argparse
import asyncio
import sys
from collections.abc import Callable, Iterator, Mapping

from app.foundation.messages import load_messages
from app.foundation.project import load_project
from app.foundation.settings import NANO_PER_USD, Settings
from app.launch.rollout.figures import quantile, read
from app.standards.environment import settings_so_far
from app.stores.base import StoreSetupError, StoreUnavailableError
from app.stores.choose import choose_store

EX_USAGE = 64
EX_UNAVAILABLE = 69
DAY, MOST_HOURS = 24, 35 * 24 - 1
NOTHING = "-"

Total = Mapping[str, int]
Figure = Callable[[Total, str], str]


def main(arguments: list[str] | None = None) -> int:
    """Run the command. Exit codes: 0 done, 64 no candidate, 69 no store."""
    say = load_messages(load_project().language).text
    parser = argparse.ArgumentParser(prog="rollout", description=say("rollout.about"))
    commands = parser.add_subparsers(dest="command", required=True)
    add = commands.add_parser("report", help=say("rollout.help_report")).add_argument
    hours = range(1, MOST_HOURS + 1)
    about = say("rollout.help_hours")
    add("--hours", type=int, default=DAY, choices=hours, metavar="N", help=about)
    add("--candidate", metavar="NAME", help=say("rollout.help_candidate"))
    given = parser.parse_args(arguments)
    settings, _ = settings_so_far()  # all that is needed is where the store is
    candidate = given.candidate or settings.candidate
    if candidate is None:
        print(say("rollout.no_candidate"), file=sys.stderr)
        return EX_USAGE
    try:
        total = asyncio.run(_total(settings, candidate, given.hours))
    except (StoreUnavailableError, StoreSetupError) as error:
        print(say("rollout.no_store", reason=error), file=sys.stderr)
        return EX_UNAVAILABLE
    first = settings.providers[0] if settings.providers else ""
    print(say("rollout.title", hours=given.hours))
    print("\n".join(_lines(total, f"{first}:{getattr(settings, f'{first}_model', '')}", candidate)))
    return 0


async def _total(settings: Settings, candidate: str, hours: int) -> Total:
    store = choose_store(settings)
    try:
        await store.open()
        return await read(store, candidate, hours)
    finally:
        await store.close()


def _lines(total: Total, stable: str, candidate: str) -> Iterator[str]:
    """Two tables. The numbers come first, so that words of any width stand below each other."""
    say = load_messages(load_project().language).text
    width = max(len(stable), len(candidate), 12)
    for kind in ("canary", "shadow"):
        yield ""
        yield say(f"rollout.{kind}")
        if not any(label.startswith(f"{kind} ") for label in total):
            yield f"  {say('rollout.nothing')}"
            continue
        yield f"  {stable:>{width}}  {candidate:>{width}}"
        for name, figure in _FIGURES.items():
            sides = [figure(total, f"{kind} {arm}") for arm in ("stable", "canary")]
            if sides != [NOTHING, NOTHING]:
                yield f"  {sides[0]:>{width}}  {sides[1]:>{width}}  {say(f'rollout.{name}')}"
    if pairs := total.get("shadow compared", 0):
        alike = f"{total.get('shadow similarity', 0) / pairs / 1000:.2f}"
        yield f"  {'':>{width}}  {alike:>{width}}  {say('rollout.similarity')}"


def _requests(total: Total, side: str) -> str:
    return str(total.get(f"{side} requests", 0))


def _share(part: str, whole: str) -> Figure:
    def share(total: Total, side: str) -> str:
        events = total.get(f"{side} {whole}", 0)
        return f"{total.get(f'{side} {part}', 0) / events:.2%}" if events else NOTHING

    return share


def _duration(share: float) -> Figure:
    def duration(total: Total, side: str) -> str:
        seconds = quantile(total, side, share)
        return NOTHING if seconds is None else f"{seconds:.2f} s"

    return duration


def _cost(total: Total, side: str) -> str:
    requests = total.get(f"{side} requests", 0)
    return f"${total.get(f'{side} nano', 0) / NANO_PER_USD / requests:.6f}" if requests else NOTHING


_FIGURES: dict[str, Figure] = {
    "requests": _requests,
    "bad": _share("bad", "requests"),
    "p50": _duration(0.5),
    "p95": _duration(0.95),
    "cost": _cost,
    "json": _share("json_good", "json"),
}
