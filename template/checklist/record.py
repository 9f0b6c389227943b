"""Keeping what a whole run found where the app shows it (`/ops`), and where a build takes it along.

What an item saw is not in it: that is for who ran the checklist.
"""

import os
from datetime import UTC
from pathlib import Path

import yaml

from app.ops.checklist import FILE, Found, Item
from checklist.items import HERE
from checklist.messages import load_texts
from checklist.results import Report, Result
from checklist.scan import git

ROOT = HERE.parent
MOST_CHARACTERS = 300


def keep(report: Report, file: Path = FILE) -> None:
    """Write it in one step. Raises `OSError` where the folder cannot be written to."""
    found = Found(
        when=report.when.astimezone(UTC).replace(microsecond=0),
        commit=_commit(),
        kit=_kit(),
        items=tuple(_item(result) for result in report.results),
    )
    new = file.with_name(f"{file.name}.new")
    try:
        new.write_text(found.model_dump_json(indent=1) + "\n", encoding="utf-8")
        os.replace(new, file)
    finally:
        new.unlink(missing_ok=True)


def _item(result: Result) -> Item:
    key = f"{result.item.number}.title"
    title = {"en": load_texts("en").text(key), "ko": load_texts("ko").text(key)}
    return Item.model_validate(
        {"number": result.item.number, "title": title, "checked": result.checked}
    )


def _commit() -> str | None:
    """The commit, `-dirty` where something is not committed; None where git knows of none."""
    try:
        said = git(ROOT, "describe", "--always", "--dirty", check=False)
    except OSError:  # there is no git
        return None
    return said.decode("utf-8", "replace").strip()[:MOST_CHARACTERS] or None


def _kit() -> str | None:
    """The release of the template, as Copier recorded it."""
    try:
        content = yaml.safe_load((ROOT / ".copier-answers.yml").read_text(encoding="utf-8"))
        return str(content["_commit"])[:MOST_CHARACTERS]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        return None
