"""How edits are made: each gives a function that makes one in an app."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


def append(name: str, text: str) -> Callable[[Path], None]:
    """Write `text` at the end of a file."""

    def make(app: Path) -> None:
        with (app / name).open("a", encoding="utf-8", newline="") as file:
            file.write(text)

    return make


def write(name: str, content: str | bytes, mode: int = 0o644) -> Callable[[Path], None]:
    """Write a file."""

    def make(app: Path) -> None:
        path = app / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(mode)

    return make


def replace(name: str, old: str, new: str) -> Callable[[Path], None]:
    """Put `new` in the place of `old`, which stands in the file."""

    def make(app: Path) -> None:
        text = (app / name).read_text(encoding="utf-8")
        assert old in text, f"{name} no longer says {old!r}: let the edit meet another line"
        (app / name).write_text(text.replace(old, new, 1), encoding="utf-8")

    return make


def delete(name: str) -> Callable[[Path], None]:
    """Delete a file."""
    return lambda app: (app / name).unlink()


def rename(name: str, to: str) -> Callable[[Path], None]:
    """Rename a file."""

    def make(app: Path) -> None:
        (app / to).parent.mkdir(parents=True, exist_ok=True)
        (app / name).rename(app / to)

    return make


def uv_add(*words: str) -> Callable[[Path], None]:
    """Let uv write a dependency where uv writes it."""

    def make(app: Path) -> None:
        command = ["uv", "add", "--frozen", "--quiet", *words]
        subprocess.run(command, cwd=app, check=True, stdin=subprocess.DEVNULL)

    return make


def formatted(name: str) -> Callable[[Path], None]:
    """Format a module in another style than the template's."""

    def make(app: Path) -> None:
        style = [
            "--no-cache",
            "--config",
            "format.quote-style='single'",
            "--config",
            "line-length=79",
        ]
        command = [sys.executable, "-m", "ruff", "format", "--quiet", *style, name]
        subprocess.run(command, cwd=app, check=True)

    return make


def carriage_returns(name: str, old: str, new: str) -> Callable[[Path], None]:
    """Change a line in an editor that ends each with CR LF."""

    def make(app: Path) -> None:
        replace(name, old, new)(app)
        path = app / name
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))

    return make


def line_replaced(name: str, at: int, new: str) -> Callable[[Path], None]:
    """Write another line in the place of line `at`, the first being 0."""

    def make(app: Path) -> None:
        lines = (app / name).read_text(encoding="utf-8").split("\n")
        lines[at] = new
        (app / name).write_text("\n".join(lines), encoding="utf-8")

    return make


def link(name: str, to: str) -> Callable[[Path], None]:
    """Make a symbolic link."""
    return lambda app: (app / name).symlink_to(to)


def executable(name: str) -> Callable[[Path], None]:
    """Let a file be run."""
    return lambda app: (app / name).chmod(0o755)
