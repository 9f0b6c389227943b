"""A failure as a case: a file that `tests/test_cases.py` plays against the app, and you may edit.

The texts were hidden before they were kept; what stands for an e-mail address or a number is
played with a made-up one.
"""

import json
from pathlib import Path

from app.launch.failures.reading import Failure

_EXPECT = {
    "error": "answered",
    "abstained": "abstained",
    "blocked": "blocked",
    "cut": "cut",
    "rating": "answered",
}


def as_toml(failure: Failure, about: str) -> str:
    """The file of a failure whose text is known. `about` is for who reads it, in lines.

    What was decided (abstained, blocked, cut) is expected again, and an answer where one failed.
    """
    text = failure.text
    if text is None:
        raise ValueError(f"{failure.name} has no text")
    kind, _, name = failure.cause.partition(":")
    lines = [f"# {line}".rstrip() for line in about.splitlines()]
    lines += [
        "",
        "[[case]]",
        f"name = {_quoted(failure.name)}",
        f"expect = {_quoted(_EXPECT[kind])}",
    ]
    if kind in {"abstained", "blocked"}:
        lines.append(f"rule = {_quoted(name)}")
    if failure.facts.streamed:
        lines.append("stream = true")
    if text.answer:
        lines.append(f"answer = {_quoted(text.answer)}")
    if failure.facts.finish_reason in {"length", "content_filter"}:
        lines.append(f"finish = {_quoted(failure.facts.finish_reason)}")
    if text.comment:
        lines.append(f"comment = {_quoted(text.comment)}")
    for role, said in text.question:
        lines += ["", "[[case.messages]]", f"role = {_quoted(role)}", f"content = {_quoted(said)}"]
    return "\n".join([*lines, ""])


def write_new(path: Path, content: str) -> bool:
    """Write a file that is not there; False where it is: it may have been edited."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8", newline="\n") as file:
            file.write(content)
    except FileExistsError:
        return False
    return True


def _quoted(text: str) -> str:
    """A basic string of TOML: JSON's, whose DEL is escaped too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
