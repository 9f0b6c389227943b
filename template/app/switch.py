"""`uv run switch off|on|list`: the kill switches, from a terminal that reaches the store."""

import argparse
import asyncio
import getpass
import socket
import sys

from app.foundation.messages import load_messages
from app.foundation.project import load_project
from app.foundation.settings import Settings
from app.launch.switches import LOOK_EVERY_SECONDS, Off, Switches, switch_names
from app.standards.environment import settings_so_far
from app.stores.base import StoreSetupError, StoreUnavailableError
from app.stores.choose import choose_store

EX_USAGE = 64
EX_UNAVAILABLE = 69


def main(arguments: list[str] | None = None) -> int:
    """Run the command. Exit codes: 0 done, 1 not confirmed, 64 no such switch, 69 no store."""
    say = load_messages(load_project().language).text
    parser = argparse.ArgumentParser(prog="switch", description=say("switch.about"))
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help=say("switch.help_list"))
    for command in ("off", "on"):
        turn = commands.add_parser(command, help=say(f"switch.help_{command}"))
        turn.add_argument("name", help=say("switch.help_name"))
        turn.add_argument("--why", default="", help=say("switch.help_why"))
        turn.add_argument("--yes", action="store_true", help=say("switch.help_yes"))
    given = parser.parse_args(arguments)
    settings, _ = settings_so_far()  # all that a switch needs is where the store is
    targets = [(name, str(getattr(settings, f"{name}_model"))) for name in _real(settings)]
    if settings.candidate:
        name, _, model = settings.candidate.partition(":")
        targets.append((name, model))
    names = switch_names(targets)
    if given.command != "list":
        if given.name not in names:
            print(say("switch.unknown", name=given.name, names=", ".join(names)), file=sys.stderr)
            return EX_USAGE
        question = say(f"switch.ask_{given.command}", name=given.name)
        if not given.yes and not _confirmed(question):
            print(say("switch.not_done"), file=sys.stderr)
            return 1
    try:
        lines = asyncio.run(_do(given, settings, names))
    except (StoreUnavailableError, StoreSetupError) as error:
        print(say("switch.no_store", reason=error), file=sys.stderr)
        return EX_UNAVAILABLE
    print("\n".join(lines))
    return 0


async def _do(given: argparse.Namespace, settings: Settings, names: tuple[str, ...]) -> list[str]:
    say = load_messages(load_project().language).text
    store = choose_store(settings)
    switches = Switches(store, names)
    try:
        await store.open()
        if given.command == "list":
            off = {item.name: item for item in await switches.listed()}
            return [_line(name, off.get(name)) for name in names]
        if given.command == "off":
            by = f"{getpass.getuser()}@{socket.gethostname()}"
            await switches.turn_off(given.name, by=by, why=given.why)
        else:
            await switches.turn_on(given.name)
    finally:
        await store.close()
    return [say(f"switch.done_{given.command}", name=given.name, seconds=LOOK_EVERY_SECONDS)]


def _real(settings: Settings) -> list[str]:
    """The providers that the project has: PROVIDERS may leave some out on this machine."""
    named = dict.fromkeys((*load_project().providers, *settings.providers))
    return [name for name in named if name != "demo"]


def _confirmed(question: str) -> bool:
    if not sys.stdin.isatty():
        return False
    return input(f"{question} [y/N] ").strip().lower() in {"y", "yes", "예", "네"}


def _line(name: str, off: Off | None) -> str:
    if off is None:
        return f"on   {name}"
    return f"off  {name}  {off.at}  {off.by}  {off.why}".rstrip()
