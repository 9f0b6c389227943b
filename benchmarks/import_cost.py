"""What loading the app costs, beside a bare FastAPI app with the same SDK, in one run.

    python benchmarks/import_cost.py [APP_FOLDER] [--rounds 5]

APP_FOLDER is a generated and installed app; without one, the benchmark makes its own. Both are
loaded in fresh processes of that app's own Python, alternately; the medians and their ratio are
printed.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

_MEASURE = """
import resource
{load}
usage = resource.getrusage(resource.RUSAGE_SELF)
print(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
"""
_BARE = """
from fastapi import FastAPI
from openai import AsyncOpenAI
app = FastAPI()
client = AsyncOpenAI(api_key="sk-0123456789")
"""
_OURS = """
from app.main import create_app
app = create_app()
"""


def measure(python: Path, folder: Path, load: str) -> tuple[float, float]:
    """CPU seconds and peak memory (MiB) of a fresh process that runs `load`."""
    environment = {**os.environ, "PROVIDERS": "openai", "OPENAI_API_KEY": "sk-0123456789"}
    ended = subprocess.run(
        [str(python), "-c", _MEASURE.format(load=load)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, mebibytes = ended.stdout.split()
    return float(seconds), float(mebibytes)


def _own_app() -> Path:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from benchmarks.apps import installed

    with tempfile.TemporaryDirectory() as scratch:
        return installed("sqlite", Path(scratch))


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    folder = options.folder.resolve() if options.folder else _own_app()
    python = folder / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        sys.exit(f"{python} is missing: run `uv sync` in {folder} first")
    cases = {"bare": _BARE, "app": _OURS}
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for _ in range(options.rounds):
        for name, load in cases.items():
            results[name].append(measure(python, folder, load))
    medians = {
        name: [statistics.median(column) for column in zip(*rows, strict=True)]
        for name, rows in results.items()
    }
    print(f"{'':8}{'CPU s':>8}{'MiB':>8}")
    for name, (seconds, mebibytes) in medians.items():
        print(f"{name:8}{seconds:8.2f}{mebibytes:8.0f}")
    ratios = [ours / bare for ours, bare in zip(medians["app"], medians["bare"], strict=True)]
    print(f"{'ratio':8}{ratios[0]:8.2f}{ratios[1]:8.2f}")


if __name__ == "__main__":
    main()
