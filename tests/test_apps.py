"""Whole generated apps: installed, linted, type-checked and tested on three Pythons."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.kit import COMPILED, PROVIDERS, STORES, answers, generate, interpreter, run

# What the language and the order of providers have a say in.
OF_ANSWERS = [
    f"tests/test_{name}.py"
    for name in (
        "availability",
        "canary",
        "chat",
        "checklist",
        "demo_provider",
        "environment",
        "error_budget",
        "guarded_model",
        "shadow",
        "switches",
        "visibility_alerts",
        "web",
    )
]

PYTEST = ("uv", "run", "--no-sync", "pytest", "-q", "-p", "no:cacheprovider")

APPS: list[tuple[str, dict[str, Any]]] = [
    ("3.11", {"providers": ["openai"]}),
    (
        "3.12",
        {
            "providers": ["anthropic"],
            "language": "ko",
            "web_page": False,
            "knowledge": True,
            "deploy": "vercel",
            "store": "redis",
        },
    ),
    (
        "3.13",
        {
            "providers": ["gemini"],
            "project_name": "우리 회사 도우미",
            "deploy": "aws",
            "store": "postgres",
        },
    ),
    ("3.13", {"providers": ["compatible"], "language": "ko", "daily_cost_cap_usd": "0.50"}),
    ("3.12", {"providers": [*reversed(PROVIDERS)], "project_name": 'Kim\'s "Helper"'}),
]


@pytest.mark.parametrize(
    ("version", "given"),
    [
        # The first is the default app: `make test` runs it, `make test-apps` the others.
        pytest.param(*app, id="-".join(app[1]["providers"]), marks=[pytest.mark.apps] if at else [])
        for at, app in enumerate(APPS)
    ],
)
def test_an_app_installs_and_passes_its_own_tests(
    folder: Path, tmp_path: Path, version: str, given: dict[str, Any]
) -> None:
    app = generate(folder, tmp_path / "app", answers(**given))
    run(app, "git", "init", "--quiet")
    run(app, "uv", "lock", "--quiet")
    run(app, "uv", "sync", "--quiet", "--locked", "--python", interpreter(version))
    run(app, "uv", "run", "--no-sync", "ruff", "format", "--check")
    run(app, "uv", "run", "--no-sync", "ruff", "check")
    run(app, "uv", "run", "--no-sync", "mypy")
    # Each store's app runs all of its tests; the other apps those that their own answers decide.
    in_full = (version, given) in first_of_each_store().values()
    shares = halves(app) if in_full else [OF_ANSWERS]
    with ThreadPoolExecutor(len(shares)) as pool:
        running = [pool.submit(run, app, *PYTEST, *share, **COMPILED) for share in shares]
    print(*(share.result() for share in running), sep="\n")
    clean = run(app, "git", "status", "--porcelain", "--untracked-files=all").split()
    assert not [name for name in clean if name.startswith((".venv", "data", "app/__pycache__"))]


def halves(app: Path) -> list[list[str]]:
    """All of its test files in two shares, to be run side by side: they mostly wait."""
    found = [path for part in ("tests", "checklist") for path in (app / part).rglob("test_*.py")]
    names = sorted(path.relative_to(app).as_posix() for path in found)
    return [names[::2], names[1::2]]


def first_of_each_store() -> dict[str, tuple[str, dict[str, Any]]]:
    """The apps that run everything."""
    return {given.get("store", "sqlite"): (version, given) for version, given in reversed(APPS)}


def test_every_python_and_every_provider_is_tried() -> None:
    assert {version for version, _ in APPS} == {"3.11", "3.12", "3.13"}
    alone = {given["providers"][0] for _, given in APPS if len(given["providers"]) == 1}
    assert alone == set(PROVIDERS)
    assert {given.get("language", "en") for _, given in APPS} == {"en", "ko"}
    assert {given.get("web_page", True) for _, given in APPS} == {True, False}
    assert {given.get("knowledge", False) for _, given in APPS} == {True, False}
    assert set(first_of_each_store()) == set(STORES)
    assert {version for version, _ in first_of_each_store().values()} == {"3.11", "3.12", "3.13"}
