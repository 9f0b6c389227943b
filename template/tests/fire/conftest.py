"""What the tests under fire share."""

import os
import random

import pytest


@pytest.fixture
def chance() -> random.Random:
    """Seeded randomness."""
    seed = int(os.environ.get("FIRE_SEED") or random.SystemRandom().randrange(2**32))
    print(f"FIRE_SEED={seed}")
    return random.Random(seed)  # noqa: S311 (no secret hangs on it)
