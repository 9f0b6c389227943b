"""What is generated, over all answers in pairs: it parses, is formatted, is what was asked."""

import ast
import configparser
import importlib
import itertools
import json
import os
import re
import sys
import tomllib
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from jinja2.sandbox import SandboxedEnvironment
from packaging.requirements import Requirement

from tests.kit import (
    CONFIG,
    PROVIDERS,
    TEMPLATE,
    answers,
    files,
    generate,
    owner,
    ownership,
    read_yaml,
    run,
    texts,
)
from tests.pairs import pairwise

HOSTILE = (
    'Kim\'s "Helper" \\ {{ 7 * 7 }} {% raw %} ${HOME} `id` %s <b>&amp;</b>',
    "<|endoftext|> ''' \"\"\" # -- ; : - [x](y) | * _ ~ ]]> --> */ \\n \\u0041",
    "우리 회사 도우미 🦉 é e\u0301 ﷽ 漢字",
)
CHOICES: dict[str, list[Any]] = {
    "project_name": ["My LLM App", HOSTILE[0][:60].strip(), HOSTILE[1][:60].strip(), "가" * 60],
    "about": ["An assistant.", *HOSTILE, "x" * 200],
    "language": ["en", "ko"],
    "knowledge": [True, False],
    "providers": [
        ["openai"],
        ["anthropic"],
        ["gemini"],
        ["compatible"],
        ["gemini", "openai"],
        ["compatible", "gemini", "anthropic", "openai"],
    ],
    "openai_model": ["gpt-6-luna", "ft:gpt-4.1:acme::a1"],
    "anthropic_model": ["claude-haiku-5-5", "anthropic.claude-v2:1@eu"],
    "gemini_model": ["gemini-3.1-flash-lite", "models/g"],
    "compatible_model": ["openai/gpt-oss-20b", "a" * 128],
    # Together: a function keeps no disk for SQLite.
    "deploy, store": [
        *(("docker", store) for store in ("sqlite", "redis", "postgres")),
        *((deploy, store) for deploy in ("vercel", "aws") for store in ("redis", "postgres")),
    ],
    "web_page": [True, False],
    "daily_cost_cap_usd": ["5", "0.01", "100000", 2.5],
    "on_call_name": ["Kim Minji", *HOSTILE],
    "on_call_contact": ["+82 10 5550 0100", *HOSTILE],
}
CASES = pairwise(CHOICES)

WORKFLOWS = sorted(
    path.relative_to(TEMPLATE).as_posix() for path in TEMPLATE.glob(".github/workflows/*.yml")
)

# It lies in template/, whose own `tests` stays hidden behind this repository's.
sys.path.append(str(TEMPLATE))
missing: Any = importlib.import_module("checklist.missing")

# The module that is imported, and the distribution that brings it where the names differ.
DISTRIBUTIONS = {
    "google.genai": "google-genai",
    "opentelemetry.exporter": "opentelemetry-exporter-otlp-proto-http",
    "opentelemetry": "opentelemetry-sdk",
    "dotenv": "python-dotenv",
    "pydantic_core": "pydantic",
    "yaml": "pyyaml",
    "botocore": "boto3",
    "phonenumbers": "phonenumberslite",
    "re2": "google-re2",
    "stdnum": "python-stdnum",
}
OURS = {"app", "checklist", "indexing", "keychain", "tests", "updates"}
RESERVED = {
    "con",
    "prn",
    "aux",
    "nul",
    *(f"{port}{n}" for port in ("com", "lpt") for n in range(10)),
}


class App(NamedTuple):
    """A generated app and its answers."""

    path: Path
    given: dict[str, Any]

    @property
    def pyproject(self) -> dict[str, Any]:
        return tomllib.loads((self.path / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module", params=range(len(CASES)))
def app(
    request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> App:
    case = dict(CASES[request.param])
    case["deploy"], case["store"] = case.pop("deploy, store")
    given = answers(**case)
    return App(generate(folder, tmp_path_factory.mktemp("case") / "app", given), given)


def test_every_two_answers_meet() -> None:
    met = {
        frozenset([(one, repr(case[one])), (two, repr(case[two]))])
        for case in CASES
        for one, two in itertools.combinations(CHOICES, 2)
    }
    assert len(met) == sum(
        len(CHOICES[one]) * len(CHOICES[two]) for one, two in itertools.combinations(CHOICES, 2)
    )
    # The two longest lists alone make 42.
    assert len(CASES) <= 48


def test_everything_parses(app: App) -> None:
    for name, text in texts(app.path):
        match Path(name).suffix:
            case ".toml":
                tomllib.loads(text)
            case ".yml" | ".yaml":
                read_yaml(text)
            case ".json":
                json.loads(text)
            case ".ini":
                configparser.ConfigParser().read_string(text)
            case ".py":
                ast.parse(text, name)


def test_everything_is_formatted(app: App) -> None:
    for name, text in texts(app.path):
        assert not text or text.endswith("\n"), name
        assert not text.endswith("\n\n"), f"{name} ends in blank lines"
        assert "\r" not in text, name
        assert not re.search(r"[ \t]\n", text), f"{name} has spaces at the end of a line"
        if not name.endswith(".py"):
            assert "\n\n\n" not in text, f"{name} has two blank lines"
            # Caddy's own formatter indents by tabs.
            assert name == "deploy/docker/Caddyfile" or "\t" not in text, f"{name} has a tab"


def test_ruff_agrees(app: App) -> None:
    run(app.path, "ruff", "format", "--check", "--no-cache", ".")
    run(app.path, "ruff", "check", "--no-cache", ".")


def test_the_answers_arrive_unchanged(app: App) -> None:
    given = app.given
    project = json.loads((app.path / "app/project.json").read_text(encoding="utf-8"))
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", project.pop("slug"))
    assert project == {
        "name": given["project_name"],
        "about": given["about"],
        "language": given["language"],
        "providers": given["providers"],
        "models": {name: given[f"{name}_model"] for name in given["providers"]},
        "store": given["store"],
        "deploy": given["deploy"],
        "web_page": given["web_page"],
        "knowledge": given["knowledge"],
        "daily_cost_cap_usd": float(given["daily_cost_cap_usd"]),
        "on_call": {"name": given["on_call_name"], "contact": given["on_call_contact"]},
    }
    assert app.pyproject["project"]["description"] == given["about"]
    for name in ("README.md", "AGENTS.md"):
        text = (app.path / name).read_text(encoding="utf-8")
        assert text.startswith(f"# {given['project_name']}")
        assert f"\n\n{given['about']}\n\n" in text
    recorded = yaml.safe_load((app.path / ".copier-answers.yml").read_text(encoding="utf-8"))
    for name, value in recorded.items():
        if name in given and name not in {"providers", "daily_cost_cap_usd"}:
            assert value == given[name], name


def test_nothing_is_left_over(app: App) -> None:
    given, names = app.given, set(files(app.path))
    missing = [name for name in PROVIDERS if name not in given["providers"]]
    present = {Path(name).stem for name in names if name.startswith("app/providers/")}
    assert not present & set(missing)
    wire = {"openai", "compatible"} & set(given["providers"])
    assert bool(wire) or "openai_wire" not in present
    spoken = {"README.md", ".env.example", "AGENTS.md", "app/project.json", "compose.yaml"}
    assert spoken - names <= {"compose.yaml"}
    for name in spoken & names:
        lines = (app.path / name).read_text(encoding="utf-8").splitlines()
        # The moderation is OpenAI's, whoever answers.
        text = "\n".join(
            line for line in lines if not re.search("MODERATION|모더레이션|moderation", line)
        )
        for provider in missing:
            assert f"{provider}_" not in text.lower(), f"{name} speaks of {provider}"
    web = [
        name for name in names if name.startswith("app/web/chat/") or name == "app/routes/web.py"
    ]
    assert bool(web) == given["web_page"]
    for place in ("app/launch/evidence/", "indexing/", "tests/knowledge/"):
        assert any(name.startswith(place) for name in names) == given["knowledge"], place
    starter = {"en": "about-these-documents.md", "ko": "about-these-documents.ko.md"}
    documents = {name for name in names if name.startswith("knowledge/")}
    assert documents == (
        {f"knowledge/{starter[given['language']]}"} if given["knowledge"] else set()
    )
    words = (app.path / "pyproject.toml").read_text(encoding="utf-8")
    assert ("snowballstemmer" in words) == ("pypdf" in words) == given["knowledge"]
    assert not [name for name in names if name.endswith((".jinja", ".pyc", ".rej", ".orig"))]
    if "{%" not in "".join(map(str, given.values())):
        for name, text in texts(app.path):
            # Workflows, alerts, dashboards and Docker's formats have such expressions of their own.
            own = (".py", ".js", "/rules.yml", "/dashboard.json", "/docker/release.sh")
            ours = name.endswith(own) or name.startswith(".github/")
            assert ours or not re.search(r"\{%|\{\{|\{#", text), name


def test_what_is_imported_is_declared(app: App) -> None:
    project = app.pyproject
    runtime = {Requirement(line).name for line in project["project"]["dependencies"]}
    dev = {Requirement(line).name for line in project["dependency-groups"]["dev"]}
    for name, module in imports(app.path):
        top = module.split(".")[0]
        if top in sys.stdlib_module_names or module == "google":
            continue
        if top in OURS:
            path = app.path / module.replace(".", "/")
            parent = path.parent
            assert (
                path.with_suffix(".py").is_file()
                or path.is_dir()
                or parent.with_suffix(".py").is_file()
                or (parent / "__init__.py").is_file()
            ), f"{name} imports {module}, which is not in this app"
            continue
        wanted = next(
            (dist for start, dist in DISTRIBUTIONS.items() if f"{module}.".startswith(f"{start}.")),
            top.replace("_", "-"),
        )
        declared = runtime if name.startswith("app/") else runtime | dev
        assert wanted in declared, f"{name} imports {module}, which is not declared"


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """Every Python file with each module that it imports."""
    for name, file in files(path).items():
        if not name.endswith(".py"):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((name, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield name, node.module
                if node.module.split(".")[0] in {*OURS, "google"}:
                    yield from ((name, f"{node.module}.{alias.name}") for alias in node.names)


def test_dependencies_are_sorted_and_bounded(app: App) -> None:
    project = app.pyproject
    for lines in (project["project"]["dependencies"], project["dependency-groups"]["dev"]):
        requirements = [Requirement(line) for line in lines]
        names = [requirement.name for requirement in requirements]
        back = [at for at in range(1, len(names)) if names[at] < names[at - 1]]
        assert 1 <= len(back) <= 2, "sorted, but for one group that stands apart on purpose"
        assert len(set(names)) == len(names)
        assert all(">=" in str(requirement.specifier) for requirement in requirements)
        for requirement in requirements:
            assert requirement.name in {"cryptography", "tzdata"} or "<" in str(requirement)


def test_settings_are_those_of_the_app(app: App) -> None:
    text = (app.path / ".env.example").read_text(encoding="utf-8")
    offered = re.findall(r"^(?:# )?([A-Z][A-Z0-9_]+)=", text, re.MULTILINE)
    assert len(offered) == len(set(offered))
    missing = tuple(f"{name}_" for name in PROVIDERS if name not in app.given["providers"])
    rooms = [app.path / f"app/foundation/{name}.py" for name in ("settings", "launch_settings")]
    known = {
        line.target.id.upper()
        for room in rooms
        for node in ast.walk(ast.parse(room.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and node.name in {"Settings", "LaunchSettings"}
        for line in node.body
        if isinstance(line, ast.AnnAssign)
        and isinstance(line.target, ast.Name)
        and not line.target.id.startswith(missing)
    }
    # compose.yaml reads the one; each app knows only its own store's address.
    composed = (app.given["deploy"], app.given["store"]) == ("docker", "postgres")
    extra = {"POSTGRES_PASSWORD"} if composed else set()
    other = {"DATABASE_URL" if app.given["store"] == "redis" else "REDIS_URL"}
    other |= set() if app.given["deploy"] == "aws" else {"AWS_SECRET_NAME"}
    if not app.given["knowledge"]:
        other |= {name for name in known if name.startswith(("EVIDENCE_", "KNOWLEDGE_"))}
    assert set(offered) == (known - other) | extra
    assert not re.search(r"^[^#\n]", text, re.MULTILINE), "every line of the example is a comment"


def test_file_names_are_legal_everywhere(app: App) -> None:
    names = list(files(app.path))
    assert len({unicodedata.normalize("NFC", name).casefold() for name in names}) == len(names)
    for name in names:
        assert len(name) <= 120, name
        for part in name.split("/"):
            assert re.fullmatch(r"[A-Za-z0-9._-]+", part), name
            assert not part.endswith((".", " ")), name
            assert part.split(".")[0].lower() not in RESERVED, name


def test_an_app_knows_which_files_it_must_have(app: App) -> None:
    kinds = ownership(app.path)
    names = {name for name in files(app.path) if owner(name, kinds) == "template"}
    assert set(missing.expected_files(app.path)) == names
    (app.path / "app/guarded.py").rename(app.path / "guarded.bak")
    assert missing.missing_files(app.path) == ["app/guarded.py"]
    (app.path / "guarded.bak").rename(app.path / "app/guarded.py")


def test_every_file_is_of_exactly_one_kind(app: App) -> None:
    kinds = ownership(app.path)
    assert set(kinds.values()) == {"template", "mergeable", "yours"}
    names = files(app.path)
    assert not [name for name in names if owner(name, kinds) is None]
    without = left_out(app.given)
    for path, kind in kinds.items():
        around = [name for name in names if name == path or name.startswith(path)]
        if f"/{path.removesuffix('/')}" in without:
            assert not around, f"{path} is not for these answers"
            continue
        assert around, f"{path} is listed, and no such file was generated"
        if kind == "mergeable":
            assert not path.endswith("/")
            text = names[path].read_text(encoding="utf-8").lower()
            assert re.search(
                r"(your|yours|여러분).*(block|here on|블록|아래|글)|아래는 여러분", text
            ), path


def left_out(given: dict[str, Any]) -> set[str]:
    """What the answers leave out, as `_exclude` names it."""
    environment = SandboxedEnvironment()
    lines = [line for line in CONFIG["_exclude"] if "{%" in line]
    return {environment.from_string(line).render(given) for line in lines}


@pytest.mark.parametrize("language", ["en", "ko"])
def test_docker_files_hold_what_linters_know(folder: Path, tmp_path: Path, language: str) -> None:
    app = generate(folder, tmp_path / "app", answers(language=language))
    run(app, "hadolint", "Dockerfile")
    for file in ("compose.yaml", "deploy/monitoring/compose.yaml"):
        run(app, "check-jsonschema", "--builtin-schema", "vendor.compose-spec", file)
    caddyfile = app / "deploy/docker/Caddyfile"
    run(app, "caddy", "validate", "--config", caddyfile, HOME=str(tmp_path))
    run(app, "caddy", "fmt", caddyfile)
    dockerfile = (app / "Dockerfile").read_text()
    assert "# syntax" not in dockerfile
    assert "USER 999:999" in dockerfile
    watching = yaml.safe_load((app / "deploy/monitoring/compose.yaml").read_text())["services"]
    for beside in watching.values():
        assert beside["profiles"] == ["monitoring"]
        assert beside["user"] == "65534:65534"
        assert beside["read_only"] is True
        assert beside["cap_drop"] == ["ALL"]
        assert beside["security_opt"] == ["no-new-privileges:true"]
        assert set(beside["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
        assert all(port.startswith("127.0.0.1:") for port in beside["ports"])
    service = yaml.safe_load((app / "compose.yaml").read_text())["services"]["app"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert int(service["stop_grace_period"].removesuffix("s")) > 60


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_a_workflow_holds_what_linters_know(folder: Path, workflow: str) -> None:
    template = folder / "template"
    run(template, "check-jsonschema", "--builtin-schema", "vendor.github-workflows", workflow)
    run(template, "zizmor", "--offline", "--persona=pedantic", workflow)
    text = (template / workflow).read_text(encoding="utf-8")
    used = re.findall(r"uses: (\S+)", text)
    assert used
    # A tag can be moved, a commit cannot.
    assert [name for name in used if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", name)] == []
    # What a job needs beyond that, it says itself.
    assert yaml.safe_load(text)["permissions"] in ({}, {"contents": "read"})
    uv = re.search(r"uv:(\S+) AS uv", (template / "Dockerfile").read_text(encoding="utf-8"))
    assert uv
    taken = re.findall(r'setup-uv@.*\n +with:\n +version: "(.+)"', text)
    assert len(taken) == text.count("setup-uv@")
    assert set(taken) <= {uv[1]}, "CI and the image take the same uv"


@pytest.mark.parametrize("workflow", [name for name in WORKFLOWS if "/deploy-" in name])
def test_a_deploy_takes_along_what_the_checks_found(workflow: str, tmp_path: Path) -> None:
    """The step as it stands there. Stood in for: gh, which brings what the checks kept."""

    def steps(name: str) -> dict[str, dict[str, Any]]:
        jobs = yaml.safe_load((TEMPLATE / name).read_text(encoding="utf-8"))["jobs"]
        first = next(iter(jobs.values()))
        return {step["name"]: step for step in first["steps"]}

    kept = steps(".github/workflows/checks.yml")["Keep the checklist's report"]["with"]
    for name in kept["path"].split():
        (tmp_path / "kept" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "kept" / name).write_text("found")
    (tmp_path / "project/app").mkdir(parents=True)
    gh = tmp_path / "bin/gh"
    gh.parent.mkdir()
    gh.write_text(
        f'#!/bin/sh -e\ntest "$1 $2 $3 $4 $5 $6" = "run download 7 --name {kept["name"]} --dir"\n'
        f'mkdir -p "$7"\ncp -r "{tmp_path}/kept/." "$7"\n'
    )
    gh.chmod(0o755)
    found = steps(workflow)
    order = list(found)
    taking = "Take the checklist's result along"
    assert order.index("Check out what was checked") < order.index(taking) < order.index("Build")
    path = f"{gh.parent}{os.pathsep}{os.environ['PATH']}"
    script = ("bash", "-eo", "pipefail", "-c", found[taking]["run"])
    run(tmp_path / "project", *script, PATH=path, RUN="7", RUNNER_TEMP=str(tmp_path))
    assert (tmp_path / "project/app/checklist.json").read_text() == "found"


def test_what_renovate_is_told_switches_nothing_off(folder: Path) -> None:
    template = folder / "template"
    file = ".survival-kit/renovate.json"
    run(template, "check-jsonschema", "--builtin-schema", "vendor.renovate", file)
    told = json.loads((template / file).read_text(encoding="utf-8"))
    assert set(told) == {"$schema", "description", "packageRules"}
    (rule,) = told["packageRules"]
    assert set(rule) == {"matchManagers", "prBodyNotes"}
    assert rule["matchManagers"] == ["copier"]
    # Renovate reads the first file it finds at its own places: that is the user's.
    places = r"(\.git(hub|lab)/)?renovate\.json[5c]?|\.renovaterc(\.json[5c]?)?|package\.json"
    names = [name.removesuffix(".jinja") for name in files(template)]
    assert [name for name in names if re.fullmatch(places, name)] == []
    dependabot = (template / ".github/dependabot.yml.jinja").read_text(encoding="utf-8")
    watched = re.findall(r"ecosystem: (.+)", dependabot)
    assert watched == ["uv", "github-actions", "docker"]


@pytest.mark.parametrize("deploy", ["docker", "vercel", "aws"])
def test_the_runbook_and_the_page_name_one_command_for_a_log_line(
    folder: Path, tmp_path: Path, deploy: str
) -> None:
    app = generate(folder, tmp_path / "app", answers(deploy=deploy, store="redis"))
    program = (
        "from app.foundation.project import load_project\n"
        "from app.ops.log_command import log_command\n"
        "print(log_command(load_project(), production=True)['command'])"
    )
    command = run(app, sys.executable, "-c", program, PYTHONPATH=str(app)).strip()
    assert "REQUEST_ID" in command
    assert f"`{command}`" in (app / "RUNBOOK.md").read_text(encoding="utf-8")


def test_secrets_are_ignored_by_git_and_docker(folder: Path, tmp_path: Path) -> None:
    app = generate(folder, tmp_path / "app", answers())
    run(app, "git", "init", "--quiet")
    secret = [".env", ".env.local", "a.pem", "a.key", "secrets/ADMIN_TOKEN", "data/app.db"]
    ignored = run(app, "git", "check-ignore", *secret, ".venv/x", "app/__pycache__/x.pyc")
    assert ignored.split()[: len(secret)] == secret
    assert run(app, "git", "check-ignore", "app/checklist.json")
    assert "uv.lock" not in run(app, "git", "status", "--porcelain", "--ignored").split()
    lines = (app / ".dockerignore").read_text().splitlines()
    assert lines.index("*") < lines.index("!app") < lines.index("**/.env*")


def test_a_generated_app_differs_from_the_template_in_data_files_alone(
    folder: Path, tmp_path: Path
) -> None:
    app = generate(folder, tmp_path / "app", answers(providers=list(PROVIDERS)))
    for name, path in files(app).items():
        if name.endswith(".py"):
            assert path.read_bytes() == (folder / "template" / name).read_bytes(), name
