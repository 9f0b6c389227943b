"""Vercel's environment variables, through Vercel's own CLI: a value goes in by its standard input.

Secrets are sent as sensitive, so that nobody can read them back, not even this command; the other
settings can be read, and are compared.
"""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from keychain.messages import say
from keychain.places import Held, Place, PlaceError
from keychain.values import is_secret

ENVIRONMENT = "production"
# Seconds that one call of the CLI may take: it starts within one or two, and retries by itself.
LIMIT_SECONDS = 60.0
LONGEST_REASON = 200  # characters


def place(folder: Path) -> Place:
    """The project that the folder is linked to."""
    return _Vercel(folder)


class _Vercel:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.title = say("vercel.title")

    def held(self) -> Held:
        """What `vercel env ls` lists for production."""
        text = self._run("env", "ls", ENVIRONMENT, "--format", "json")
        try:
            listed = json.loads(text)["envs"]
            found = [item for item in listed if _is_live(item)]
            shown = {item["key"]: item["value"] for item in found if item.get("value")}
        except (ValueError, KeyError, TypeError):
            raise PlaceError(self.title, "vercel.unclear") from None
        return Held(shown, frozenset(item["key"] for item in found) - shown.keys())

    def seen_by_the_app(self, local: Mapping[str, str], held: Held) -> dict[str, str]:
        """The variables alone: `.env` stays on this machine."""
        return dict(held.values)

    def accepts(self, name: str) -> bool:
        """Every setting: the function has no other place for them."""
        return True

    def send(self, values: Mapping[str, str]) -> Iterator[str]:
        """One call of the CLI a name; one that exists is overwritten."""
        for name, value in values.items():
            kind = "--sensitive" if is_secret(name) else "--no-sensitive"
            self._run("env", "add", name, ENVIRONMENT, kind, "--force", "--yes", value=value)
            yield name

    def afterwards(self, names: set[str]) -> str:
        """A deployment keeps the variables with which it was made."""
        return say("vercel.afterwards")

    def _run(self, *arguments: str, value: str | None = None) -> str:
        """Run the CLI in the project's folder; what it prints on standard output."""
        command = shutil.which("vercel")
        if command is None:
            raise PlaceError(self.title, "vercel.no_cli")
        process = subprocess.Popen(
            [command, *arguments],
            cwd=self._folder,
            env={**os.environ, "NO_COLOR": "1", "NO_UPDATE_NOTIFIER": "1"},
            stdin=subprocess.DEVNULL if value is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # the CLI is a script that starts another program
        )
        try:
            # The CLI waits half a second for it: it is there before the CLI has started.
            out, err = process.communicate(value, timeout=LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            raise PlaceError(self.title, "vercel.no_answer", limit=LIMIT_SECONDS) from None
        finally:
            _end(process)
        if process.returncode:
            raise PlaceError(
                self.title, "vercel.refused", reason=_reason(process, out + err, value)
            )
        return out


def _is_live(item: Mapping[str, Any]) -> bool:
    target = item.get("target") or []
    return ENVIRONMENT in ([target] if isinstance(target, str) else target)


def _end(process: "subprocess.Popen[str]") -> None:
    if process.poll() is None:
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()


def _reason(process: "subprocess.Popen[str]", said: str, value: str | None) -> str:
    """The CLI's complaint, the value taken out: an error may repeat what it was given."""
    lines = (line.strip() for line in said.splitlines())
    complaint = next((line for line in lines if line.startswith("Error")), "")
    if value:
        complaint = complaint.replace(value, "***")
    return complaint[:LONGEST_REASON] or f"exit status {process.returncode}"
