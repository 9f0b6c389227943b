"""Looking for keys where none may be: in files, in git's history, in what an image is made of."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

# The shapes of real keys; what tests and examples use is shorter.
KEY = re.compile(
    rb"\bsk-(?:proj-|svcacct-|admin-|ant-[a-z0-9]+-)?[A-Za-z0-9_-]{32,}"  # OpenAI, Anthropic
    rb"|\bAIza[\w-]{35}(?![\w-])|\bAQ\.[\w-]{35,}"  # Google
    rb"|\bgsk_[A-Za-z0-9]{40,}|\bxai-[A-Za-z0-9]{60,}|\bhf_[A-Za-z0-9]{30,}"
    rb"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"  # AWS
    rb"|\bgh[pousr]_[A-Za-z0-9]{36}|\bgithub_pat_\w{60,}|\bglpat-[\w-]{20}"
    rb"|\bxox[abprs]-[\w-]{20,}"  # Slack
    rb"|-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----"
)
SKIPPED_FOLDERS = {
    ".git",
    ".venv",
    "venv",
    "node_modules",
    "__pycache__",
    "build",
    "dist",
    "data",
    "secrets",
}
# Larger files are data; a key is in a file that somebody wrote.
MAX_FILE_BYTES = 1_000_000


def keys_in_files(folder: Path) -> list[str]:
    """The files that hold what looks like a key, as `path:line`.

    In a git repository these are the files that git does not ignore.
    """
    found = []
    for path in sorted(_files(folder)):
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            if KEY.search(line):
                found.append(f"{path.relative_to(folder).as_posix()}:{number}")
    return found


def keys_in_history(folder: Path) -> list[str]:
    """The commits that added what looks like a key, as `commit path`; none without a history."""
    if not _in_git(folder):
        return []
    log = git(folder, "log", "--all", "--patch", "--unified=0", "--no-color", "--no-ext-diff", ".")
    found, commit, path = [], "", ""
    for line in log.splitlines():
        if line.startswith(b"commit "):
            commit = line[7:17].decode()
        elif line.startswith(b"+++ "):
            path = line[6:].decode("utf-8", "replace")
        elif line.startswith(b"+") and KEY.search(line):
            found.append(f"{commit} {path}")
    return found


def ignored_by_git(folder: Path, scratch: Path, name: str, file: str = ".gitignore") -> bool:
    """Whether the folder's own .gitignore keeps `name` out, whatever else this machine ignores.

    `file` is another file with the same rules, such as .vercelignore.
    """
    git(scratch, "init", "--quiet")
    rules = folder / file
    (scratch / ".gitignore").write_bytes(rules.read_bytes() if rules.exists() else b"")
    return bool(git(scratch, "check-ignore", name, check=False).strip())


def ignored_by_docker(folder: Path, name: str) -> bool:
    """Whether .dockerignore keeps `name` out of an image: of the lines that match, the last."""
    rules = folder / ".dockerignore"
    ignored = False
    for line in rules.read_text(encoding="utf-8").splitlines() if rules.exists() else ():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        if _matches(pattern.lstrip("!").strip("/"), name):
            ignored = not pattern.startswith("!")
    return ignored


def left_out_by_vercel(folder: Path, name: str) -> bool:
    """Whether vercel.json keeps `name` out of every function's bundle (`excludeFiles`).

    A local build takes what .vercelignore lists, so the bundle has a rule of its own. Patterns with
    a negation inside, `!(…)`, are not counted: what they leave out is not what they name.
    """
    try:
        functions = json.loads((folder / "vercel.json").read_text(encoding="utf-8"))["functions"]
        rules = [str(function["excludeFiles"]) for function in functions.values()]
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        return False
    return bool(rules) and all(
        any(_matches(pattern, name) for pattern in _without_braces(rule)) for rule in rules
    )


def git(folder: Path, *arguments: str, check: bool = True) -> bytes:
    """Run git without the configuration of this machine's user."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    identity = ["-c", "user.name=checklist", "-c", "user.email=checklist@localhost"]
    return subprocess.run(
        ["git", *identity, *arguments],
        cwd=folder,
        env=environment,
        check=check,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ).stdout


def _in_git(folder: Path) -> bool:
    return git(folder, "rev-parse", "--is-inside-work-tree", check=False).strip() == b"true"


def _files(folder: Path) -> Iterator[Path]:
    if _in_git(folder):
        listed = git(folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
        paths = [folder / name for name in listed.decode("utf-8", "replace").split("\0") if name]
    else:
        paths = list(_walk(folder))
    for path in paths:
        if path.is_file() and path.stat().st_size <= MAX_FILE_BYTES:
            yield path


def _walk(folder: Path) -> Iterator[Path]:
    for where, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in SKIPPED_FOLDERS]
        for name in names:
            # Files of secrets are where secrets belong.
            if name == ".env.example" or not name.startswith(".env"):
                yield Path(where, name)


def _without_braces(pattern: str) -> list[str]:
    """The patterns that one with {a,b} stands for."""
    inner = re.search(r"\{([^{}]*)\}", pattern)
    if inner is None:
        return [pattern]
    before, after = pattern[: inner.start()], pattern[inner.end() :]
    found = [_without_braces(f"{before}{choice}{after}") for choice in inner[1].split(",")]
    return [choice for choices in found for choice in choices]


def _matches(pattern: str, name: str) -> bool:
    """Docker's rule: the pattern fits the path or a folder above it; ** is any depth."""
    escaped = re.escape(pattern).replace(r"\*\*/", "(?:.*/)?").replace(r"\*\*", ".*")
    regex = re.compile(escaped.replace(r"\*", "[^/]*").replace(r"\?", "[^/]"))
    parts = name.split("/")
    return any(regex.fullmatch("/".join(parts[: n + 1])) for n in range(len(parts)))
