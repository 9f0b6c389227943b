"""The commands of a page in docs/deploy, and which of them only the platform can answer."""

import re
from dataclasses import dataclass
from pathlib import Path

MARK = "(needs the platform)"
_BLOCK = re.compile(r"(?P<before>[^\n]*)\n\n```sh\n(?P<text>.*?)\n```", re.DOTALL)


@dataclass(frozen=True)
class Command:
    """A command as the page has it."""

    text: str
    needs_the_platform: bool


def commands(page: Path) -> list[Command]:
    """Every command of a page, in its order. Each stands alone in a block."""
    text = page.read_text(encoding="utf-8")
    found = [
        Command(block["text"], block["before"].endswith(MARK)) for block in _BLOCK.finditer(text)
    ]
    assert len(found) == text.count("```") / 2, "a block that is no command, or has no line before"
    assert not [command for command in found if "\n" in command.text]
    return found
