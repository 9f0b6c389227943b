"""Running the items: each in a process of its own under pytest, a few at a time."""

import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING

from checklist.items import HERE, Item
from checklist.messages import load_texts
from checklist.results import Failure, Result

if TYPE_CHECKING:  # the first of these is not everywhere
    from multiprocessing.context import ForkServerContext, SpawnContext
    from multiprocessing.process import BaseProcess

# An item takes up to 15 seconds alone; one that hangs must not hold up the report.
MAX_SECONDS = 120.0
GOODBYE_SECONDS = 10.0
# Items wait more than they work: twice as many at a time as there are processors, and one more.
JOBS = int(os.environ.get("CHECKLIST_JOBS") or min(2 * (os.cpu_count() or 1) + 1, 8))
# What every item's process needs and one process loads for all of them, where it can be forked.
PRELOADED = ["pytest", "httpx2", "psutil", "tests.running", "tests.fake_provider"]


def run(
    items: Sequence[Item], on_start: Callable[[Item], None], on_end: Callable[[Result], None]
) -> list[Result]:
    """Run the items; `on_start` and `on_end` hear of each. The results are in the items' order."""

    def one(item: Item) -> Result:
        on_start(item)
        return run_item(item)

    results: dict[str, Result] = {}
    with ThreadPoolExecutor(JOBS) as pool:
        try:
            # Who waits longest begins first, so that nobody is waited for at the end.
            order = sorted(items, key=lambda item: not item.slow)
            for future in as_completed([pool.submit(one, item) for item in order]):
                result = future.result()
                results[result.item.number] = result
                on_end(result)
        except KeyboardInterrupt:
            # The items that run have heard of it as well, and end their apps.
            pool.shutdown(cancel_futures=True)
            raise
    return [results[item.number] for item in items]


def run_item(item: Item) -> Result:
    """Run one item's tests and read what they found."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="checklist-") as folder:
        record = Path(folder) / "findings.jsonl"
        ended, output = _pytest(item, record)
        lines = record.read_text(encoding="utf-8").splitlines() if record.exists() else []
    findings = [json.loads(line) for line in lines]
    failures = [
        Failure(found["test"], found["expected"], found["seen"], found["look"])
        for found in findings
        if not found["passed"]
    ]
    evidence = [text for found in findings for text in found["evidence"]]
    if not ended:
        expected = load_texts().text("report.no_end", seconds=f"{MAX_SECONDS:.0f}")
        failures.append(Failure(item.module.stem, expected, f"> {MAX_SECONDS:.0f} s", item.look))
    elif not findings:
        expected = load_texts().text("report.no_result")
        last = output.strip().splitlines()[-1:] or ["?"]
        failures.append(Failure(item.module.stem, expected, last[0], item.module.name))
    return Result(item, time.monotonic() - started, evidence, failures)


def _pytest(item: Item, record: Path) -> tuple[bool, str]:
    """Whether the tests came to their end in time, and what pytest wrote."""
    output = record.with_name("output.txt")
    process = _processes().Process(target=_run_pytest, args=(item.module, record, output))
    process.start()
    process.join(MAX_SECONDS)
    ended = process.exitcode is not None
    if not ended:
        _end(process)
    return ended, output.read_text(encoding="utf-8", errors="replace") if output.exists() else ""


def _processes() -> "ForkServerContext | SpawnContext":
    """How processes are made: forked from one that has loaded what they need, or anew."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def _run_pytest(module: Path, record: Path, output: Path) -> None:
    """An item's process."""
    with output.open("wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.chdir(HERE.parent)
    os.environ["CHECKLIST_RESULTS"] = str(record)
    import pytest

    sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", str(module)]))


def _end(process: "BaseProcess") -> None:
    """End an item that hangs. Asked first, it ends the apps that it started."""
    if os.name == "nt" or process.pid is None:
        process.terminate()
    else:
        os.kill(process.pid, signal.SIGINT)
    process.join(GOODBYE_SECONDS)
    if process.exitcode is None:
        process.kill()
        process.join()
