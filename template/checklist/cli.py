"""`uv run checklist`: run the items, show what they found, say whether the app is ready.

Exit codes: 0 when every item is checked, 1 when one or two are open, 2 when three or more are, and
64 (EX_USAGE) for a command that cannot be carried out.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from io import TextIOWrapper
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.live import Live

from app.foundation.project import load_project
from app.ops.checklist import FILE
from checklist import record, report, runner
from checklist.items import BY_NUMBER, HERE, ITEMS, Item
from checklist.messages import load_texts
from checklist.missing import missing_files
from checklist.results import RefusedError, Report, Result

EX_USAGE = 64
EX_INTERRUPTED = 130  # as shells count it: 128 and the signal
FORMATS = {
    "json": report.as_json,
    "html": report.as_html,
    "markdown": report.as_markdown,
}
SUFFIXES = {".json": "json", ".html": "html", ".md": "markdown"}


class Parser(argparse.ArgumentParser):
    """Ends a command line that it does not understand with EX_USAGE: 2 says "not ready"."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(EX_USAGE, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    asked = _parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a console that has no ☑ must not end it
    try:
        found = _look_at(asked.url) if asked.url else _run(_items(asked.item))
    except RefusedError as refused:
        print(refused, file=sys.stderr)
        return EX_USAGE
    except KeyboardInterrupt:
        return EX_INTERRUPTED
    if not asked.url and not asked.item:
        _keep(found)
    if asked.format == "text":
        Console().print(report.as_text(found))
    else:
        print(FORMATS[asked.format](found))
    for path in asked.report:
        path.write_text(FORMATS[SUFFIXES[path.suffix]](found), encoding="utf-8")
    return found.exit_code


def _keep(found: Report) -> None:
    """Let the app show it, and a build take it along; not what was found out about another app."""
    if os.environ.get("CHECKLIST_APP"):
        return
    try:
        record.keep(found)
    except OSError as error:
        facts = {"file": FILE, "reason": error.strerror or type(error).__name__}
        print(load_texts().text("report.not_kept", **facts), file=sys.stderr)


def _look_at(url: str) -> Report:
    from checklist import outside  # it loads the whole app, which takes a second

    return outside.run(url)


def _items(numbers: list[str] | None) -> list[Item]:
    return [item for item in ITEMS if numbers is None or item.number in numbers]


def _run(items: list[Item]) -> Report:
    """Run the items and show on standard error how far they are."""
    results: list[Result] = []
    running: list[str] = []
    started = time.monotonic()
    screen = Console(stderr=True)
    with Live(console=screen, transient=True, auto_refresh=False) as live:

        def show() -> None:
            if screen.is_terminal:
                live.update(report.as_table(_sorted(results), tuple(sorted(running))), refresh=True)

        def on_start(item: Item) -> None:
            running.append(item.number)
            show()

        def on_end(result: Result) -> None:
            running.remove(result.item.number)
            results.append(result)
            if screen.is_terminal:
                show()
            else:
                words = f"{result.mark} {result.item.number} {result.title} {result.seconds:.1f} s"
                print(words, file=sys.stderr, flush=True)

        found = runner.run(items, on_start, on_end)
    seconds = time.monotonic() - started
    missing = missing_files(HERE.parent)
    notes = (
        [load_texts().text("report.missing", files=", ".join(missing), first=missing[0])]
        if missing
        else []
    )
    when = datetime.now().astimezone()
    return Report(load_project().name, when, found, len(ITEMS), seconds, notes)


def _sorted(results: list[Result]) -> list[Result]:
    return sorted(results, key=lambda result: ITEMS.index(result.item))


def _parser() -> argparse.ArgumentParser:
    text = load_texts().text
    parser = Parser(prog="checklist", description=text("cli.about"))
    parser.add_argument(
        "--item",
        action="append",
        choices=sorted(BY_NUMBER),
        metavar="N.N",
        help=text("cli.item"),
    )
    parser.add_argument(
        "--format", choices=("text", *FORMATS), default="text", help=text("cli.format")
    )
    parser.add_argument(
        "--report",
        action="append",
        type=_report_file,
        default=[],
        metavar="FILE",
        help=text("cli.report"),
    )
    parser.add_argument("--url", metavar="URL", help=text("cli.url"))
    return parser


def _report_file(name: str) -> Path:
    path = Path(name)
    if path.suffix not in SUFFIXES:
        raise argparse.ArgumentTypeError(f"{name}: {', '.join(SUFFIXES)}")
    return path
