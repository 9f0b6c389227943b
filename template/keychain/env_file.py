"""A file of settings such as `.env`: read as the app reads it, and changed one value at a time."""

import io
import os
import re
import stat
import tempfile
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from keychain.messages import RefusedError

# The app's own, which Compose hands over too.
ENV = Path(__file__).parents[1] / ".env"
MODE = 0o600
# What every reader of such files takes as it is; the rest goes into single quotes.
_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=~^-]+")


def read(path: Path) -> dict[str, str]:
    """The values of the file; none where there is no file. Raises `RefusedError`."""
    return _values(_text(path))


def open_to_others(path: Path) -> str:
    """The file's mode, such as `644`, where others than its owner may read it; or an empty text."""
    if os.name != "posix" or not path.exists():
        return ""
    mode = stat.S_IMODE(path.stat().st_mode)
    return f"{mode:o}" if mode & 0o077 else ""


def close_to_others(path: Path) -> None:
    """Let nobody but its owner read the file."""
    if open_to_others(path):
        path.chmod(MODE)


def write(path: Path, name: str, value: str) -> None:
    """Set one value, at once or not at all; every other line stays as it is.

    Raises `RefusedError` for a value that would not be read back as it was given.
    """
    target = path.resolve()  # where .env is a link, the link stays
    old = _text(target)
    new = _with(old, name, value)
    if _values(new) != _values(old) | {name: value}:
        raise RefusedError("unwritable_value", name=name, file=path.name, sign="${")
    try:
        write_whole(target, new, MODE)
    except OSError as error:
        raise RefusedError("unwritable_file", file=path.name, reason=error.strerror) from None


def write_whole(path: Path, text: str, mode: int) -> None:
    """Let the file be `text`, at once or not at all. Raises `OSError`."""
    # Made with mode 600, and under a name that git and images ignore.
    handle, scratch = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        Path(scratch).chmod(mode)
        os.replace(scratch, path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError:
        raise RefusedError("not_utf8", file=path.name) from None
    except OSError as error:
        raise RefusedError("unreadable_file", file=path.name, reason=error.strerror) from None


def _values(text: str) -> dict[str, str]:
    # Line ends are read as the app reads them, which opens the file as text.
    found = dotenv_values(stream=io.StringIO(text, newline=None))
    return {name: value for name, value in found.items() if value is not None}


def _with(text: str, name: str, value: str) -> str:
    """The text with the value in the last line that sets the name, or in a new one."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    written = value if _PLAIN.fullmatch(value) else f"'{escaped}'"
    bindings = [(item.key, item.original.string) for item in parse_stream(io.StringIO(text, ""))]
    end = "\r\n" if "\r\n" in text else "\n"
    line = f"{name}={written}{end}"
    places = [place for place, (key, _) in enumerate(bindings) if key == name]
    pieces = [piece for _, piece in bindings]
    if places:
        # A binding begins with the blank lines before it.
        old = pieces[places[-1]]
        pieces[places[-1]] = old[: len(old) - len(old.lstrip())] + line
        return "".join(pieces)
    if text and not text.endswith(("\n", "\r")):
        pieces.append(end)
    return "".join([*pieces, line])
