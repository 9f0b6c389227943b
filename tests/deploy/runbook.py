"""The commands with which an app's RUNBOOK.md goes back to the version before."""

import re
import shlex
from pathlib import Path


def rollback(app: Path, **variables: str) -> list[list[str]]:
    """Their words; `variables` stand for what the reader puts in."""
    text = (app / "RUNBOOK.md").read_text(encoding="utf-8")
    section = text.partition("\n## rollback\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    assert lines, "RUNBOOK.md has no command for going back"
    for name, value in variables.items():
        lines = [line.replace(f"${name}", value) for line in lines]
    assert not [line for line in lines if "$" in line], lines
    return [shlex.split(line) for line in lines]
