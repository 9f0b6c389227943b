"""`uv run preview-update`: show what an update would do; put it on a branch; restore a file.

Exit codes: 0 when nothing is in the way, 1 when somebody has to decide something (a conflict, an
edit that would be lost, an item of the checklist that turned red), and 64 (EX_USAGE) for a command
that cannot be carried out.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from rich.console import Console

from app.foundation.project import load_project
from checklist.cli import EX_INTERRUPTED, EX_USAGE, Parser
from checklist.items import BY_NUMBER
from checklist.missing import missing_files
from updates import report
from updates.apply import apply, require_free, run_checklist
from updates.changes import changes_of, difference
from updates.git import GitError
from updates.messages import RefusedError, say
from updates.project import Project, open_project, read_answers, require_clean
from updates.remaining import remaining_steps
from updates.report import Update
from updates.restore import restore
from updates.template import Template, open_template
from updates.trial import Plan, tried

FOLDER = Path(__file__).parents[1]
EX_UNSETTLED = 1
FORMATS = {"json": report.as_json, "markdown": report.as_markdown}
SUFFIXES = {".json": "json", ".md": "markdown"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    asked = _parser().parse_args(arguments)
    asked.data = dict(asked.data)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        project = open_project(FOLDER)
        with open_template(asked.source or project.source) as template:
            if not template.knows(project.release):
                raise RefusedError("unknown_release", release=project.release)
            if asked.restore:
                return _restore(project, template, asked.restore)
            return _update(project, template, asked)
    except RefusedError as refused:
        print(refused, file=sys.stderr)
        return EX_USAGE
    except (GitError, OSError) as error:
        print(RefusedError("broken", str(error)), file=sys.stderr)
        return EX_USAGE
    except KeyboardInterrupt:
        return EX_INTERRUPTED


def _restore(project: Project, template: Template, names: list[str]) -> int:
    paths = restore(project, template, names)
    print(say("restore.done", files=", ".join(paths), release=project.release))
    return 0


def _update(project: Project, template: Template, asked: argparse.Namespace) -> int:
    to = asked.to or template.newest()
    if not template.knows(to):
        raise RefusedError("unknown_target", release=to)
    if template.is_older(to, project.release):
        raise RefusedError("older", release=project.release, to=to)
    new = template.describe(to)
    if new == template.describe(project.release) and not asked.data:
        print(say("report.up_to_date", release=new))
        missing = missing_files(project.folder)
        if missing:
            print(say("report.missing", files=", ".join(missing), first=missing[0]))
        return 0
    unknown = asked.data.keys() - template.questions(to)
    if unknown:
        raise RefusedError("unknown_answer", names=", ".join(sorted(unknown)), release=new)
    require_clean(project)
    branch = f"survival-kit-{new.removeprefix('v')}" + ("-answers" if asked.data else "")
    if asked.apply:
        require_free(project, branch)
    print(say("progress.trying", release=new), file=sys.stderr, flush=True)
    plan = Plan(template, to, asked.data, asked.trust)
    with tried(project, plan) as trial:
        changes = changes_of(project, trial)
        found = Update(
            app=load_project().name,
            old=project.release,
            new=new,
            changelog=template.changelog(project.release, new),
            changes=changes,
            steps=remaining_steps(project.answers, read_answers(trial.folder), changes),
        )
        if asked.apply:
            message = say("apply.commit", release=new)
            check = None if asked.no_checklist else _checklist(asked.item or [])
            applied = apply(project, trial, changes, branch, message, check)
            found = dataclasses.replace(found, applied=applied)
        _show(found, asked)
        if asked.diff:
            print(difference(project, trial, colour=sys.stdout.isatty()))
    return 0 if found.settled else EX_UNSETTLED


def _checklist(items: list[str]) -> Any:
    def check(folder: Path, python: str) -> dict[str, Any]:
        when = "before" if folder == FOLDER else "after"
        print(say(f"progress.{when}"), file=sys.stderr, flush=True)
        return run_checklist(folder, items, python)

    return check


def _show(found: Update, asked: argparse.Namespace) -> None:
    if asked.format == "text":
        Console().print(report.as_text(found))
    else:
        print(FORMATS[asked.format](found))
    for path in asked.report:
        path.write_text(FORMATS[SUFFIXES[path.suffix]](found), encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="preview-update", description=say("cli.about"))
    add = parser.add_argument
    add("--to", metavar="RELEASE", help=say("cli.to"))
    add("--source", metavar="PATH", help=say("cli.source"))
    add(
        "-d",
        "--data",
        action="append",
        type=_answer,
        default=[],
        metavar="NAME=VALUE",
        help=say("cli.data"),
    )
    add("--diff", action="store_true", help=say("cli.diff"))
    add("--format", choices=("text", *FORMATS), default="text", help=say("cli.format"))
    add(
        "--report",
        action="append",
        type=_report_file,
        default=[],
        metavar="FILE",
        help=say("cli.report"),
    )
    add("--apply", action="store_true", help=say("cli.apply"))
    add("--no-checklist", action="store_true", help=say("cli.no_checklist"))
    add("--item", action="append", choices=sorted(BY_NUMBER), metavar="N.N", help=say("cli.item"))
    add("--trust", action="store_true", help=say("cli.trust"))
    add("--restore", action="append", metavar="FILE", help=say("cli.restore"))
    return parser


def _answer(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise argparse.ArgumentTypeError(f"{text}: NAME=VALUE")
    return name, value


def _report_file(name: str) -> Path:
    path = Path(name)
    if path.suffix not in SUFFIXES:
        raise argparse.ArgumentTypeError(f"{name}: {', '.join(SUFFIXES)}")
    return path
