"""Updates with other answers, and without a clean tree. The rest is in `tests/updates/`."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from copier import run_update

from tests.kit import answers, files, generate, owner, ownership, run, texts
from tests.releases.snapshot import git

# Where each mergeable file ends its template block, and what a user writes below it.
ADDITIONS = {
    ".env.example": "\n# MY_SETTING=1\n",
    ".gitignore": "\n/my-notes/\n",
    "README.md": "\n## My own chapter\n\nHow we run it here.\n",
    "compose.yaml": "  mailpit:\n    image: axllent/mailpit\n",
}


def project(repository: Path, folder: Path, version: str, given: dict[str, Any]) -> Path:
    """An app of a release, committed as its user would."""
    generate(repository, folder, answers(**given), ref=version)
    git(folder, "init", "--quiet", "--initial-branch=main")
    save(folder)
    return folder


def save(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "mine")


def update(folder: Path, version: str | None = None, **given: Any) -> None:
    """What `copier update --defaults` does for someone who trusts nothing; no conflict is left."""
    run_update(
        folder,
        data=given,
        defaults=True,
        overwrite=True,
        quiet=True,
        unsafe=False,
        vcs_ref=version,
    )
    assert git(folder, "ls-files", "--unmerged") == b""
    assert not [name for name in files(folder) if name.endswith((".rej", ".orig"))]
    for name, text in texts(folder):
        assert not re.search(r"^(<{7}|>{7}) ", text, re.MULTILINE), f"{name} has a conflict"
    run(folder, "git", "diff", "--check")


def recorded(folder: Path) -> dict[str, Any]:
    """The answers that the project remembers."""
    content: dict[str, Any] = yaml.safe_load((folder / ".copier-answers.yml").read_text())
    return {name: value for name, value in content.items() if not name.startswith("_")}


def assert_like_a_fresh_copy(folder: Path, fresh: Path, also_yours: set[str]) -> None:
    """Every file that is not the user's is what a new app would get."""
    kinds = ownership(fresh)
    found, expected = files(folder), files(fresh)
    ours = {name for name in found.keys() | expected.keys() if owner(name, kinds) != "yours"}
    for name in sorted(ours - also_yours):
        assert name in found, f"{name} is missing after the update"
        assert name in expected, f"{name} is left over after the update"
        assert found[name].read_bytes() == expected[name].read_bytes(), name


def edit(folder: Path) -> dict[str, bytes | None]:
    """Edits as users make them; returns what each touched path must hold afterwards."""
    yours = sorted(name for name in files(folder) if name.startswith("app/yours/"))
    prompt, example, *_ = [name for name in yours if not name.endswith("__init__.py")]
    (folder / prompt).write_text("My own words.\n")
    (folder / example).unlink()
    (folder / "app/yours/billing.py").write_text('"""My feature."""\n')
    (folder / "tests/yours").mkdir(parents=True, exist_ok=True)
    (folder / "tests/yours/test_billing.py").write_text('"""My test."""\n')
    (folder / "notes.md").write_text("Mine.\n")
    for name, text in ADDITIONS.items():
        with (folder / name).open("a", encoding="utf-8") as file:
            file.write(text)
    pyproject = folder / "pyproject.toml"
    parts = pyproject.read_text(encoding="utf-8").split("\n]\n")
    pyproject.write_text(
        '\n    "boto3>=1.40,<2",\n]\n'.join(parts[:2]) + "\n]\n" + "\n]\n".join(parts[2:])
    )
    save(folder)
    touched = [prompt, "app/yours/billing.py", "tests/yours/test_billing.py", "notes.md"]
    return {name: (folder / name).read_bytes() for name in touched} | {example: None}


def assert_kept(folder: Path, edits: dict[str, bytes | None]) -> None:
    for name, content in edits.items():
        path = folder / name
        assert (path.read_bytes() if path.exists() else None) == content, name
    for name, text in ADDITIONS.items():
        assert (folder / name).read_text(encoding="utf-8").endswith(text), name
    assert '    "boto3>=1.40,<2",\n]\n' in (folder / "pyproject.toml").read_text(encoding="utf-8")


def test_other_answers_later(repository: Path, tmp_path: Path) -> None:
    app = project(repository, tmp_path / "app", "v9999.0.0", {"providers": ["openai", "gemini"]})
    edits = edit(app)
    update(app, providers="[anthropic, openai]", web_page="false", daily_cost_cap_usd="10")
    assert_kept(app, edits)
    answered = recorded(app)
    assert answered["fallback_order"] == "anthropic, openai"
    fresh = generate(repository, tmp_path / "fresh", answered)
    assert_like_a_fresh_copy(app, fresh, {*edits, *ADDITIONS, "pyproject.toml"})
    assert not (app / "app/web").exists()
    assert (app / "app/providers/anthropic.py").is_file()
    assert not (app / "app/providers/gemini.py").exists()


def test_an_update_needs_a_clean_tree(repository: Path, tmp_path: Path) -> None:
    app = project(repository, tmp_path / "app", "v9999.0.0", {})
    shutil.copy(app / "README.md", app / "untracked.md")
    with pytest.raises(Exception, match="dirty"):
        update(app)
