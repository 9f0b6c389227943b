"""Every release, with every edit, for several sets of answers: what an update does to each."""

import re
import shutil
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from copier import run_update

from tests.kit import HERE, PROVIDERS, answers, files, generate, owner, ownership
from tests.releases.snapshot import commit, git, kept
from tests.updates.editing import Done, Entry, Outcome, expected_lines
from tests.updates.edits import EDITS
from tests.updates.preview import save

NEXT = "v10000.0.0"
PLACES = ("deploy", "store")
NEW = ("knowledge",)  # questions that no kept release asks
ANSWERS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "all providers, ko": {
        "language": "ko",
        "providers": [*reversed(PROVIDERS)],
        "project_name": "우리 회사 도우미",
        "about": 'Kim\'s "Helper" {{ 7 * 7 }}',
        "daily_cost_cap_usd": "7.50",
    },
    "vercel, redis": {"deploy": "vercel", "store": "redis", "web_page": False},
    "aws, postgres": {
        "deploy": "aws",
        "store": "postgres",
        "providers": ["anthropic", "openai"],
        "knowledge": True,
    },
}
# What the release after this one changes, beside or on what the edits change.
CHANGES = {
    ".env.example.jinja": ("# LOG_PROMPTS=false\n", "# LOG_PROMPTS=false\n# NEW_SETTING=1\n"),
    ".gitignore.jinja": ("desktop.ini\n", "desktop.ini\nnew-pattern\n"),
    "AGENTS.md.jinja": ("# The way of", "# The path of"),
    "Dockerfile": ("USER 999:999", "USER 998:998"),
    "RUNBOOK.md.jinja": ("the account is empty. Put", "the account is empty: put"),
    "README.md.jinja": ("daily_cost_cap_usd=10`", "daily_cost_cap_usd=20`"),
    "app/foundation/errors.py": ("\nfrom ", "\nimport new\nfrom "),
    "app/foundation/texts/ko.json": ('"alert.count": "', '"alert.count": "새 '),
    "app/health.py": ("app knows of its own state", "app knows of itself"),
    "app/main.py": ("app.state.settings = settings\n", "app.state.settings = settings  # new\n"),
    "app/standards/spending/shield.py": ("# Touches nothing,", "# It touches nothing,"),
    "app/standards/tokens/gate.py": ("class Gate:", "class NewGate:"),
    "app/targets.py": ("\nfrom ", "\nimport new\nfrom "),
    "app/web/chat/chat.css": ("color-scheme: light dark;", "color-scheme: dark;"),
    "compose.yaml.jinja": ("          pids: 256\n", "          pids: 512\n"),
    "deploy/aws/template.yaml": ("\nDescription: ", "\nDescription: The new "),
    "deploy/monitoring/alertmanager/alertmanager.yml": ("group_wait: 10s", "group_wait: 20s"),
    "mypy.ini": ("strict = true\n", "strict = true\nnew = true\n"),
    "pyproject.toml.jinja": ('    "uvicorn>=', '    "new-one>=1",\n    "uvicorn>=99,!='),
    "pytest.ini": ("minversion = 9.0", "minversion = 9.1"),
    # The line beside one that is edited: nobody can tell that both may stand.
    "ruff.toml": ('target-version = "py311"', 'target-version = "py312"'),
    "samconfig.toml.jinja": ("version = 0.1", "version = 0.2"),
}


def with_next(repository: Path, folder: Path) -> Path:
    """The repository of all releases, and one more after the working tree."""
    git(repository, "clone", "--quiet", ".", str(folder))
    template = folder / "template"
    for name, (old, new) in CHANGES.items():
        text = (template / name).read_text(encoding="utf-8")
        assert old in text, name
        (template / name).write_text(text.replace(old, new, 1), encoding="utf-8")
    for file in (template / "app/yours").iterdir():
        if file.is_file():
            file.write_bytes(file.read_bytes() + b"\n# a newer example\n")
    (template / "app/yours/new_example.py").write_text('"""New."""\n')
    (template / "app/standards/new_safeguard.py").write_text('"""New."""\n')
    commit(folder, "The next release", NEXT)
    return folder


Step = tuple[str, str]


def steps() -> list[Step]:
    """Every update that is tried: from which release to which."""
    return [*((f"v{version}", HERE) for version in kept()), (HERE, NEXT)]


@dataclass(frozen=True)
class Tried:
    """An app after an update, with the edits that were made and the paths that git calls unmerged.

    `start` is the app before both, and `fresh` a new one with the same answers.
    """

    app: Path
    start: Path
    fresh: Path
    done: tuple[Done, ...]
    unmerged: frozenset[str]

    @property
    def outcomes(self) -> list[tuple[str, str, Outcome]]:
        """Of each edit: its name, whose file it was about, what became of it."""
        kinds = ownership(self.app)
        return [
            (
                one.edit.what,
                # A file that the user adds is the user's, wherever it lies.
                "yours" if one.edit.brings else owner(one.edit.paths[0], kinds) or "yours",
                one.outcome(self.app, self.unmerged),
            )
            for one in self.done
        ]


class Matrix:
    """Apps of every release and set of answers, each generated once and copied from then on."""

    def __init__(self, repository: Path, folder: Path) -> None:
        self._repository = with_next(repository, folder / "releases")
        self._folder = folder
        self._made: dict[tuple[str, str], tuple[Path, dict[str, Any]]] = {}

    def tried(self, step: Step, named: str, *, edited: bool) -> Tried:
        """Update an app of `step[0]` to `step[1]`: one with every edit that its files allow."""
        fresh, _ = self.app(step[1], named)
        start, later = self.app(step[0], named)
        app = self.committed(start)
        done = edit_all(app, fresh) if edited else ()
        return Tried(app, start, fresh, done, update(app, step[1], later))

    def committed(self, start: Path) -> Path:
        """A copy of an app, committed as its user would."""
        app = self._folder / f"tried-{len(list(self._folder.glob('tried-*')))}"
        shutil.copytree(start, app, symlinks=True)
        git(app, "init", "--quiet", "--initial-branch=main")
        return save(app)

    def fresh(self, release: str, given: dict[str, Any]) -> Path:
        """A new app with these answers."""
        path = self._folder / f"fresh-{len(list(self._folder.glob('fresh-*')))}"
        return generate(self._repository, path, given, ref=release)

    def app(self, release: str, named: str) -> tuple[Path, dict[str, Any]]:
        """An app of a release, and the answers that only a later release takes."""
        key = release, named
        if key not in self._made:
            path = self._folder / f"app-{len(self._made)}"
            given, later = ANSWERS[named], dict[str, Any]()
            if release not in (HERE, NEXT):
                later = {name: given[name] for name in NEW if name in given}
                given = {name: value for name, value in given.items() if name not in later}
            try:
                generate(self._repository, path, answers(**given), ref=release)
            except ValueError:
                # It knew fewer stores and targets.
                later |= {name: given[name] for name in PLACES}
                given = {name: value for name, value in given.items() if name not in later}
                generate(self._repository, path, answers(**given), ref=release)
            self._made[key] = path, later
        return self._made[key]


def edit_all(app: Path, fresh: Path) -> tuple[Done, ...]:
    """Make every edit that both have the file for, and commit them."""
    done = tuple(
        edit.done(app)
        for edit in EDITS
        if edit.brings or ((app / edit.paths[0]).exists() and (fresh / edit.paths[0]).exists())
    )
    save(app)
    return done


def update(folder: Path, version: str, given: dict[str, Any]) -> frozenset[str]:
    """What `copier update --defaults` does for one who trusts nothing; the unmerged paths."""
    run_update(
        folder,
        data=given,
        defaults=True,
        overwrite=True,
        quiet=True,
        unsafe=False,
        vcs_ref=version,
    )
    lines = git(folder, "ls-files", "--unmerged", "-z").decode().split("\0")
    return frozenset(line.partition("\t")[2] for line in lines if line)


def assert_nothing_else(tried: Tried) -> None:
    """The app is the fresh copy with the edits, and with nothing else."""
    found, expected, before = files(tried.app), files(tried.fresh), files(tried.start)
    kinds = ownership(tried.fresh)
    edits: dict[str, list[tuple[Entry | None, Entry | None]]] = defaultdict(list)
    for one in tried.done:
        for name in one.after:
            edits[name].append((one.before[name], one.after[name]))
    yours = {name for name in found.keys() | before if owner(name, kinds) in (None, "yours")}
    for name in sorted(yours - edits.keys()):
        assert name in found, f"{name} is missing after the update"
        assert name in before, f"{name} came with the update"
        assert found[name].read_bytes() == before[name].read_bytes(), name
    for name in sorted((found.keys() | expected.keys()) - yours):
        if owner(name, kinds) == "yours":
            continue  # an example that is newer than the app
        if name not in edits:
            assert name in found, f"{name} is missing after the update"
            assert name in expected, f"{name} is left over after the update"
            assert found[name].read_bytes() == expected[name].read_bytes(), name
        elif name in found and name not in tried.unmerged:
            fresh = expected[name].read_text(encoding="utf-8") if name in expected else ""
            lines = expected_lines(fresh.splitlines(), edits[name])
            after = found[name].read_text(encoding="utf-8")
            assert lines == expected_lines(after.splitlines()), name


def marked(app: Path) -> set[str]:
    """The files with a conflict's marks in them."""
    mark = re.compile(rb"^(<{7} before|>{7} after) updating", re.MULTILINE)
    return {name for name, path in files(app).items() if mark.search(path.read_bytes())}
