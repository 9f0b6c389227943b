"""JSON, server-sent events, turns and counts: what the wires have in common, or nearly so."""

import json
from typing import Any

import httpx2
from pydantic_core import from_json

from app.providers.base import Message, Role

Turn = tuple[Role, str]
MAX_ANSWER_BYTES = 16 * 1024 * 1024
# No call takes so many tokens. A larger number may have thousands of digits, and is no better.
MOST_TOKENS = 2**53


class EventDecoder:
    """Cuts a stream of bytes into the data of server-sent events.

    It works on bytes, so that neither a character cut in two nor a U+2028 inside a text matters.
    Comments and the names of events are skipped: on our wires the data says everything.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of the events that `chunk` completes."""
        lines = (self._rest + chunk).splitlines(keepends=True)
        # A line that ends in CR stays back as well: its LF may come with the next chunk.
        self._rest = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
        events = []
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[5:].strip())
            elif self._data and line in (b"\n", b"\r\n", b"\r"):
                events.append(b"\n".join(self._data))
                self._data.clear()
        check_size(len(self._rest) + sum(map(len, self._data)))
        return events


def encode(body: dict[str, Any]) -> bytes:
    """JSON as it is sent. A lone surrogate becomes a question mark: UTF-8 cannot carry it."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def parse(data: bytes | bytearray) -> Any:
    """The value of a JSON text. Raises `ValueError` or `RecursionError`."""
    try:
        return from_json(data)  # three times as fast, but it refuses half of a surrogate pair
    except ValueError:
        return json.loads(data)


def clean(text: Any) -> str:
    """Text that UTF-8 can carry: JSON lets a provider send half of a surrogate pair."""
    if not isinstance(text, str):
        raise TypeError
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def conversation(messages: tuple[Message, ...]) -> tuple[str, list[Turn]]:
    """The system's text and the turns, for the wires that keep the two apart.

    Turns alternate and the user has the first one, as those wires demand: neighbours of one role
    become one turn, with a blank line between them, and a conversation that the assistant (or only
    the system) opens gets a user's turn of "." before it. Empty texts, which those wires refuse,
    are left out.
    """
    turns: list[Turn] = []
    for item in messages:
        if item.role == "system" or not item.text:
            continue
        if turns and turns[-1][0] == item.role:
            turns[-1] = (item.role, f"{turns[-1][1]}\n\n{item.text}")
        else:
            turns.append((item.role, item.text))
    if not turns or turns[0][0] != "user":
        turns.insert(0, ("user", "."))
    system = (item.text for item in messages if item.role == "system" and item.text)
    return "\n\n".join(system), turns


def section(stated: Any, name: str) -> dict[str, Any]:
    """`stated[name]` where both are objects, otherwise an empty one."""
    found = stated.get(name) if isinstance(stated, dict) else None
    return found if isinstance(found, dict) else {}


def count(value: Any) -> int:
    """A number of tokens, at most `MOST_TOKENS`; what is absent or no such number counts as 0."""
    return min(value, MOST_TOKENS) if type(value) is int and value > 0 else 0


def check_size(size: int) -> None:
    """Raise `httpx2.DecodingError` where an answer, or one event of it, does not end."""
    if size > MAX_ANSWER_BYTES:
        raise httpx2.DecodingError("an answer without an end")


async def read_body(response: httpx2.Response) -> bytearray:
    """All of a body. Raises `httpx2.DecodingError` for one without an end, an error's too."""
    content = bytearray()
    try:
        async for chunk in response.aiter_bytes():
            content += chunk
            check_size(len(content))
    finally:
        await response.aclose()
    return content
