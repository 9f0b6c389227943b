"""Random ways through the store: each step must answer as the model of `store_model.py` does.

    STORE_MODEL_EXAMPLES=2000 uv run pytest tests/test_store_model.py

takes that many new ways instead of the usual ones. A failure is printed as a short program.
"""

import os
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.store_machine import StoreMachine
from tests.store_twins import STORE

# Every store has about the same seconds to spend: the slower its steps, the fewer they are.
EXAMPLES = {"sqlite": 150, "redis": 80, "postgres": 30}[STORE]
DEEP = int(os.environ.get("STORE_MODEL_EXAMPLES", "0"))
SETTINGS = settings(
    max_examples=DEEP or EXAMPLES,
    stateful_step_count=50,
    derandomize=not DEEP,
    database=None,
    deadline=None,
    print_blob=True,
    phases=[Phase.generate],  # shrinking a failure takes minutes: do it by hand, with the blob
    suppress_health_check=list(HealthCheck),
)


def test_the_store_answers_as_the_model_does(tmp_path: Path) -> None:
    class Machine(StoreMachine):
        folder = tmp_path

    run_state_machine_as_test(Machine, settings=SETTINGS)
