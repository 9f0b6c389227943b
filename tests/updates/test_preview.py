"""`uv run preview-update`: what it shows, what it puts on a branch, and what it leaves alone."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.releases.snapshot import git
from tests.updates.preview import (
    COMMAND,
    GUARD,
    NEW,
    OLD,
    preview,
    save,
    state,
    untouched,
)

BRANCH = "survival-kit-2.0.0"


def edit(app: Path, name: str, old: str, new: str) -> None:
    path = app / name
    text = path.read_text(encoding="utf-8")
    assert old in text, name
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_every_file_is_told_and_none_is_touched(app: Path, tmp_path: Path) -> None:
    edit(app, "Dockerfile", "USER 999:999", "USER 997:997")  # the same line as the next release
    edit(app, "app/health.py", "\n\n\n", "\n\n\nMINE = 1\n\n\n")  # another line
    edit(app, "app/gone.py", "Gone", "Mine, and gone")  # a file that the next release drops
    edit(app, "app/yours/system_prompt.md", "You", "My words. You")
    (app / "app/summaries.py").unlink()
    head = state(save(app))
    written = [tmp_path / "report.json", tmp_path / "report.md"]
    said = preview(app, "--diff", *(f"--report={path}" for path in written))
    assert said.code == 1, said.err
    untouched(app, head)
    report = json.loads(written[0].read_text(encoding="utf-8"))
    assert (report["from"], report["to"], report["settled"]) == (OLD, NEW, False)
    assert report["changelog"] == "## 2.0.0\n\nA key is kept **again**."
    happens = {change["path"]: change["what"] for change in report["changes"]}
    assert happens == {
        "Dockerfile": "conflict",
        "app/gone.py": "lost",
        "app/standards/new_safeguard.py": "new",
        ".copier-answers.yml": "updated",
        ".survival-kit/files.toml": "updated",
        GUARD: "updated",
        "README.md": "updated",
        "app/health.py": "merged",
        "app/summaries.py": "missing",
        **{
            f"app/yours/{name}": "yours"
            for name in ("__init__.py", "policy.toml", "routes.py", "system_prompt.md")
        },
        **{f"tests/yours/{name}": "yours" for name in ("__init__.py", "test_features.py")},
    }
    about = {change["path"]: change["about"] for change in report["changes"]}
    assert about["app/standards/new_safeguard.py"] == "Guards what nobody did."
    markdown = written[1].read_text(encoding="utf-8")
    for words in ("v1.0.0 → v2.0.0", "--restore app/summaries.py"):
        assert words in said.out
        assert words in markdown
    assert "A key is kept again." in said.out
    assert "A key is kept **again**." in markdown
    assert '+"""Guards what nobody did."""' in said.out
    assert "+<<<<<<< before updating" in said.out, "the difference shows the conflict"


def test_a_branch_says_what_turned_green(app: Path) -> None:
    edit(app, "app/health.py", "\n\n\n", "\n\n\nMINE = 1\n\n\n")
    head = state(save(app))
    said = preview(app, "--apply", "--item", "4.3", "--item", "5.1", "--format", "json")
    assert said.code == 0, said.err
    items = {item["number"]: (item["before"], item["after"]) for item in said.report["checklist"]}
    assert items == {"4.3": (False, True), "5.1": (True, True)}
    green = [item["number"] for item in said.report["checklist"] if item["turned_green"]]
    assert green == ["4.3"]
    assert said.report["branch"] == BRANCH
    # The folder is as it was, and the branch is one commit of the user's on top of it.
    assert git(app, "status", "--porcelain", "--untracked-files=all") == b""
    assert state(app) == head
    assert git(app, "log", "--format=%ae", "-1", BRANCH) == b"kit@survival.test\n"
    assert git(app, "rev-parse", f"{BRANCH}~1").decode().strip() == head
    assert git(app, "worktree", "list").count(b"\n") == 1
    again = preview(app, "--apply", "--no-checklist")
    assert again.code == 64
    assert f"git branch -D {BRANCH}" in again.err
    # What the report says to do.
    git(app, "merge", "--quiet", BRANCH)
    assert (app / "app/standards/new_safeguard.py").is_file()
    assert "MINE = 1" in (app / "app/health.py").read_text(encoding="utf-8")
    assert preview(app).out.startswith("This app is up to date: v2.0.0.")


def test_a_conflict_goes_to_the_branch_with_both_sides(app: Path) -> None:
    edit(app, "Dockerfile", "USER 999:999", "USER 997:997")
    head = state(save(app))
    said = preview(app, "--apply", "--item", "5.1", "--format", "json")
    assert said.code == 1, said.err
    assert said.report["checklist"][0]["after"] is None, "no verdict on an app with markers in it"
    assert "Dockerfile" in said.report["notes"][0]
    assert state(app) == head
    text = git(app, "show", f"{BRANCH}:Dockerfile").decode()
    assert "USER 997:997\n=======\nUSER 998:998\n>>>>>>> after updating" in text
    assert (app / "Dockerfile").read_text().count("USER 997:997") == 1


def test_a_clone_stands_in_for_a_template_far_away(app: Path, releases: Path) -> None:
    record = app / ".copier-answers.yml"
    gone = "https://name:secret@nowhere.invalid/template.git"
    record.write_text(record.read_text().replace(str(releases), gone))
    head = state(save(app))
    said = preview(app)
    assert said.code == 64
    assert "--source" in said.err
    assert "secret" not in said.err
    said = preview(app, "--source", str(releases), "--apply", "--no-checklist", "--format", "json")
    assert said.code == 0, said.err
    assert (said.files[".copier-answers.yml"], said.files["Dockerfile"]) == ("updated", "updated")
    assert f"_src_path: {gone}" in git(app, "show", f"{BRANCH}:.copier-answers.yml").decode()
    assert "_commit: v2.0.0" in git(app, "show", f"{BRANCH}:.copier-answers.yml").decode()
    git(app, "branch", "--quiet", "-D", BRANCH)
    untouched(app, head)


def test_a_deleted_file_comes_back_when_it_is_asked_for(app: Path, releases: Path) -> None:
    name = "app/standards/spending/shield.py"
    content = (app / name).read_bytes()
    (app / name).unlink()
    save(app)
    said = preview(app, "--to", OLD)
    assert (said.code, name in said.out) == (0, True), said.err
    for wrong in ("app/never.py", "app/main.py", "../outside.py", "app/yours/routes.py"):
        refused = preview(app, "--restore", name, "--restore", wrong)
        assert (refused.code, (app / name).exists()) == (64, False), wrong
    assert preview(app, "--restore", name).code == 0
    assert (app / name).read_bytes() == content
    save(app)
    assert name not in preview(app, "--to", OLD).out


BAD = {
    "a folder that is no repository": ("no_repository", "git init"),
    "no commit yet": ("no_commit", "git commit"),
    "a change that is not committed": ("dirty", "git stash"),
    "an untracked file": ("dirty", "mine.txt"),
    "no record of the answers": ("no_answers", "git checkout"),
    "a record that is no YAML": ("broken_answers", "git checkout"),
    "an answer changed by hand": ("by_hand", "store"),
    "a release that nobody made": ("unknown_release", "v7.7.7"),
    "a release that is newer": ("older", "v2.0.0"),
    "a template that is gone": ("unreachable", "--source"),
    "a repository that takes no worktree": ("broken", ".git/worktrees"),
    "an update that was cut off": ("dirty", "git restore -SW . && git clean -fd"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_cases_say_what_to_do_and_change_nothing(app: Path, releases: Path, case: str) -> None:
    arguments: list[str] = []
    record = app / ".copier-answers.yml"
    match case:
        case "a folder that is no repository":
            shutil.rmtree(app / ".git")
        case "no commit yet":
            shutil.rmtree(app / ".git")
            git(app, "init", "--quiet")
        case "a change that is not committed":
            edit(app, "README.md", "#", "# Mine,")
        case "an untracked file":
            (app / "mine.txt").write_text("mine")
        case "no record of the answers":
            record.unlink()
        case "a record that is no YAML":
            record.write_text("{")
        case "an answer changed by hand":
            edit(app, record.name, "store: sqlite", "store: redis")
        case "a release that nobody made":
            edit(app, record.name, f"_commit: {OLD}", "_commit: v7.7.7")
        case "a release that is newer":
            edit(app, record.name, f"_commit: {OLD}", f"_commit: {NEW}")
            arguments = ["--to", OLD]
        case "a template that is gone":
            arguments = ["--source", str(app.parent / "nowhere")]
        case "a repository that takes no worktree":
            (app / ".git/worktrees").write_text("")
        case "an update that was cut off":
            (app / "app/standards/new_safeguard.py").write_text("half")
            edit(app, "Dockerfile", "USER 999:999", "USER 998:998")
    before = content(app)
    said = preview(app, *arguments)
    assert said.code == 64, said.out
    assert BAD[case][1] in said.err
    assert "Traceback" not in said.err
    assert content(app) == before


def content(app: Path) -> dict[str, bytes]:
    """Every file of the app, git's own state too; not what git writes to be faster next time."""
    return {
        str(path): path.read_bytes()
        for path in sorted(app.rglob("*"))
        if path.is_file() and path.name != "index" and "__pycache__" not in path.parts
    }


def test_a_kill_at_any_moment_leaves_the_folder_as_it_was(app: Path) -> None:
    head = state(app)
    started = time.monotonic()
    whole = preview(app)
    seconds = time.monotonic() - started
    assert whole.code == 0, whole.err
    for part in (0.25, 0.45, 0.6, 0.7, 0.8, 0.9):
        process = subprocess.Popen(
            [*COMMAND, "--apply", "--no-checklist"],
            cwd=app,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(seconds * part)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert git(app, "status", "--porcelain", "--untracked-files=all") == b""
        assert state(app) == head
        if git(app, "branch", "--list", BRANCH):  # it was done before the kill came
            git(app, "branch", "--quiet", "-D", BRANCH)
    # One command mends all of it: the same once more.
    assert preview(app).code == 0
    untouched(app, head)
