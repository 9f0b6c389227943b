"""Where the user's files meet those that an update brings: nothing is written over unseen."""

from pathlib import Path

from tests.releases.snapshot import git
from tests.updates.preview import preview, save, state, untouched

NAME = "app/standards/new_safeguard.py"  # the next release brings it
BRANCH = "survival-kit-2.0.0"


def ignore(app: Path, pattern: str) -> None:
    with (app / ".gitignore").open("a") as file:
        file.write(f"{pattern}\n")


def test_what_git_ignores_is_not_written_over(app: Path) -> None:
    ignore(app, f"/{NAME}")
    head = state(save(app))
    (app / NAME).write_text("weeks of work")
    said = preview(app, "--apply", "--no-checklist")
    assert (said.code, NAME in said.err) == (64, True), said.out
    assert (app / NAME).read_text() == "weeks of work"
    untouched(app, head)
    # A folder with data in it may stand there too.
    (app / NAME).unlink()
    (app / NAME).mkdir()
    (app / NAME / "notes.db").write_text("weeks of work")
    said = preview(app)
    assert (said.code, NAME in said.err) == (64, True), said.out


def test_a_pattern_of_the_users_keeps_no_safeguard_away(app: Path) -> None:
    git(app, "rm", "--quiet", "--cached", "app/summaries.py")
    ignore(app, "new_*.py\nsummaries.py")
    save(app)
    said = preview(app, "--apply", "--no-checklist", "--format", "json")
    assert (said.code, said.files[NAME]) == (0, "new"), said.err
    assert git(app, "show", f"{BRANCH}:{NAME}").startswith(b'"""Guards')
    # One that git forgot is not called deleted.
    [missing] = [change for change in said.report["changes"] if change["what"] == "missing"]
    assert "git add --force app/summaries.py" in missing["about"]


def test_a_file_of_the_same_name_is_told_from_changed_lines(app: Path) -> None:
    (app / NAME).write_text('"""Mine."""\n')
    assert f"git mv {NAME}" in conflict(save(app))
    # A package hides a module of its name, and nothing in it tells.
    package = Path(NAME).with_suffix("") / "__init__.py"
    (app / package).parent.mkdir()
    (app / NAME).rename(app / package)
    assert str(package) in conflict(save(app))


def conflict(app: Path) -> str:
    """What the preview says of the conflict over the new file."""
    said = preview(app, "--format", "json")
    assert (said.code, said.files[NAME]) == (1, "conflict"), said.err
    [about] = [change["about"] for change in said.report["changes"] if change["path"] == NAME]
    return str(about)


def test_nobody_is_told_to_throw_away_what_is_theirs(app: Path) -> None:
    (app / NAME).write_text("half")
    (app / "notes.txt").write_text("Written this morning.")
    said = preview(app)
    assert (said.code, "notes.txt" in said.err, "git clean" in said.err) == (64, True, False)
