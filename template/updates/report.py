"""What the command found, in its three forms."""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from html import escape

from rich.console import Group, RenderableType
from rich.markdown import Markdown
from rich.markup import escape as plain
from rich.table import Table
from rich.text import Text

from updates.apply import Applied, Item
from updates.changes import ORDER, UNSETTLED, Change, What
from updates.messages import say

_COLOURS: dict[What, str] = {
    "conflict": "bold red",
    "lost": "bold red",
    "new": "green",
    "updated": "cyan",
    "merged": "yellow",
    "removed": "magenta",
    "missing": "yellow",
    "yours": "dim",
}


@dataclass(frozen=True, slots=True)
class Update:
    """An update from one release to another: what it does, and what is left to do by hand.

    `settled` is False where somebody has to decide something first.
    """

    app: str
    old: str
    new: str
    changelog: str
    changes: tuple[Change, ...]
    steps: tuple[str, ...]
    applied: Applied | None = None

    @property
    def settled(self) -> bool:
        """No conflict, no edit lost, and no item of the checklist turned red."""
        red = self.applied is not None and any(item.turned_red for item in self.applied.items)
        return not red and not any(change.what in UNSETTLED for change in self.changes)

    @property
    def title(self) -> str:
        """From where to where."""
        return say("report.title", app=self.app, old=self.old, new=self.new)

    @property
    def counts(self) -> str:
        """How many files of each kind, in words."""
        found = Counter(change.what for change in self.changes)
        return ", ".join(say(f"count.{what}", count=found[what]) for what in ORDER if found[what])

    @property
    def verdict(self) -> str:
        """The last word, and what to do next."""
        if self.applied:
            key = "applied" if self.settled else "applied_unsettled"
            return say(f"report.{key}", branch=self.applied.branch)
        return say("report.preview" if self.settled else "report.preview_unsettled")


def as_text(update: Update) -> RenderableType:
    """For the terminal."""
    parts: list[RenderableType] = [Text(update.title, style="bold"), Text("")]
    if update.changelog:
        parts += [Markdown(update.changelog), Text("")]
    table = Table(show_edge=False, pad_edge=False)
    table.add_column(say("report.what"), no_wrap=True)
    table.add_column(say("report.file"), overflow="fold")
    table.add_column(say("report.about"))
    for change in update.changes:
        what = f"[{_COLOURS[change.what]}]{say(f'what.{change.what}')}[/]"
        table.add_row(what, plain(change.path), plain(_about(change)))
    parts += [table, Text("\n" + update.counts)]
    if update.applied:
        for item in update.applied.items:
            parts.append(Text(f"  {_box(item.before)} {_box(item.after)} {_line(item)}"))
        parts += [Text(note, style="yellow") for note in update.applied.notes]
    parts += [Text(f"· {step}") for step in update.steps]
    parts.append(Text("\n" + update.verdict, style="bold green" if update.settled else "bold red"))
    return Group(*parts)


def as_json(update: Update) -> str:
    """For programs."""
    content = {
        "app": update.app,
        "from": update.old,
        "to": update.new,
        "settled": update.settled,
        "verdict": update.verdict,
        "changelog": update.changelog,
        "changes": [asdict(change) for change in update.changes],
        "steps": list(update.steps),
        "branch": update.applied.branch if update.applied else None,
        "notes": list(update.applied.notes) if update.applied else [],
        "checklist": [
            {**asdict(item), "turned_green": item.turned_green, "turned_red": item.turned_red}
            for item in (update.applied.items if update.applied else ())
        ],
    }
    return json.dumps(content, ensure_ascii=False, indent=2)


def as_markdown(update: Update) -> str:
    """For a pull request."""
    lines = [f"## {_cell(update.title)}", "", f"**{_cell(update.verdict)}**", ""]
    lines += [update.changelog.replace("\n## ", "\n### ").replace("## ", "### ", 1), ""]
    if update.applied and update.applied.items:
        heads = ("report.before", "report.after", "report.item")
        lines += [_row(*map(say, heads)), "| :-: | :-: | --- |"]
        for item in update.applied.items:
            lines.append(_row(_box(item.before), _box(item.after), _line(item)))
        lines.append("")
    if update.applied:
        lines += [f"- {_cell(note)}" for note in update.applied.notes]
    lines += [f"- {_cell(step)}" for step in update.steps]
    lines += ["", f"<details><summary>{_cell(update.counts)}</summary>", ""]
    lines += [
        _row(*map(say, ("report.what", "report.file", "report.about"))),
        "| --- | --- | --- |",
    ]
    for change in update.changes:
        lines.append(_row(say(f"what.{change.what}"), change.path, _about(change)))
    return "\n".join([*lines, "", "</details>"]) + "\n"


def _about(change: Change) -> str:
    if change.about:
        return change.about
    return say(f"about.{change.what}", path=change.path) if change.what in _SAID else ""


_SAID = {"conflict", "lost", "missing", "yours"}


def _box(checked: bool | None) -> str:
    return "?" if checked is None else "☑" if checked else "☐"


def _line(item: Item) -> str:
    words = f"{item.number} {item.title}"
    if item.turned_green:
        return f"{words} {say('report.green')}"
    return f"{words} {say('report.red')}" if item.turned_red else words


def _row(*cells: str) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(value: str) -> str:
    """Text that no Markdown or HTML in it can change."""
    one_line = escape(" ".join(value.split()), quote=False)
    for sign in "\\|`*_[]":
        one_line = one_line.replace(sign, f"\\{sign}")
    return one_line
