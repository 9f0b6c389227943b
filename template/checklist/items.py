"""The twelve items, in the order of the five standards."""

import re
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
# Three or more open items, and an app is not ready for production.
TOO_MANY_OPEN = 3


@dataclass(frozen=True, slots=True)
class Item:
    """One question. `look` is the file that answers it in an app like this one."""

    number: str
    look: str

    @property
    def module(self) -> Path:
        """The test module that proves it."""
        return next(HERE.glob(f"test_{self.number.replace('.', '_')}_*.py"))


ITEMS = (
    Item("1.1", "app/standards/visibility/request_log.py"),
    Item("1.2", "app/standards/visibility/alerts.py"),
    Item("2.1", "app/foundation/settings.py"),
    Item("2.2", "app/standards/visibility/redaction.py"),
    Item("3.1", "app/providers/wire.py"),
    Item("3.2", "app/standards/availability/relay.py"),
    Item("3.3", "app/targets.py"),
    Item("4.1", "app/standards/spending/guard.py"),
    Item("4.2", "app/standards/spending/guard.py"),
    Item("4.3", "app/standards/spending/idempotency.py"),
    Item("5.1", "app/standards/tokens/gate.py"),
    Item("5.2", "app/standards/tokens/history.py"),
)
BY_NUMBER = {item.number: item for item in ITEMS}


def number_of(module: str) -> str:
    """The item that a test module is about: `test_4_2_daily_cap` is about 4.2."""
    found = re.match(r"test_(\d)_(\d)_", module.rpartition(".")[2])
    if found is None:
        raise ValueError(f"{module} is about no item")
    return f"{found[1]}.{found[2]}"
