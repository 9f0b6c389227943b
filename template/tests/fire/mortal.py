"""`serve`, whose processes meet a fate between their admission and their dispatch.

`python -m tests.fire.mortal`. As long as the file that FATE names exists, the first process that is
about to note a dispatch takes it away and sends itself the signal that it holds.
"""

import os
import signal
from pathlib import Path

from app.cli import serve
from app.standards.spending.guard import Guard

_dispatch = Guard.dispatch


async def _mortal_dispatch(self: Guard, reservation: str) -> bool:
    fate = Path(os.environ["FATE"])
    if fate.exists():
        name = fate.read_text(encoding="utf-8")
        fate.unlink()
        os.kill(os.getpid(), signal.Signals[name])
    return await _dispatch(self, reservation)


# Each worker imports this module before it serves.
Guard.dispatch = _mortal_dispatch  # type: ignore[method-assign]

if __name__ == "__main__":
    serve()
