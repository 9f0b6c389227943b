"""The stores that the benchmarks know: one entry each, with a server of its own where it needs one."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class StoreKind:
    """`answer` is the template's; `server` starts what is needed and gives the app's settings."""

    answer: str
    server: Callable[[Path], AbstractContextManager[dict[str, str]]]


@contextmanager
def _sqlite(folder: Path) -> Iterator[dict[str, str]]:
    yield {"DATABASE_URL": f"sqlite:///{folder / 'app.db'}"}


STORES = {"sqlite": StoreKind("sqlite", _sqlite)}
