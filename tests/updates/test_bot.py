"""`update.yml`: its steps as they stand, on a repository of this machine, with GitHub's part noted.

`gh` is a program that writes down what it is asked for. `uv run` starts the app's own command.
"""

import json
import os
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kit import TEMPLATE
from tests.releases.snapshot import git
from tests.updates.preview import COMMAND, NEW, project, save, two_releases

WORKFLOW = TEMPLATE / ".github/workflows/update.yml"
JOB = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]["update"]
STEPS = {step["name"]: step for step in JOB["steps"]}
BRANCH = "survival-kit-2.0.0"
SECRET = "what-the-secret-holds"  # noqa: S105 (it opens nothing)
UV = f"""#!{sys.executable}
import os, sys
assert sys.argv[1:4] == ["run", "--no-sync", "preview-update"], sys.argv
more = os.environ["PREVIEW_MORE"].split()
os.execv(sys.executable, [*{COMMAND!r}, *sys.argv[4:], *more])
"""
GH = f"""#!{sys.executable}
import json, os, sys
from pathlib import Path
body = Path(sys.argv[sys.argv.index("--body-file") + 1]).read_text()
call = {{"said": sys.argv[1:], "body": body, "token": os.environ["GH_TOKEN"]}}
with open(os.environ["GH_LEDGER"], "a") as ledger:
    ledger.write(json.dumps(call) + "\\n")
sys.exit(int(os.environ["GH_EXIT"]))
"""


@dataclass
class Repository:
    """The app's repository as GitHub has it, the checkout of a run, and what a run left behind."""

    origin: Path
    folder: Path

    def push(self, app: Path) -> None:
        """What the user has on main."""
        git(app, "push", "--quiet", "--force", str(self.origin), "main")

    def attempt(self, more: str = "--no-checklist") -> int:
        """A run of the job, from the checkout on, up to what it found; the step's exit code."""
        for name in ("checkout", "temp"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        git(self.folder, "clone", "--quiet", str(self.origin), "checkout")
        temp = self.folder / "temp"
        temp.mkdir()
        for name, program in (("uv", UV), ("gh", GH)):
            (temp / name).write_text(program, encoding="utf-8")
            (temp / name).chmod(stat.S_IRWXU)
        step = STEPS["Try the update"]
        return self._step(step["run"], {"PREVIEW_MORE": more, **step["env"]})

    @property
    def found(self) -> dict[str, str]:
        """The outputs of that step."""
        output = self.folder / "temp/output"
        text = output.read_text(encoding="utf-8") if output.exists() else ""
        return dict(line.split("=", 1) for line in text.splitlines())

    def offer(self, token: str = SECRET, gh_exit: int = 0) -> int:
        """The rest of the run, where there is something to offer; the step's exit code."""
        step = STEPS["Open a pull request"]
        assert step["if"] == "steps.try.outputs.branch != ''"
        given = {"github.ref_name": "main", "secrets.UPDATE_TOKEN": token}
        given |= {f"steps.try.outputs.{name}": value for name, value in self.found.items()}
        environment = {
            name: given[value.removeprefix("${{ ").removesuffix(" }}")]
            for name, value in step["env"].items()
        }
        return self._step(step["run"], environment | {"GH_EXIT": str(gh_exit)})

    def _step(self, script: str, environment: dict[str, str]) -> int:
        temp = self.folder / "temp"
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            cwd=self.folder / "checkout",
            env={
                **os.environ,
                "PATH": f"{temp}:{os.environ['PATH']}",
                "RUNNER_TEMP": str(temp),
                "GITHUB_OUTPUT": str(temp / "output"),
                "GITHUB_STEP_SUMMARY": str(temp / "summary"),
                "GH_LEDGER": str(self.folder / "ledger"),
                **environment,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        self.log = done.stdout + done.stderr
        return done.returncode

    @property
    def summary(self) -> str:
        return (self.folder / "temp/summary").read_text(encoding="utf-8")

    @property
    def calls(self) -> list[dict[str, Any]]:
        """What `gh` was asked for."""
        ledger = self.folder / "ledger"
        text = ledger.read_text(encoding="utf-8") if ledger.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    @property
    def branches(self) -> list[str]:
        return git(self.origin, "branch", "--format=%(refname:short)").decode().split()


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_releases(tmp_path_factory.mktemp("releases") / "template")


@pytest.fixture(scope="module")
def pristine(releases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return project(releases, tmp_path_factory.mktemp("pristine") / "app")


@pytest.fixture
def app(pristine: Path, tmp_path: Path) -> Path:
    """The user's clone."""
    return shutil.copytree(pristine, tmp_path / "app", symlinks=True)


@pytest.fixture
def repository(app: Path, tmp_path: Path) -> Repository:
    origin = tmp_path / "origin.git"
    git(tmp_path, "init", "--quiet", "--bare", "--initial-branch=main", str(origin))
    found = Repository(origin, tmp_path)
    found.push(app)
    return found


def test_a_release_is_offered_once_with_the_checklist_before_and_after(
    repository: Repository,
) -> None:
    assert repository.attempt(more="--item 4.3") == 0, repository.log
    assert repository.offer(token="") == 1
    assert "::error" in repository.log
    assert "UPDATE_TOKEN" in repository.log
    assert repository.calls == []
    assert repository.branches == ["main"]
    # A pull request that was refused leaves no branch: the next run offers it again.
    assert repository.offer(gh_exit=1) == 1
    assert repository.branches == ["main"]
    assert repository.offer() == 0, repository.log
    assert repository.branches == ["main", BRANCH]
    refused, call = repository.calls
    assert refused == call
    assert call["token"] == SECRET
    assert "--draft" not in call["said"]
    assert call["said"][:6] == ["pr", "create", "--base", "main", "--head", BRANCH]
    assert "v2.0.0" in call["said"][call["said"].index("--title") + 1]
    assert "A key is kept **again**." in call["body"]
    assert "| ☐ | ☑ | 4.3" in call["body"]
    assert call["body"] == repository.summary + "\n"
    brought = git(repository.origin, "show", f"{BRANCH}:app/standards/new_safeguard.py")
    assert b"Guards what nobody did" in brought
    by = git(repository.origin, "log", "-1", "--format=%an", BRANCH).decode().strip()
    assert by == "github-actions[bot]"
    # The next week: its branch is still there.
    assert repository.attempt() == 0, repository.log
    assert "offered before" in repository.summary
    assert repository.found == {}


def test_a_conflict_is_offered_as_a_draft(repository: Repository, app: Path) -> None:
    dockerfile = app / "Dockerfile"
    text = dockerfile.read_text(encoding="utf-8")
    dockerfile.write_text(text.replace("USER 999:999", "USER 997:997"), encoding="utf-8")
    repository.push(save(app))
    assert repository.attempt() == 0, repository.log
    assert repository.offer() == 0, repository.log
    (call,) = repository.calls
    assert "--draft" in call["said"]
    assert "<<<<<<<" in git(repository.origin, "show", f"{BRANCH}:Dockerfile").decode()


def test_nothing_is_offered_where_nothing_is_new_or_nothing_can_be_told(
    releases: Path, repository: Repository, tmp_path: Path
) -> None:
    app = project(releases, tmp_path / "new", NEW)
    repository.push(app)
    assert repository.attempt() == 0, repository.log
    assert NEW in repository.summary
    assert repository.found == {}
    (app / ".copier-answers.yml").write_text("{}\n", encoding="utf-8")
    repository.push(save(app))
    assert repository.attempt() != 0
    assert ".copier-answers.yml" in repository.log
    assert repository.found == {}
