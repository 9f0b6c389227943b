"""No update loses an edit: every release, with everything that people do, for several answers."""

import shutil
from pathlib import Path

import pytest

from tests.kit import HERE, TEMPLATE, files, run
from tests.updates.edits import EDITS
from tests.updates.matrix import ANSWERS, NEXT, Matrix, Step, assert_nothing_else, marked, steps

# An edit of the line beside one that the next release changes too.
BESIDE = ("longer lines allowed", "template", "conflict")


@pytest.fixture(scope="module")
def matrix(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Matrix:
    return Matrix(repository, tmp_path_factory.mktemp("matrix"))


@pytest.mark.parametrize("named", ANSWERS)
@pytest.mark.parametrize("step", steps(), ids="-".join)
def test_no_edit_is_lost(matrix: Matrix, step: Step, named: str) -> None:
    tried = matrix.tried(step, named, edited=True)
    outcomes = tried.outcomes
    for what, kind, outcome in outcomes:
        # What is the user's, or meant to be added to, never even conflicts.
        fine = ("kept", "conflict") if kind == "template" else ("kept",)
        assert outcome in fine, f"{what} ({kind}): {outcome}"
    assert (BESIDE in outcomes) == (step == (HERE, NEXT)), "a conflict is told from what is kept"
    assert marked(tried.app) == tried.unmerged, "git status names every conflict"
    assert not [name for name in files(tried.app) if name.endswith((".rej", ".orig"))]
    assert_nothing_else(tried)


@pytest.mark.parametrize("named", ANSWERS)
@pytest.mark.parametrize("step", steps()[:-1], ids="-".join)
def test_a_pristine_app_becomes_a_fresh_copy(matrix: Matrix, step: Step, named: str) -> None:
    tried = matrix.tried(step, named, edited=False)
    assert not tried.unmerged
    assert not marked(tried.app)
    assert_nothing_else(tried)
    assert (tried.app / ".copier-answers.yml").read_bytes() == (
        tried.fresh / ".copier-answers.yml"
    ).read_bytes()


def test_every_edit_meets_a_file_of_the_template() -> None:
    there = {name.removesuffix(".jinja") for name in files(TEMPLATE)}
    for edit in EDITS:
        assert edit.brings or edit.paths[0] in there, edit.what


@pytest.mark.parametrize("named", ANSWERS)
def test_uv_writes_below_the_markers(matrix: Matrix, named: str, tmp_path: Path) -> None:
    file = tmp_path / "pyproject.toml"
    shutil.copy(matrix.app(HERE, named)[0] / file.name, file)
    before = file.read_text(encoding="utf-8").splitlines()
    run(tmp_path, "uv", "add", "--frozen", "--quiet", "aaa>=1", "zzz>=1")
    run(tmp_path, "uv", "add", "--frozen", "--quiet", "--dev", "bbb>=1")
    after = file.read_text(encoding="utf-8").splitlines()
    ends = [at for at, line in enumerate(before) if line == "]"]
    yours = ['    "aaa>=1",', '    "zzz>=1",'], ['    "bbb>=1",']
    assert after == [
        *before[: ends[0]],
        *yours[0],
        *before[ends[0] : ends[1]],
        *yours[1],
        *before[ends[1] :],
    ]
