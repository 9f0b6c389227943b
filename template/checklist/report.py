"""The report in its four forms."""

import json
from html import escape
from importlib.resources import files
from itertools import groupby
from string import Template
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape as plain
from rich.table import Table
from rich.text import Text

from checklist.messages import load_texts
from checklist.results import Report, Result

_COLOURS = {0: "green", 1: "yellow", 2: "red"}


def as_table(results: list[Result], waiting: tuple[str, ...] = ()) -> Table:
    """The table of the terminal; `waiting` are the numbers of items that still run."""
    text = load_texts().text
    table = Table(expand=True, show_edge=False, pad_edge=False)
    table.add_column("", width=2)
    table.add_column(text("report.item"), ratio=2)
    table.add_column(text("report.evidence"), ratio=5)
    table.add_column(text("report.seconds"), justify="right", width=5)
    for result in results:
        colour = "green" if result.checked else "red"
        name = f"[bold]{plain(result.name)}[/bold]"
        line = plain(result.line)
        table.add_row(f"[{colour}]{result.mark}[/]", name, line, f"{result.seconds:.1f}")
    for number in waiting:
        title = plain(text(f"{number}.title"))
        table.add_row("…", f"[dim]{number} {title}[/dim]", "", "")
    return table


def as_text(report: Report) -> RenderableType:
    """The terminal's report: the table, what to do about each open item, the verdict."""
    text = load_texts().text
    parts: list[RenderableType] = [as_table(report.results)]
    for result in report.results:
        for failure in result.failures:
            parts.append(Text(f"\n☐ {result.name}", style="bold red"))
            for key in ("expected", "seen", "look"):
                words = Text(f"  {text(f'report.{key}')}: ", style="dim")
                parts.append(words.append(getattr(failure, key), style="default"))
    if report.notes:
        parts.append(Text("\n" + "\n".join(report.notes), style="dim"))
    parts.append(Text(f"\n{report.count}"))
    parts.append(Text(report.verdict, style=f"bold {_COLOURS[report.exit_code]}"))
    return Group(*parts)


def as_json(report: Report) -> str:
    """For programs."""
    content: dict[str, Any] = {
        "app": report.app,
        "when": report.when.isoformat(timespec="seconds"),
        "seconds": round(report.seconds, 1),
        "checked": len(report.results) - report.open,
        "open": report.open,
        "exit_code": report.exit_code,
        "verdict": report.verdict,
        "notes": report.notes,
        "items": [
            {
                "item": result.item.number,
                "title": result.title,
                "checked": result.checked,
                "evidence": result.evidence,
                "seconds": round(result.seconds, 1),
                "failures": [
                    {name: getattr(failure, name) for name in failure.__slots__}
                    for failure in result.failures
                ],
            }
            for result in report.results
        ],
    }
    return json.dumps(content, ensure_ascii=False, indent=2)


def as_markdown(report: Report) -> str:
    """For the summary of a CI job, or a pull request."""
    text = load_texts().text
    heads = ("", text("report.item"), text("report.evidence"), text("report.seconds"))
    lines = [f"## {text('report.title', name=report.app)}", "", f"**{report.verdict}**", ""]
    lines += [f"{report.count}.", "", _row(heads), "| --- | --- | --- | ---: |"]
    for result in report.results:
        lines.append(_row((result.mark, result.name, result.line, f"{result.seconds:.1f}")))
    for result in report.results:
        for failure in result.failures:
            lines += ["", f"**☐ {_cell(result.name)}**", ""]
            for key in ("expected", "seen", "look"):
                lines.append(f"- {text(f'report.{key}')}: {_cell(getattr(failure, key))}")
    lines += ["", *(f"- {_cell(note)}" for note in report.notes)] if report.notes else []
    return "\n".join(lines) + "\n"


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(value: str) -> str:
    """Text that no Markdown or HTML in it can change."""
    one_line = escape(" ".join(value.split()), quote=False)
    return one_line.replace("|", "\\|").replace("`", "\\`").replace("*", "\\*").replace("_", "\\_")


def as_html(report: Report) -> str:
    """A page for a screen that a whole room can read; it needs nothing from elsewhere."""
    texts = load_texts()
    sections = []
    for standard, results in groupby(report.results, lambda result: result.item.group):
        rows = "".join(map(_html_item, results))
        title = escape(texts.text(f"standard.{standard}"))
        sections.append(f"<section><h2>{title}</h2>{rows}</section>")
    if report.notes:
        notes = "".join(f"<p>{escape(note)}</p>" for note in report.notes)
        sections.append(f'<section class="notes">{notes}</section>')
    page = files("checklist").joinpath("report.html").read_text(encoding="utf-8")
    return Template(page).substitute(
        language=texts.language,
        title=escape(texts.text("report.title", name=report.app)),
        verdict=escape(report.verdict),
        state={0: "ready", 1: "nearly", 2: "not-ready"}[report.exit_code],
        checked=len(report.results) - report.open,
        total=len(report.results),
        count=escape(report.count),
        when=escape(texts.text("report.when", when=f"{report.when:%Y-%m-%d %H:%M %Z}")),
        sections="\n".join(sections),
    )


def _html_item(result: Result) -> str:
    text = load_texts().text
    state = "checked" if result.checked else "open"
    parts = [f'<p class="evidence">{escape(result.line)}</p>'] if result.checked else []
    for failure in result.failures:
        parts.append("<dl>")
        for key in ("expected", "seen", "look"):
            value = escape(getattr(failure, key))
            parts.append(f'<dt>{escape(text(f"report.{key}"))}</dt><dd class="{key}">{value}</dd>')
        parts.append("</dl>")
    label = escape(text(f"report.{state}"))
    return (
        f'<article class="{state}"><span class="mark" role="img" aria-label="{label}">'
        f"{result.mark}</span><div><h3>{escape(result.name)}</h3>"
        f"{''.join(parts)}</div>"
        f'<span class="seconds">{result.seconds:.1f} s</span></article>'
    )
