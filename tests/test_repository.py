"""The template's own repository: its shape, its rules, and what must never be in it."""

import ast
import io
import itertools
import re
import tokenize
import tomllib
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from jinja2.sandbox import SandboxedEnvironment

from tests import manifest
from tests.kit import CONFIG, PROVIDERS, TEMPLATE, answers, files, generate, ownership
from tests.releases.snapshot import ROOT, git, kept

TRACKED = [
    Path(name)
    for name in git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    .decode()
    .split("\0")
    if name and (ROOT / name).is_file()
]

# Lowest first. A module imports from its own floor and from those below.
FLOORS = [
    {"foundation"},
    {"stores", "providers"},
    {"wire"},
    {"standards"},
    {"launch"},
    {"ops"},
    {"asked", "exchange", "health", "hosting", "summaries", "targets", "watch"},
    {"answers"},
    {"work"},
    {"streaming"},
    {"guarded"},
    {"preflight", "edge", "rollout", "switch", "failures"},
    {"move"},
    {"model"},
    {"routes", "yours"},
    {"main"},
    {"asgi", "cli", "web_adapter"},
]
LONGEST_MODULE = 350
# A ratchet, all four providers, the demo and the three stores (of which an app has one) together:
# raise it only with a reason.
MOST_CODE = 13_240
NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def modules() -> dict[str, ast.Module]:
    """Every module of the app by its dotted name."""
    found = {}
    for path in sorted((TEMPLATE / "app").rglob("*.py")):
        parts = path.relative_to(TEMPLATE).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = ast.parse(
            path.read_text(encoding="utf-8")
        )
    return found


def imported(name: str, tree: ast.Module, known: set[str]) -> set[str]:
    """The modules of the app that a module imports, in functions and for types too."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}: write the whole name of what is imported"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in known else str(node.module))
    return {module for module in found if module in known and module != name}


def test_imports_never_run_up() -> None:
    trees = modules()
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    wrong = []
    for name, tree in trees.items():
        if "." not in name:
            continue
        assert name.split(".")[1] in floor, f"{name} stands on no floor: name it in FLOORS"
        for other in imported(name, tree, set(trees)) - {"app"}:
            if floor[other.split(".")[1]] > floor[name.split(".")[1]]:
                wrong.append(f"{name} imports {other}")
    assert not wrong, "\n".join(wrong)


def test_imports_have_no_circle() -> None:
    trees = modules()
    graph = {name: imported(name, tree, set(trees)) for name, tree in trees.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def code_lines(path: Path) -> int:
    """The lines of a module that hold code: no blank ones, no comments, no docstrings."""
    source = path.read_text(encoding="utf-8")
    held: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NO_CODE:
            held.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if ast.get_docstring(node) is not None and isinstance(first, ast.Expr):
                held -= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return len(held)


def test_the_app_does_not_grow_unnoticed() -> None:
    modules = sorted((TEMPLATE / "app").rglob("*.py"))
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in modules}
    code = sum(code_lines(path) for path in modules)
    print(f"\napp/: {code} lines of code, {sum(lengths.values())} in all, {len(modules)} modules")
    assert [path for path, lines in lengths.items() if lines > LONGEST_MODULE] == []
    assert code <= MOST_CODE


def test_no_jinja_in_python() -> None:
    assert [path for path in TRACKED if path.name.endswith(".py.jinja")] == []
    marked = [
        path
        for path in TRACKED
        if path.parts[0] == "template"
        and path.suffix == ".py"
        and re.search(r"\{%|\{\{ ", (ROOT / path).read_text(encoding="utf-8"))
    ]
    assert marked == []


def test_the_template_is_rendered_from_few_files() -> None:
    rendered = [path for path in TRACKED if path.suffix == ".jinja" and path.parts[0] == "template"]
    assert len(rendered) <= 11, rendered


def test_guards_agree_with_the_list_of_owners() -> None:
    environment = SandboxedEnvironment()

    def excluded(operation: str) -> set[str]:
        answered = {
            "_copier_operation": operation,
            "providers": PROVIDERS,
            "deploy": "docker",
            "store": "sqlite",
            "web_page": True,
            "knowledge": True,
        }
        lines = (environment.from_string(line).render(answered) for line in CONFIG["_exclude"])
        return set(filter(None, lines))

    yours = {path for path, kind in ownership(TEMPLATE).items() if kind == "yours"}
    guarded = excluded("update") - excluded("copy")
    assert guarded == {f"/{path.removesuffix('/')}" for path in yours}
    for path in CONFIG.get("_skip_if_exists", []):
        assert any(path.startswith(f"/{own}") for own in yours), f"{path} is not listed as yours"


def test_what_an_option_leaves_out_exists() -> None:
    environment = SandboxedEnvironment()
    answered = {"_copier_operation": "copy", "providers": [], "web_page": False, "knowledge": False}
    places = itertools.product(("docker", "vercel", "aws"), ("sqlite", "redis", "postgres"))
    for (deploy, store), line in itertools.product(places, CONFIG["_exclude"]):
        path = environment.from_string(line).render(answered | {"deploy": deploy, "store": store})
        if "{%" in line and path:
            name = path.removeprefix("/")
            found = any(TEMPLATE.glob(name)) or any(TEMPLATE.glob(f"{name}.jinja"))
            assert found, f"{path} is excluded, and not there"


def test_the_list_of_files_is_that_of_copier_yml() -> None:
    assert manifest.TARGET.read_text(encoding="utf-8") == manifest.text(), "run: make files"


def test_dependencies_of_the_repository_are_those_of_an_app(folder: Path, tmp_path: Path) -> None:
    own = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    needed: set[str] = set()
    for deploy, store in (("docker", "sqlite"), ("aws", "redis"), ("vercel", "postgres")):
        given = answers(providers=list(PROVIDERS), deploy=deploy, store=store, knowledge=True)
        app = generate(folder, tmp_path / store, given)
        generated = tomllib.loads((app / "pyproject.toml").read_text(encoding="utf-8"))
        needed |= set(generated["project"]["dependencies"])
        assert own["project"]["requires-python"] == generated["project"]["requires-python"]
        tools = set(own["dependency-groups"]["dev"][2:])
        assert set(generated["dependency-groups"]["dev"]) <= tools | {"h11>=0.16.0,<1"} | needed
        assert set(generated["dependency-groups"]["knowledge"]) <= tools | needed
    assert set(own["dependency-groups"]["app"]) == needed


def test_locked_lists_name_no_place() -> None:
    tools = [f"tests/deploy/tools/{name}.txt" for name in ("aws", "checkov")]
    for name in ("requirements-uv.txt", "requirements-dev.txt", *tools):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert "--hash=sha256:" in text
        assert not re.search(r"://|--index|--extra|--find-links|-e ", text), name


def test_no_path_and_no_registry_of_a_machine() -> None:
    # Written in pieces, so that this file is not found by its own search.
    hosts = ["pypi" + ".org", "python" + "hosted", "npmjs" + ".", "deb.debian" + "."]
    folders = ["/" + "work/", "/" + "root/", "/" + "tmp/lab", "/home/" + "ubuntu"]
    for path in TRACKED:
        content = (ROOT / path).read_bytes()
        if "/ranks/" in path.as_posix() or path.suffix == ".xz":
            continue
        for word in hosts + folders:
            assert word.encode() not in content, f"{path} names {word}"


def test_a_release_is_kept() -> None:
    assert kept(), "no release is kept: commit, then make snapshot VERSION=0.1.0"


def test_the_changelog_knows_every_kept_release() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    for version in kept():
        assert f"## {version}" in text


def test_documents_speak_of_files_that_exist() -> None:
    for path in [path for path in TRACKED if path.suffix == ".md" and path.parts[0] != "template"]:
        for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / path).read_text(encoding="utf-8")):
            if "://" not in target and not target.startswith("mailto:"):
                assert (ROOT / path.parent / target).exists(), f"{path} links to {target}"


def test_names_of_files_are_legal_everywhere() -> None:
    names = [path.as_posix() for path in TRACKED]
    assert len({name.casefold() for name in names}) == len(names)
    assert not [name for name in names if re.search(r'[<>:"|?*\\]', name)]
    assert files(TEMPLATE)
