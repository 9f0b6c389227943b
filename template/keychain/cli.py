"""`uv run secrets init|check|push`: the app's secrets, from `.env` to where it is deployed.

Exit codes: 0 when nothing is missing or wrong, 1 when something is or was not confirmed, 64
(EX_USAGE) for a command that cannot be carried out, 69 (EX_UNAVAILABLE) when the target gave no
answer or refused.
"""

import argparse
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path

from checklist.cli import EX_INTERRUPTED, EX_USAGE, Parser
from keychain.ask import Missing, fill
from keychain.check import check_file, check_place
from keychain.env_file import ENV
from keychain.messages import RefusedError, say
from keychain.places import PlaceError, place_of
from keychain.push import push
from keychain.values import NAME, known_names

EX_OPEN = 1
EX_UNAVAILABLE = 69


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    asked = _parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        return 0 if RUN[asked.command](asked) else EX_OPEN
    except RefusedError as refused:
        print(refused, file=sys.stderr)
        return EX_USAGE
    except PlaceError as error:
        print(error, file=sys.stderr)
        return EX_UNAVAILABLE
    except (KeyboardInterrupt, EOFError):
        return EX_INTERRUPTED


def _init(asked: argparse.Namespace) -> bool:
    path: Path = asked.file
    try:
        missing = Missing(path, place_of(ENV.parent), asked.env)
        left = fill(path, missing, asked.names, asked.generate)
    except (KeyboardInterrupt, EOFError):
        print(say("init.ended", file=path.name), file=sys.stderr)
        raise
    for name, words in left.items():
        print(f"{name}: {words}")
    if not left and not asked.names:
        print(say("init.complete", file=path.name))
    return not left


def _check(asked: argparse.Namespace) -> bool:
    complete = asked.env == "target" or check_file(asked.file)
    if asked.env != "local":
        complete = check_place(place_of(ENV.parent), asked.file) and complete
    return complete


def _push(asked: argparse.Namespace) -> bool:
    return push(asked.file, place_of(ENV.parent), asked.names, sure=asked.yes)


RUN = {"init": _init, "check": _check, "push": _push}


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="secrets", description=say("cli.about"))
    commands = parser.add_subparsers(dest="command", required=True)
    found = {name: commands.add_parser(name, help=say(f"cli.{name}")) for name in RUN}
    for command in found.values():
        command.add_argument("--file", type=Path, default=ENV, metavar="FILE", help=say("cli.file"))
    for name in ("init", "check"):
        found[name].add_argument("--env", choices=("local", "target"), help=say("cli.env"))
    for name, kind in {"init": _setting, "push": _name}.items():
        found[name].add_argument(
            "names", nargs="*", type=kind, metavar="NAME", help=say("cli.names")
        )
    found["init"].add_argument("--generate", action="store_true", help=say("cli.generate"))
    found["push"].add_argument("--yes", action="store_true", help=say("cli.yes"))
    return parser


def _setting(text: str) -> str:
    if text.upper() not in known_names():
        raise argparse.ArgumentTypeError(say("cli.unknown"))
    return text.upper()


def _name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(say("cli.unknown"))
    return text
