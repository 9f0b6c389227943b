"""What can happen to a store while an app runs on it: one module for each store.

FAULTS: as long as one lasts, nothing can be guarded. NUISANCES: no client may notice them.
"""

from importlib import import_module
from typing import Any

from app.foundation.project import load_project
from tests.fire.faults.base import Fault

_chosen: Any = import_module(f"tests.fire.faults.{load_project().store}")
FAULTS: dict[str, Fault] = _chosen.FAULTS
NUISANCES: dict[str, Fault] = _chosen.NUISANCES
