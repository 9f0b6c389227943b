"""`uv run secrets` in a copy of a generated app, with and without a terminal."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pexpect

COMMAND = [sys.executable, "-c", "from app.cli import secrets; secrets()"]
CANARY = "canary-5d0c1e9a"
ASKED_SECONDS = 30


def environment(**given: str) -> dict[str, str]:
    """This process's environment without a setting of the app or of a cloud, and the given one."""
    known = {"PATH", "HOME", "LANG", "TMPDIR"}
    return {name: value for name, value in os.environ.items() if name in known} | given


def secrets(app: Path, *arguments: str, **given: str) -> "subprocess.CompletedProcess[str]":
    """Run the command without a terminal. No output of it ever holds a value."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=app,
        env=environment(**given),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert CANARY not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done


class Terminal:
    """The command in a terminal: wait for words, type an answer, and see all that was shown."""

    def __init__(self, child: "pexpect.spawn[str]") -> None:
        self._child = child
        self.seen = ""

    def type(self, awaited: str, keys: str, end: str = "\r") -> None:
        """Type once the words are there; Enter unless said otherwise."""
        self._child.expect_exact(awaited)
        self.seen += f"{self._child.before}{self._child.after}"
        self._child.send(f"{keys}{end}")

    def end(self) -> int:
        """What the command ends with."""
        self._child.expect(pexpect.EOF)
        self.seen += str(self._child.before)
        self._child.close()
        assert CANARY not in self.seen
        assert "Traceback" not in self.seen
        return int(self._child.exitstatus if self._child.exitstatus is not None else -1)

    @property
    def words(self) -> str:
        """What was shown, without the terminal's own signs."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.seen)


@contextmanager
def terminal(app: Path, *arguments: str, **given: str) -> Iterator[Terminal]:
    """Run the command in a terminal."""
    child = pexpect.spawn(
        COMMAND[0],
        [*COMMAND[1:], *arguments],
        cwd=str(app),
        # No question about the cursor, which only a real terminal answers.
        env=environment(PROMPT_TOOLKIT_NO_CPR="1", TERM="xterm", **given),
        timeout=ASKED_SECONDS,
        encoding="utf-8",
        echo=False,
        dimensions=(40, 200),
    )
    try:
        yield Terminal(child)
    finally:
        child.close(force=True)
