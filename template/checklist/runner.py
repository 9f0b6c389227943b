"""Running the items: each in a pytest process of its own, a few at a time."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from checklist.items import HERE, Item
from checklist.messages import load_texts
from checklist.results import Failure, Result

# An item takes up to 15 seconds alone; one that hangs must not hold up the report.
MAX_SECONDS = 120.0
GOODBYE_SECONDS = 10.0
# Items wait more than they work: one more at a time than there are processors.
JOBS = int(os.environ.get("CHECKLIST_JOBS") or min((os.cpu_count() or 1) + 1, 4))


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
            for future in as_completed([pool.submit(one, item) for item in items]):
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
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(item.module)]
    process = subprocess.Popen(
        command,
        cwd=HERE.parent,
        env={**os.environ, "CHECKLIST_RESULTS": str(record)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    try:
        return True, process.communicate(timeout=MAX_SECONDS)[0]
    except subprocess.TimeoutExpired:
        # Asked first: it ends the apps that it started.
        process.send_signal(signal.SIGTERM if os.name == "nt" else signal.SIGINT)
        try:
            return False, process.communicate(timeout=GOODBYE_SECONDS)[0]
        except subprocess.TimeoutExpired:
            process.kill()
            return False, process.communicate()[0]
