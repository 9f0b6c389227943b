"""Blocks as passages: as much as belongs together, and no more than a prompt has room for."""

import re
from collections.abc import Iterable, Iterator

from indexing.blocks import Block

MOST_BYTES = 1_200  # of UTF-8: about 300 tokens of English, 400 of Korean
# Where a paragraph that is too long may be cut: after a line, a sentence, a word.
_CUTS = (re.compile("\n"), re.compile(r"(?<=[.!?。！？])\s"), re.compile(r"\s"))


def join(blocks: Iterable[Block], *, paged: bool) -> Iterator[Block]:
    """Paragraphs below one heading put together up to MOST_BYTES; `paged`: those on one page."""
    held: Block | None = None
    for block in (part for whole in blocks for part in _cut(whole, paged)):
        if held is None:
            held = block
            continue
        text = f"{held.text}\n\n{block.text}"
        together = block.first == held.first if paged else block.heading == held.heading
        if together and _size(text) <= MOST_BYTES:
            held = Block(held.heading, held.first, block.last, text)
            continue
        yield held
        held = block
    if held is not None:
        yield held


def _cut(block: Block, paged: bool) -> Iterator[Block]:
    """The block in pieces of at most MOST_BYTES, each with the lines that it is on."""
    text, line = block.text, block.first
    while _size(text) > MOST_BYTES:
        end = _end(text)
        piece = text[:end]
        last = line if paged else line + piece.rstrip().count("\n")
        yield Block(block.heading, line, last, piece.strip())
        line = line if paged else line + piece.count("\n")
        text = text[end:]
    if text.strip():
        yield Block(block.heading, line, block.last, text.strip())


def _end(text: str) -> int:
    """Where the first piece ends: as late as possible, at the best place in its second half."""
    most = len(text.encode()[:MOST_BYTES].decode(errors="ignore"))
    for cut in _CUTS:
        places = [found.end() for found in cut.finditer(text, most // 2, most)]
        if places:
            return places[-1]
    return most


def _size(text: str) -> int:
    return len(text.encode())
