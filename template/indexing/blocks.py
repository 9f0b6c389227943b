"""A document as blocks: paragraphs, each below its heading and at its place."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from unicodedata import normalize

_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.*?)[ \t]*#*[ \t]*$")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_FENCE = re.compile(r" {0,3}(```+|~~~+)")
_MOST_HEADING = 200  # characters
# No text: control characters, and the tags of Unicode, which nobody sees and a model reads.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\ufffe\uffff\ud800-\udfff]")
_TAGS = re.compile("[\U000e0000-\U000e007f]")


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph. `first` and `last` are its lines, counted from 1, or its page twice."""

    heading: str
    first: int
    last: int
    text: str


def clean(text: str) -> str:
    """The text with line feeds alone, and without what is no text."""
    text = normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    return _TAGS.sub("", _CONTROL.sub(" ", text))


def paragraphs(text: str) -> Iterator[Block]:
    """The paragraphs of a text without headings: what empty lines part."""
    yield from _parted(text.split("\n"), 0, "")


def markdown(text: str) -> Iterator[Block]:
    """The paragraphs of a Markdown document, below the path of headings that leads to each."""
    lines = text.split("\n")
    path: list[tuple[int, str]] = []
    start, fence = _after_front_matter(lines), ""
    for number in range(start, len(lines)):
        line = lines[number]
        if mark := _FENCE.match(line):
            if not fence:
                fence = mark[1]
            elif mark[1].startswith(fence):
                fence = ""
            continue
        if fence:
            continue
        level, title, first = _heading(lines, number, start)
        if not level:
            continue
        yield from _parted(lines[start:first], start, _joined(path))
        path = [above for above in path if above[0] < level] + [(level, title)]
        start = number + 1
    yield from _parted(lines[start:], start, _joined(path))


def _heading(lines: list[str], number: int, start: int) -> tuple[int, str, int]:
    """The level, the title and the first line of the heading that ends here; level 0: none does."""
    if found := _HEADING.match(lines[number]):
        return len(found[1]), found[2], number
    above = lines[number - 1].strip() if number > start else ""
    one_line = above and (number - 1 == start or not lines[number - 2].strip())
    underline = _UNDERLINE.match(lines[number])
    if underline and one_line and not above.startswith(("-", "|", ">")):
        return 1 if underline[1][0] == "=" else 2, above, number - 1
    return 0, "", number


def _joined(path: list[tuple[int, str]]) -> str:
    return " > ".join(title for _, title in path if title)[:_MOST_HEADING]


def _after_front_matter(lines: list[str]) -> int:
    """The line after a header between two lines of `---`; 0 where there is none."""
    if lines[0].rstrip() != "---":
        return 0
    ends = (number for number in range(1, min(len(lines), 100)) if lines[number].rstrip() == "---")
    return next(ends, -1) + 1


def _parted(lines: list[str], offset: int, heading: str) -> Iterator[Block]:
    kept: list[str] = []
    for number, line in enumerate([*lines, ""]):
        if line.strip():
            kept.append(line.rstrip())
        elif kept:
            last = offset + number
            yield Block(heading, last - len(kept) + 1, last, "\n".join(kept))
            kept = []
