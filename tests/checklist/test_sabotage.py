"""Every item of the checklist can fail: each sabotage turns its own item red, and no other."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.checklist.conftest import ROW
from tests.checklist.trial import Sabotage, Trap, copy_of, red, run_checklist, sabotages
from tests.kit import files

Record = Callable[[str, object], None]
TABLE = sabotages()
WHOLE = [entry for entry in TABLE if not entry.alone]
ITEMS = {entry.item for entry in WHOLE}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of an app, but what Python has compiled."""
    return {
        name: path.read_bytes() for name, path in files(folder).items() if "__pycache__" not in name
    }


def row(name: str, report: dict[str, Any]) -> str:
    """A row of the matrix."""
    checked = {item["item"]: item["checked"] for item in report["items"]}
    return json.dumps({"name": name, "checked": checked})


def name_of(entry: Sabotage) -> str:
    return f"{entry.item} {entry.name}"


def test_every_item_has_one_that_is_run_against_all() -> None:
    numbers = [entry.item for entry in WHOLE]
    assert len(numbers) == len(set(numbers)) == 22
    assert len({name_of(entry) for entry in TABLE}) == len(TABLE)


def test_the_app_that_nobody_touched_is_ready_and_still_untouched(
    app: Path, tmp_path: Path, record_property: Record
) -> None:
    mine = copy_of(app, tmp_path / "app")
    with Trap() as trap:
        (mine / ".env").write_text(trap.settings, encoding="utf-8")
        before = contents(mine)
        code, report = run_checklist(mine)
        assert trap.calls == 0, "the user's own .env was read"
    after = contents(mine)
    kept = json.loads(after.pop("app/checklist.json"))["items"]
    assert after == before
    assert {item["number"]: item["checked"] for item in kept} == dict.fromkeys(ITEMS, True)
    assert red(report) == {}
    assert code == 0
    assert {item["item"] for item in report["items"]} == {entry.item for entry in WHOLE}
    record_property(ROW, row("nothing", report))


def test_an_app_with_knowledge_abstains_for_want_of_evidence(
    app_for: Callable[[str, bool], Path],
) -> None:
    code, report = run_checklist(app_for("docker", True), "--item=L3")
    assert (code, red(report)) == (0, {})
    assert "zero_hit" in json.dumps(report)


@pytest.mark.parametrize("entry", TABLE, ids=name_of)
def test_exactly_the_item_and_its_dependants_turn_red(
    app_for: Callable[[str, bool], Path], tmp_path: Path, record_property: Record, entry: Sabotage
) -> None:
    app = app_for(entry.deploy, entry.knowledge)
    sabotaged = copy_of(app, tmp_path / "app")
    entry.apply(sabotaged)
    looked_at = entry.looked_at(ITEMS)
    chosen = [] if looked_at == ITEMS else [f"--item={number}" for number in sorted(looked_at)]
    code, report = run_checklist(app, *chosen, CHECKLIST_APP=str(sabotaged))
    found = red(report)
    record_property(ROW, row(name_of(entry), report))
    assert set(found) == entry.red, found
    # Each of the two lists has its own limit of open items.
    of_launch = sum(item.startswith("L") for item in found)
    assert code == (2 if max(of_launch, len(found) - of_launch) >= 3 else 1)
