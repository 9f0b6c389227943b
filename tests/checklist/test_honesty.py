"""The checklist on apps that it did not grow up with: a naive one, and one of an old release."""

import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.checklist.trial import red, run_checklist
from tests.kit import answers, generate

NAIVE = Path(__file__).parent / "naive"
# What an evening's app gets right, and what the checklist must find in it.
NAIVE_CHECKED: set[str] = set()


def tell(report: dict[str, Any]) -> None:
    """Print what each open item says to whoever reads the report."""
    for item in report["items"]:
        print(f"{'☑' if item['checked'] else '☐'} {item['item']} {item['title']}")
        for failure in item["failures"]:
            print(f"    expected: {failure['expected']}\n    seen: {failure['seen']}")


def test_a_naive_app_is_not_ready_and_hears_why(app: Path, tmp_path: Path) -> None:
    shutil.copytree(NAIVE, tmp_path / "app" / "naive")
    code, report = run_checklist(
        app,
        CHECKLIST_APP=str(tmp_path / "app"),
        CHECKLIST_COMMAND=shlex.join([sys.executable, "-m", "naive"]),
    )
    tell(report)
    assert code == 2
    checked = {item["item"] for item in report["items"]} - set(red(report))
    assert checked == NAIVE_CHECKED
    for item in report["items"]:
        for failure in item["failures"]:
            assert failure["expected"].endswith(".")
            assert failure["look"]
            # What was seen are facts, not the wreck of a test.
            assert "Error" not in failure["seen"].split(":")[0], failure


# What apps of earlier releases lack, and say so; what they have, holds.
LACKED = {
    "0.1.0": {
        "L1": "no bad inputs",
        "L2": "no moderation to be without",
        "L3": "no evidence",
        "L4": "no policy",
        "L5": "no answer cache",
        "L6": "no deterministic mode",
        "L7": "no collection of failures",
        "L8": "the caller's cap in no metric, and no operations page",
        "L9": "no runbook",
        "L10": "no runbook, and no objectives to alert about",
    },
    "0.2.0": {
        "L1": "no bad inputs",
        "L3": "no evidence",
        "L7": "no collection of failures",
        "L8": "the caller's cap in no metric, and no operations page",
        "L9": "a runbook without a section on going back",
        "L10": "a runbook that names nobody",
    },
}


@pytest.mark.parametrize("version", LACKED)
def test_an_app_of_an_old_release(
    app: Path, repository: Path, tmp_path: Path, version: str
) -> None:
    old = generate(repository, tmp_path / "old", answers(), ref=f"v{version}")
    code, report = run_checklist(app, CHECKLIST_APP=str(old))
    tell(report)
    assert set(red(report)) == set(LACKED[version])
    assert code == 2
