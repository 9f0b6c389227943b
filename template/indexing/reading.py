"""Documents as blocks: Markdown, text and PDF. What cannot be read says why, for people."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path

from pypdf import PdfReader

from app.launch.evidence.folder import MARKDOWN, PDF
from indexing.blocks import Block, clean, markdown, paragraphs
from indexing.messages import UnreadableError

MOST_BYTES = 64 * 1024 * 1024  # of a file
# Fewer letters than this on a page, on average: it is a picture of text.
_FEW_LETTERS = 5
_HYPHEN = re.compile(r"(?<=[a-z])-\n(?=[a-z])")


def read(path: Path) -> list[Block]:
    """The blocks of a document. Raises `UnreadableError`, which names what to do."""
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise UnreadableError("too_big", limit=MOST_BYTES // 2**20)
        if path.suffix.lower() in PDF:
            return list(_pages(path))
        text = clean(_decoded(path.read_bytes()))
    except OSError as error:
        raise UnreadableError("no_access", reason=error.strerror or type(error).__name__) from error
    return list(markdown(text) if path.suffix.lower() in MARKDOWN else paragraphs(text))


def _decoded(content: bytes) -> str:
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UnreadableError("not_utf8", line=line) from error


def _pages(path: Path) -> Iterator[Block]:
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # what matters is said here
    try:
        texts = _texts(path)
    except UnreadableError:
        raise
    except Exception as error:  # whatever a damaged file leads the library to
        raise UnreadableError("broken_pdf") from error
    letters = sum(sum(map(str.isalnum, text)) for text in texts)
    if letters < _FEW_LETTERS * max(len(texts), 1):
        raise UnreadableError("scanned_pdf")
    for number, text in enumerate(texts, 1):
        for block in paragraphs(_HYPHEN.sub("", text)):
            yield Block("", number, number, block.text)


def _texts(path: Path) -> list[str]:
    with path.open("rb") as file:
        reader = PdfReader(file)
        # Many are encrypted only against changes, and open with an empty password.
        if reader.is_encrypted and not reader.decrypt(""):
            raise UnreadableError("encrypted_pdf")
        return [clean(page.extract_text()) for page in reader.pages]
