"""Git, as this command calls it: no hook, no question, no language but its own."""

import os
import subprocess
from pathlib import Path

QUIET = {
    "GIT_TERMINAL_PROMPT": "0",  # a password that nobody can type must not hang the command
    "LC_ALL": "C",
}


class GitError(Exception):
    """A git command failed; the text is what git said."""


def git(folder: Path, *arguments: str, stdin: str | None = None, **environment: str) -> str:
    """Run git in `folder` without the repository's hooks. Raises `GitError`."""
    command = ["git", "-c", f"core.hooksPath={os.devnull}", *arguments]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **QUIET, **environment},
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="surrogateescape",
            check=False,
        )
    except FileNotFoundError:
        raise GitError("git is not installed") from None
    if done.returncode:
        raise GitError(done.stderr.strip() or f"git {arguments[0]}: {done.returncode}")
    return done.stdout


def blobs(folder: Path, *command: str) -> dict[str, str]:
    """What `ls-tree` or `ls-files --stage` lists below `folder`: path in it to the blob's name."""
    found = {}
    for line in git(folder, *command, "-z").split("\0"):
        if line:
            facts, _, name = line.partition("\t")
            words = facts.split()
            # ls-tree says mode, kind, blob; ls-files says mode, blob, stage.
            found[name] = words[2] if len(words[1]) < 40 else words[1]
    return found
