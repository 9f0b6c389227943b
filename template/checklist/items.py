"""The items: twelve in the order of the five standards, then those of the launch."""

import re
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
# Three or more open items of a list: not ready for production, or to launch.
TOO_MANY_OPEN = 3


@dataclass(frozen=True, slots=True)
class Item:
    """One question. `look` is the file that answers it in an app like this one.

    A `slow` one waits for what takes its time, such as a breaker or a lease: it begins first.
    """

    number: str
    look: str
    slow: bool = False

    @property
    def module(self) -> Path:
        """The test module that proves it."""
        return next(HERE.glob(f"test_{self.number.replace('.', '_').lower()}_*.py"))

    @property
    def group(self) -> str:
        """What it belongs to: a standard's digit, or L for the launch."""
        return self.number[0]

    @property
    def of_launch(self) -> bool:
        """True for an item of the launch's list."""
        return self.group == "L"


ITEMS = (
    Item("1.1", "app/standards/visibility/request_log.py"),
    Item("1.2", "app/standards/visibility/alerts.py"),
    Item("2.1", "app/foundation/settings.py"),
    Item("2.2", "app/standards/visibility/redaction.py"),
    Item("3.1", "app/providers/wire.py", slow=True),
    Item("3.2", "app/standards/availability/relay.py", slow=True),
    Item("3.3", "app/targets.py", slow=True),
    Item("4.1", "app/standards/spending/guard.py"),
    Item("4.2", "app/standards/spending/guard.py"),
    Item("4.3", "app/standards/spending/idempotency.py", slow=True),
    Item("5.1", "app/standards/tokens/gate.py"),
    Item("5.2", "app/standards/tokens/history.py"),
    Item("L1", "tests/replay.py"),
    Item("L2", "app/standards/availability/relay.py"),
    Item("L3", "app/guarded.py"),
    Item("L4", "app/launch/policy/screen.py"),
    Item("L5", "app/launch/caching.py"),
    Item("L6", "app/asked.py"),
    Item("L7", "app/standards/visibility/request_log.py"),
    Item("L8", "app/standards/spending/guard.py"),
    Item("L9", "RUNBOOK.md"),
    Item("L10", "app/standards/visibility/alerts.py", slow=True),
)
BY_NUMBER = {item.number: item for item in ITEMS}


def number_of(module: str) -> str:
    """The item that a test module is about: `test_4_2_daily_cap` is about 4.2, `test_l4_…` L4."""
    found = re.match(r"test_(\d_\d|l\d+)_", module.rpartition(".")[2])
    if found is None:
        raise ValueError(f"{module} is about no item")
    return found[1].replace("_", ".").upper()
