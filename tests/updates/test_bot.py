"""`update.yml`: its steps as they stand, on a repository of this machine, with GitHub's part noted.

`gh` is a program that hands out the artifact and writes down which pull request it is asked for.
`uv run` starts the app's own command. Each job has a checkout and a folder of its own.
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
from tests.updates.preview import COMMAND, NEW, project, save

WORKFLOW = TEMPLATE / ".github/workflows/update.yml"
JOBS = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]
STEPS = {step["name"]: step for job in JOBS.values() for step in job["steps"]}
BRANCH = "survival-kit-2.0.0"
SECRET = "what-the-secret-holds"  # noqa: S105 (it opens nothing)
OWN = "the-token-of-the-run"
RUN = "4711"
UV = f"""#!{sys.executable}
import os, sys
assert sys.argv[1:4] == ["run", "--no-sync", "preview-update"], sys.argv
more = os.environ["PREVIEW_MORE"].split()
os.execv(sys.executable, [*{COMMAND!r}, *sys.argv[4:], *more])
"""
GH = f"""#!{sys.executable}
import json, os, shutil, sys
from pathlib import Path
if sys.argv[1:3] == ["run", "download"]:
    assert sys.argv[3:-1] == ["{RUN}", "--name", "update", "--dir"], sys.argv
    assert os.environ["GH_TOKEN"] == "{OWN}"
    shutil.copytree(os.environ["GH_ARTIFACT"], sys.argv[-1])
    sys.exit()
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
        """The first job, from the checkout on, up to what it hands on; the step's exit code."""
        self._machine("try", "uv", UV)
        shutil.rmtree(self.artifact, ignore_errors=True)
        step = STEPS["Try the update"]
        code = self._step("try", step["run"], {"PREVIEW_MORE": more, **step["env"]})
        upload = STEPS["Hand it on"]
        assert upload["if"] == "steps.try.outputs.branch != ''"
        assert (upload["with"]["name"], upload["with"]["path"]) == (
            "update",
            "${{ runner.temp }}/update/",
        )
        if self.found:
            shutil.copytree(self.folder / "try/temp/update", self.artifact)
        return code

    @property
    def artifact(self) -> Path:
        """What one job hands to the other."""
        return self.folder / "artifact"

    @property
    def found(self) -> dict[str, str]:
        """The outputs of the first job."""
        return self._outputs("try")

    def offer(self, token: str = SECRET, gh_exit: int = 0) -> int:
        """The second job, which runs where there is something to offer; its exit code."""
        assert JOBS["offer"]["if"] == "needs.try.outputs.branch != ''"
        self._machine("offer", "gh", GH)
        given = {"github.token": OWN, "github.ref_name": "main", "secrets.UPDATE_TOKEN": token}
        for name in ("Take the branch", "Open a pull request"):
            step = STEPS[name]
            environment = {
                name: given[value.removeprefix("${{ ").removesuffix(" }}")]
                for name, value in step["env"].items()
            }
            if code := self._step("offer", step["run"], environment | {"GH_EXIT": str(gh_exit)}):
                return code
            given |= {f"steps.take.outputs.{key}": it for key, it in self._outputs("offer").items()}
        return 0

    def _machine(self, job: str, name: str, program: str) -> None:
        """A new one, with a checkout and one program."""
        shutil.rmtree(self.folder / job, ignore_errors=True)
        temp = self.folder / job / "temp"
        temp.mkdir(parents=True)
        git(self.folder / job, "clone", "--quiet", str(self.origin), "checkout")
        (temp / name).write_text(program, encoding="utf-8")
        (temp / name).chmod(stat.S_IRWXU)

    def _outputs(self, job: str) -> dict[str, str]:
        output = self.folder / job / "temp/output"
        text = output.read_text(encoding="utf-8") if output.exists() else ""
        return dict(line.split("=", 1) for line in text.splitlines())

    def _step(self, job: str, script: str, environment: dict[str, str]) -> int:
        temp = self.folder / job / "temp"
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            cwd=self.folder / job / "checkout",
            env={
                **os.environ,
                "PATH": f"{temp}:{os.environ['PATH']}",
                "RUNNER_TEMP": str(temp),
                "GITHUB_RUN_ID": RUN,
                "GITHUB_OUTPUT": str(temp / "output"),
                "GITHUB_STEP_SUMMARY": str(temp / "summary"),
                "GH_ARTIFACT": str(self.artifact),
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
        return (self.folder / "try/temp/summary").read_text(encoding="utf-8")

    @property
    def calls(self) -> list[dict[str, Any]]:
        """What `gh` was asked for."""
        ledger = self.folder / "ledger"
        text = ledger.read_text(encoding="utf-8") if ledger.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    @property
    def branches(self) -> list[str]:
        return git(self.origin, "branch", "--format=%(refname:short)").decode().split()


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


def test_what_runs_the_release_has_no_secret_and_what_has_it_runs_nothing_of_it() -> None:
    assert list(JOBS) == ["try", "offer"]
    assert "secrets." not in str(JOBS["try"])
    assert "github.token" not in str(JOBS["try"])
    assert JOBS["try"]["permissions"] == {"contents": "read"}
    assert JOBS["offer"]["permissions"] == {"contents": "read", "actions": "read"}
    used = [step["uses"] for step in JOBS["offer"]["steps"] if "uses" in step]
    assert [name.split("@")[0] for name in used] == ["actions/checkout"]
    # Of the first job's word the second takes no more than that there is something to look at.
    assert str(JOBS["offer"]).count("needs.") == 1
    for job in JOBS.values():
        assert job["steps"][0]["with"]["persist-credentials"] is False


def test_a_branch_that_is_no_release_is_not_pushed(repository: Repository, app: Path) -> None:
    made = repository.artifact
    made.mkdir()
    (made / "body.md").write_text("Take me.", encoding="utf-8")
    (app / "more").touch()
    save(app)
    git(app, "bundle", "create", "--quiet", str(made / "branch.bundle"), "main", "^HEAD~1")
    release = "survival-kit-2.0.0"
    for branch in ("main", f"{release}:main", f"{release}\nmain", "--all", f"{release}$(touch it)"):
        told = json.dumps({"branch": branch, "settled": True})
        (made / "update.json").write_text(told, encoding="utf-8")
        assert repository.offer() == 1, branch
        assert "::error" in repository.log
        assert not (repository.folder / "offer/checkout/it").exists()
    assert repository.calls == []
    assert repository.branches == ["main"]
    assert git(repository.origin, "rev-parse", "main") == git(app, "rev-parse", "HEAD~1")


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
