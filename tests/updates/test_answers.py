"""Other answers later: what `preview-update -d` does, keeps, and says is left to do."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.kit import HERE, run
from tests.releases.snapshot import git
from tests.updates.matrix import Matrix, Tried, assert_nothing_else, edit_all, update
from tests.updates.preview import Said, preview, save


class Change(NamedTuple):
    """Other answers, and what the command says is left to do.

    `goes` are edited files that go with an option, and `conflicts` those with a conflict in them.
    """

    named: str
    given: dict[str, str]
    says: tuple[str, ...]
    goes: frozenset[str] = frozenset()
    conflicts: frozenset[str] = frozenset()


CHANGES = {
    "a provider more and one less, no page, no documents": Change(
        "aws, postgres",
        {
            "providers": "[gemini, openai]",
            "web_page": "false",
            "knowledge": "false",
            "daily_cost_cap_usd": "10",
        },
        ("GEMINI_API_KEY", "anthropic is gone", "ANTHROPIC_", "uv lock"),
        frozenset({"app/web/chat/chat.css", "app/web/chat/favicon.svg"}),
    ),
    "from SQLite on Docker to Redis on Vercel, with documents": Change(
        "defaults",
        {"store": "redis", "deploy": "vercel", "knowledge": "true"},
        ("REDIS_URL", "stores move --from", "Set up vercel", "folder knowledge/", "uv lock"),
        frozenset(
            {"Dockerfile", "compose.yaml", "deploy/monitoring/alertmanager/alertmanager.yml"}
        ),
    ),
    "from PostgreSQL on AWS to SQLite on Docker": Change(
        "aws, postgres",
        {"store": "sqlite", "deploy": "docker"},
        ("DATABASE_URL", "stores move --from", "Set up docker", "uv lock"),
        frozenset({"samconfig.toml", "deploy/aws/template.yaml"}),
    ),
    # The marker, which the user's lines follow, is translated too.
    "another language": Change(
        "defaults",
        {"language": "ko"},
        ("app/yours/system_prompt.md",),
        conflicts=frozenset(
            {".env.example", ".gitignore", "README.md", "compose.yaml", "pyproject.toml"}
        ),
    ),
}


@pytest.fixture(scope="module")
def matrix(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Matrix:
    return Matrix(repository, tmp_path_factory.mktemp("answers"))


def asked(app: Path, given: dict[str, str], *arguments: str, **environment: str) -> Said:
    """Run the command with these answers, for the release that the app has."""
    data = [word for name, value in given.items() for word in ("-d", f"{name}={value}")]
    return preview(app, "--to", HERE, *data, *arguments, **environment)


def recorded(app: Path) -> dict[str, Any]:
    """The answers that the app remembers."""
    content: dict[str, Any] = yaml.safe_load((app / ".copier-answers.yml").read_text())
    return {name: value for name, value in content.items() if name[0] != "_"}


@pytest.mark.parametrize("case", CHANGES)
def test_other_answers(matrix: Matrix, tmp_path: Path, case: str) -> None:
    change = CHANGES[case]
    start, _ = matrix.app(HERE, change.named)
    app = matrix.committed(start)
    done = edit_all(app, start)
    # Without a network and a cache uv cannot install: the branch is made all the same.
    said = asked(
        app,
        change.given,
        "--apply",
        "--no-checklist",
        "--format=json",
        UV_OFFLINE="1",
        UV_CACHE_DIR=str(tmp_path / "no cache"),
    )
    steps = " ".join(said.report["steps"])
    for words in change.says:
        assert words in steps
    lost = frozenset(name for name, what in said.files.items() if what == "lost")
    unmerged = frozenset(name for name, what in said.files.items() if what == "conflict")
    assert (lost, unmerged) == (change.goes, change.conflicts)
    assert said.code == 1, said.err
    git(app, "merge", "--quiet", said.report["branch"])
    fresh = matrix.fresh(HERE, recorded(app))
    kept = tuple(one for one in done if one.edit.paths[0] not in lost)
    tried = Tried(app, start, fresh, kept, unmerged)
    for what, kind, outcome in tried.outcomes:
        fine = ("kept", "conflict") if change.conflicts and kind == "mergeable" else ("kept",)
        assert outcome in fine, f"{what} ({kind}): {outcome}"
    assert_nothing_else(tried)


def test_another_name_leaves_the_records_where_they_are(matrix: Matrix) -> None:
    app = matrix.committed(matrix.app(HERE, "defaults")[0])
    # The store's namespace, the volume of compose.yaml and the image are called by the short name.
    said = asked(app, {"project_name": "The bakery"}, "--apply", "--no-checklist", "--format=json")
    assert said.code == 0, said.err
    git(app, "merge", "--quiet", said.report["branch"])
    project = json.loads((app / "app/project.json").read_text(encoding="utf-8"))
    assert (project["name"], project["slug"]) == ("The bakery", "my-llm-app")
    assert "compose.yaml" not in said.files
    # Who wants another is told what it costs.
    said = asked(app, {"slug": "bakery"}, "--format=json")
    assert said.files["compose.yaml"] == "updated"
    assert "begin empty" in " ".join(said.report["steps"])


@pytest.mark.apps
def test_what_a_new_answer_needs_is_locked_and_installed(matrix: Matrix) -> None:
    app = matrix.committed(matrix.app(HERE, "defaults")[0])
    run(app, "uv", "lock", "--quiet")
    save(app)
    given = {"providers": "[openai, anthropic]"}
    said = asked(app, given, "--apply", "--item=5.1", "--format=json")
    assert said.code == 0, said.err
    [item] = said.report["checklist"]
    assert (item["before"], item["after"]) == (True, True), said.report["notes"]
    git(app, "merge", "--quiet", said.report["branch"])
    assert 'name = "anthropic"' in (app / "uv.lock").read_text(encoding="utf-8")
    run(app, "uv", "lock", "--check", "--quiet")


def test_a_name_that_nobody_asked_for_is_refused(matrix: Matrix) -> None:
    app = matrix.committed(matrix.app(HERE, "defaults")[0])
    said = asked(app, {"provider": "openai"})
    assert said.code == 64
    assert "provider" in said.err
    said = asked(app, {"store": "sqlite", "deploy": "vercel"})
    assert said.code == 64, "Copier's own checks speak too"
    assert "Redis" in said.err
    assert git(app, "status", "--porcelain") == b""


def test_copier_itself_needs_a_clean_tree(matrix: Matrix) -> None:
    app = matrix.committed(matrix.app(HERE, "defaults")[0])
    (app / "untracked.md").write_text("Mine.\n")
    with pytest.raises(Exception, match="dirty"):
        update(app, HERE, {})
