"""A time of day that jumps, for a store's server (or for the app, where the store lives in it)."""

import atexit
import shutil
import subprocess
import tempfile
import time
from datetime import datetime
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).with_name("clock.c")
NANO = 1_000_000_000


class Clock:
    """The time of day of all processes that are started with its `environment`; Linux only.

    At first it is the true one. Clocks that only measure how long something takes stay true.
    """

    def __init__(self) -> None:
        handle, name = tempfile.mkstemp(prefix="clock-", dir=_folder())
        with open(handle, "wb") as file:
            file.write(bytes(8))
        self._file = Path(name)
        self._file.chmod(0o644)
        self.environment = {"LD_PRELOAD": str(_library()), "CLOCK_FILE": name}

    def now(self) -> float:
        """Its Unix time."""
        return time.time() + int.from_bytes(self._file.read_bytes(), "little", signed=True) / NANO

    def set(self, moment: datetime) -> None:
        """Let it be this moment there; it goes on from there."""
        ahead = round((moment.timestamp() - time.time()) * NANO)
        with self._file.open("r+b") as file:
            file.write(ahead.to_bytes(8, "little", signed=True))

    def jump(self, seconds: float) -> None:
        """Put it forward, or back."""
        self.set(datetime.fromtimestamp(self.now() + seconds).astimezone())


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="test-clock-"))
    folder.chmod(0o755)  # a server may run as another user
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def _library() -> Path:
    """The library that is preloaded. Raises `AssertionError` with the cure where cc is missing."""
    compiler = shutil.which("cc")
    assert compiler, "The tests of the clock need a C compiler: install gcc or clang (as `cc`)."
    library = _folder() / "clock.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", library, SOURCE], check=True)
    return library
