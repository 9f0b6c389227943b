"""The project that is to be updated: its repository, and the record of the answers given for it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from app.foundation.project import load_project
from updates.git import GitError, git
from updates.messages import RefusedError, say
from updates.owners import Owners

ANSWERS = ".copier-answers.yml"
# How many paths a refusal names.
NAMED = 10


@dataclass(frozen=True, slots=True)
class Project:
    """A clean project. `below` is its folder in the repository, which is "." as a rule.

    `source` is the template's address and `release` the tag or commit that the app was last
    updated to, both as Copier recorded them; `answers` are what the questions were answered with.
    """

    folder: Path
    top: Path
    below: Path
    head: str
    source: str
    release: str
    answers: dict[str, Any]


def open_project(folder: Path) -> Project:
    """Look at the project. Raises `RefusedError` for one that cannot be updated as it is."""
    try:
        top = Path(git(folder, "rev-parse", "--show-toplevel").strip())
    except GitError as error:
        raise RefusedError("no_repository", str(error), folder=folder) from None
    try:
        head = git(folder, "rev-parse", "--verify", "HEAD^{commit}").strip()
    except GitError:
        raise RefusedError("no_commit") from None
    content = read_answers(folder)
    _not_by_hand(content)
    return Project(
        folder=folder,
        top=top,
        below=folder.resolve().relative_to(top.resolve()),
        head=head,
        source=str(content["_src_path"]),
        release=str(content["_commit"]),
        answers={name: value for name, value in content.items() if name[0] != "_"},
    )


def require_clean(project: Project) -> None:
    """Raises `RefusedError` when something is not committed; what is ignored does not count."""
    command = ("status", "--porcelain", "--no-renames", "--untracked-files=all", "-z")
    changed = [line for line in git(project.folder, *command, "--", ".").split("\0") if line]
    if changed:
        details = listed(changed)
        # Whoever has work of their own there must not read how to throw all of it away.
        owners = Owners(project.folder)
        below = "" if project.below == Path() else f"{project.below.as_posix()}/"
        kinds = {owners.of(line[3:].removeprefix(below))[0] for line in changed}
        if "yours" not in kinds:
            details += f"\n\n{say('refused.dirty.update')}"
        raise RefusedError("dirty", details, count=len(changed))


def listed(lines: list[str]) -> str:
    """The first lines, and how many more there are."""
    more = [f"… {len(lines) - NAMED}"] if len(lines) > NAMED else []
    return "\n".join(f"  {line}" for line in [*lines[:NAMED], *more])


def read_answers(folder: Path) -> dict[str, Any]:
    """Copier's record, whole. Raises `RefusedError` where it is missing or says too little."""
    try:
        content = yaml.safe_load((folder / ANSWERS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RefusedError("no_answers", file=ANSWERS) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RefusedError("broken_answers", str(error), file=ANSWERS) from None
    if not isinstance(content, dict) or not content.get("_src_path"):
        raise RefusedError("broken_answers", file=ANSWERS)
    if not content.get("_commit"):
        raise RefusedError("no_release", file=ANSWERS, source=content["_src_path"])
    return {str(name): value for name, value in content.items()}


def _not_by_hand(content: dict[str, Any]) -> None:
    """Both were written from the same answers: one that differs was changed by hand.

    An update would take the difference for the user's own work, and mix two apps into one.
    """
    app = load_project()
    is_so = {
        "language": app.language,
        "providers": sorted(app.providers),
        "store": app.store,
        "deploy": app.deploy,
        "web_page": app.web_page,
    }
    said = {name: content.get(name, value) for name, value in is_so.items()}
    if isinstance(said["providers"], list):
        said["providers"] = sorted(map(str, said["providers"]))
    differ = [name for name, value in is_so.items() if said[name] != value]
    if differ:
        raise RefusedError("by_hand", file=ANSWERS, names=", ".join(differ))
