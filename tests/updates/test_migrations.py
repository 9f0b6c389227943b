"""Migrations: what `hooks/run.py` promises, and what an update that crosses one does."""

import importlib
from pathlib import Path

import pytest
import yaml
from copier import run_copy, run_update
from copier.errors import UnsafeTemplateError

from tests.kit import CONFIG
from tests.releases.snapshot import ROOT, commit, git
from tests.updates.migrations import declaration, problems
from tests.updates.preview import preview, project, save, two_releases

runner = importlib.import_module("hooks.run")

NAME = "3_0_0_probe"
# What a user wrote in a form that release 3.0.0 no longer reads.
OLD_FORM, NEW_FORM = "limit = 5\nname = mine\n", "limit: 5\nname: mine\n"
PROBE = """\
from pathlib import Path


def changes(app: Path) -> dict[str, str | None]:
    print("looking")
    old = app / "app/yours/limits.ini"
    if not old.is_file():
        return {}
    text = old.read_text(encoding="utf-8").replace(" = ", ": ")
    return {"app/yours/limits.yaml": text, "app/yours/limits.ini": None}
"""
BAD = {
    "it fails": ("raise RuntimeError('broken')", "broken"),
    "it is not idempotent": ("return {'new.txt': 'x'}", "once more"),
    "it leaves the app": ("return {'new.txt': 'x', '../out.txt': 'x'}", "not a file of the app"),
    "it reaches into git": ("return {'.git/config': 'x'}", "not a file of the app"),
    "it cannot write": ("return {'new.txt': 'x', 'file/below': 'x'}", "file"),
}


def release(repository: Path, tag: str, module: str | None) -> None:
    """A release of a small template with the real runner, and with a migration where one is given.

    What comes after a release with a migration declares it still.
    """
    (repository / "hooks").mkdir(exist_ok=True)
    (repository / "template").mkdir(exist_ok=True)
    (repository / "hooks/run.py").write_bytes((ROOT / "hooks/run.py").read_bytes())
    if module is not None:
        (repository / f"hooks/{NAME}.py").write_text(module)
    declared = [declaration(path.stem) for path in (repository / "hooks").glob("[0-9]*.py")]
    config = {"_subdirectory": "template", "_migrations": declared}
    (repository / "copier.yml").write_text(yaml.safe_dump(config))
    answers = repository / "template/{{ _copier_conf.answers_file }}.jinja"
    answers.write_text("{{ _copier_answers | to_nice_yaml }}")
    (repository / "template/release.txt").write_text(f"{tag}\n")
    commit(repository, tag, tag)


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "template"
    path.mkdir()
    git(path, "init", "--quiet", "--initial-branch=main")
    release(path, "v2.0.0", None)
    return path


@pytest.fixture
def app(template: Path, tmp_path: Path) -> Path:
    path = tmp_path / "app"
    run_copy(str(template), path, quiet=True, unsafe=False)
    (path / "app/yours").mkdir(parents=True)
    (path / "app/yours/limits.ini").write_text(OLD_FORM)
    git(path, "init", "--quiet", "--initial-branch=main")
    return save(path)


def update(app: Path, *, trust: bool) -> None:
    run_update(app, defaults=True, overwrite=True, quiet=True, unsafe=trust)


def test_only_the_update_that_crosses_it_needs_trust(template: Path, app: Path) -> None:
    release(template, "v2.1.0", None)
    update(app, trust=False)
    save(app)
    release(template, "v3.0.0", PROBE)
    with pytest.raises(UnsafeTemplateError):
        update(app, trust=False)
    assert git(app, "status", "--porcelain") == b""
    update(app, trust=True)
    assert (app / "app/yours/limits.yaml").read_text() == NEW_FORM
    assert not (app / "app/yours/limits.ini").exists()
    save(app)
    # Once crossed, never again: neither trust nor a second run.
    release(template, "v3.1.0", None)
    (app / "app/yours/limits.ini").write_text("written = later\n")
    save(app)
    update(app, trust=False)
    assert (app / "app/yours/limits.ini").read_text() == "written = later\n"
    assert (app / "release.txt").read_text() == "v3.1.0\n"


def test_a_second_run_changes_nothing(template: Path, app: Path) -> None:
    release(template, "v3.0.0", PROBE)
    changes = runner.load(NAME, template / "hooks")
    assert runner.run(changes, app) == ["app/yours/limits.ini", "app/yours/limits.yaml"]
    assert runner.run(changes, app) == []
    assert (app / "app/yours/limits.yaml").read_text() == NEW_FORM


@pytest.mark.parametrize("case", BAD)
def test_all_of_it_or_nothing(
    template: Path, app: Path, case: str, capfd: pytest.CaptureFixture[str]
) -> None:
    code, message = BAD[case]
    (app / "file").write_text("no folder\n")
    save(app)
    release(template, "v3.0.0", f"def changes(app):\n    {code}\n")
    with pytest.raises(Exception, match=r"run\.py"):
        update(app, trust=True)
    said = capfd.readouterr()
    assert message in said.err
    assert "git restore -SW . && git clean -fd" in said.err
    changed = git(app, "status", "--porcelain", "--untracked-files=all").decode().split("\n")
    assert sorted(filter(None, changed)) == [" M .copier-answers.yml", " M release.txt"]
    assert not (app.parent / "out.txt").exists()


def test_the_preview_asks_for_trust_and_shows_what_is_migrated(tmp_path: Path) -> None:
    repository = two_releases(tmp_path / "releases")
    (repository / f"hooks/{NAME}.py").write_text(PROBE)
    with (repository / "copier.yml").open("a", encoding="utf-8") as file:
        file.write("\n" + yaml.safe_dump({"_migrations": [declaration(NAME)]}))
    commit(repository, "A migration", "v3.0.0")
    app = project(repository, tmp_path / "app", "v2.0.0")
    (app / "app/yours/limits.ini").write_text(OLD_FORM)
    save(app)
    refused = preview(app)
    assert refused.code == 64, refused.out
    assert "hooks/" in refused.err
    assert "--trust" in refused.err
    said = preview(app, "--trust", "--apply", "--no-checklist", "--format", "json")
    # What the migration takes away was the user's, so that is theirs to decide.
    assert said.code == 1, said.err
    assert said.files["app/yours/limits.yaml"] == "new"
    assert said.files["app/yours/limits.ini"] == "lost"
    assert git(app, "status", "--porcelain") == b""
    branch = said.report["branch"]
    assert git(app, "show", f"{branch}:app/yours/limits.yaml").decode() == NEW_FORM


def test_modules_and_declarations_agree(tmp_path: Path) -> None:
    here = Path(__file__).parent
    assert problems(CONFIG.get("_migrations", []), ROOT / "hooks", here) == []
    hooks, tests = tmp_path / "hooks", tmp_path / "tests"
    hooks.mkdir()
    tests.mkdir()
    names = [NAME, "3_1_0_other"]
    for name in ("run", *names):
        (hooks / f"{name}.py").touch()
    for name in names:
        (tests / f"test_migration_{name}.py").touch()
    declared = [declaration(name) for name in names]
    assert problems(declared, hooks, tests) == []
    assert problems(declared[::-1], hooks, tests) != []
    assert problems(declared[:1], hooks, tests) != []
    for changed in ({"version": "v3.2.0"}, {"command": "echo"}, {"when": "true"}):
        assert problems([declared[0] | changed, declared[1]], hooks, tests) != []
    (tests / f"test_migration_{NAME}.py").unlink()
    assert problems(declared, hooks, tests) == [f"{NAME} has no test"]
    (hooks / "no_version.py").touch()
    assert problems(declared, hooks, tests) == ["no_version does not begin with a version"]
