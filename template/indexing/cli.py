"""`uv run knowledge index|search`: the documents in `knowledge/`, and what is found in them.

Exit codes: 0 when it was done, 1 when a document cannot be read (nothing is written then), 64
(EX_USAGE) for a command that cannot be carried out.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from io import TextIOWrapper

from app.foundation.project import load_project
from app.launch.evidence.folder import FOLDER, INDEX, digest
from app.launch.evidence.index import Knowledge, UnusableIndexError
from indexing.build import Report, build
from indexing.messages import RefusedError, say

EX_UNREADABLE = 1
EX_USAGE = 64
_SHOWN = 400  # characters of a passage


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    asked = _parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        if not load_project().knowledge:
            raise RefusedError("not_chosen")
        return 0 if RUN[asked.command](asked) else EX_UNREADABLE
    except RefusedError as refused:
        print(refused, file=sys.stderr)
        return EX_USAGE


def refresh() -> bool:
    """Write the index anew unless it fits the folder. False: that was not possible, as it says."""
    try:
        if _fits():
            return True
        return _write()
    except RefusedError as refused:
        print(refused, file=sys.stderr)
        return False


def _fits() -> bool:
    try:
        knowledge = Knowledge(INDEX)
    except (FileNotFoundError, UnusableIndexError):
        return False
    knowledge.close()
    return not FOLDER.is_dir() or knowledge.sources == digest(FOLDER)


def _index(_: argparse.Namespace) -> bool:
    return _write()


def _write() -> bool:
    if not FOLDER.is_dir():
        raise RefusedError("no_folder")
    begun = time.monotonic()
    try:
        report = build(FOLDER, INDEX, _tell)
    except OSError as error:
        facts = {"target": INDEX, "reason": error.strerror or type(error).__name__}
        raise RefusedError("unwritable", **facts) from error
    for name in report.left_out:
        print(say("index.left_out", name=name), file=sys.stderr)
    if report.unreadable:
        print(say("index.unwritten"), file=sys.stderr)
        for name, reason in report.unreadable.items():
            print(say("index.unreadable", name=name, reason=reason), file=sys.stderr)
        return False
    _sum_up(report, time.monotonic() - begun)
    return True


def _tell(name: str, passages: int) -> None:
    if passages:
        print(say("index.file", name=name, passages=passages), flush=True)
    else:
        print(say("index.no_text", name=name), file=sys.stderr)


def _sum_up(report: Report, seconds: float) -> None:
    facts = {
        "files": len(report.passages),
        "passages": sum(report.passages.values()),
        "size": -(-report.size // 1024),
        "seconds": f"{seconds:.1f}",
        "target": INDEX.relative_to(FOLDER.parent),
        "version": report.version,
    }
    print(say("index.done", **facts))
    if not facts["passages"]:
        print(say("index.empty"), file=sys.stderr)


def _search(asked: argparse.Namespace) -> bool:
    try:
        knowledge = Knowledge(INDEX)
    except (FileNotFoundError, UnusableIndexError) as error:
        raise RefusedError("no_index") from error
    if FOLDER.is_dir() and knowledge.sources != digest(FOLDER):
        print(say("search.stale"), file=sys.stderr)
    found = knowledge.search(asked.question, asked.at_most)
    for passage in found:
        text = passage.text if len(passage.text) <= _SHOWN else f"{passage.text[:_SHOWN]}…"
        title = f"{passage.file}, {passage.place}" + (
            f" ({passage.heading})" * bool(passage.heading)
        )
        print(f"{passage.score:.2f}  {title}")
        print("".join(f"      {line}\n" for line in text.splitlines()))
    if not found:
        print(say("search.nothing"))
    knowledge.close()
    return True


RUN = {"index": _index, "search": _search}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="knowledge", description=say("cli.about"))
    commands = parser.add_subparsers(dest="command", required=True)
    found = {name: commands.add_parser(name, help=say(f"cli.{name}")) for name in RUN}
    found["search"].add_argument("question", metavar="QUESTION", help=say("cli.question"))
    found["search"].add_argument("--at-most", type=int, default=5, help=say("cli.at_most"))
    return parser
