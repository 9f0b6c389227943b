"""Nothing leaks: no key gets into a commit, none stays unseen in the history, none into a wheel."""

import os
import random
import shutil
import string
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.kit import run
from tests.secrets.conftest import MakeApp

CANARY = "canary-5d0c1e9a"
LETTERS = string.ascii_letters + string.digits
DICE = random.Random(20261127)  # noqa: S311


def some(length: int, letters: str = LETTERS) -> str:
    return "".join(DICE.choices(letters, k=length))


# In each provider's real format. Made here, so that no search finds this file.
KEYS = {
    "OpenAI, a project's": f"sk-proj-{some(74)}T3BlbkFJ{some(74)}",
    "OpenAI, a service account's": f"sk-svcacct-{some(74)}T3BlbkFJ{some(74)}",
    "Anthropic": f"sk-ant-api03-{some(93)}AA",
    "Gemini": f"AIza{some(35)}",
    "Gemini, newer": f"AQ.Ab8R{some(46)}",
    "Groq": f"gsk_{some(20)}WGdyb3FY{some(24)}",
    "AWS": f"AKIA{some(16, string.ascii_uppercase + '234567')}",
    "Vercel": f"vcp_{some(56)}",
    "PostgreSQL": f"postgresql://app:{some(20)}@db.acme.io:5432/app",
    "Redis": f"rediss://:{some(24)}@eu1.upstash.io:6379",
    "GitHub": f"ghp_{some(36)}",
    "GitLab": f"glpat-{some(20)}",
    "Hugging Face": f"hf_{some(34, string.ascii_letters)}",
    "Slack": f"xoxb-{some(12, string.digits)}-{some(12, string.digits)}-{some(24)}",
    "xAI": f"xai-{some(80)}",
}
LINES = {
    **{name: f'VALUE = "{key}"' for name, key in KEYS.items()},
    "a database's URL": f"DATABASE_URL=postgresql://app:{some(20)}@db.acme.io:5432/app",
    "an app key": f"APP_API_KEYS=web:{some(43)}",
    "an admin token": f'ADMIN_TOKEN = "{some(43)}"',
    "a database's password": f"POSTGRES_PASSWORD: {some(32)}",
    "AWS, the secret half": f'AWS_ACCESS_KEY_ID = "{KEYS["AWS"]}"\nSECRET = "{some(40)}"',
    "a private key": "\n".join(
        [
            "-----BEGIN PRIVATE" + " KEY-----",
            *(some(64) for _ in range(20)),
            "-----END PRIVATE KEY-----",
        ]
    ),
}
PLACEHOLDERS = """
OPENAI_API_KEY=sk-xxx
OPENAI_API_KEY=sk-proj-your-key-here
ANTHROPIC_API_KEY=<your key>
GEMINI_API_KEY=changeme
APP_API_KEYS=name:key,name:key
ADMIN_TOKEN=${ADMIN_TOKEN}
ADMIN_TOKEN: ${{ secrets.ADMIN_TOKEN }}
POSTGRES_PASSWORD: ${POSTGRES_PASSWORD:?set POSTGRES_PASSWORD in .env}
DATABASE_URL=postgresql://user:password@host:5432/database
REDIS_URL=redis://:password@host:6379/0
"""


def attempt(app: Path, *command: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run a command that may fail; `uv run` takes the tools of this environment."""
    return subprocess.run(
        command,
        cwd=app,
        env=os.environ | {"UV_PROJECT_ENVIRONMENT": sys.prefix},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def guarded(make_app: MakeApp, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the hook, and the whole app as its first commit: the hook let it pass."""
    app = tmp_path_factory.mktemp("guarded") / "app"
    shutil.copytree(make_app("docker", "postgres"), app)
    run(app, "git", "init", "--quiet")
    assert attempt(app, "uv", "run", "--no-sync", "prek", "install").returncode == 0
    run(app, "git", "add", "--all")
    done = attempt(app, "git", "commit", "--message", "Start from Survival Kit")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no key in a commit" in done.stderr
    return app


def test_the_hook_stops_each_key(guarded: Path) -> None:
    folder = guarded / "tests/yours/planted"  # no folder is left out
    folder.mkdir()
    for number, line in enumerate(LINES.values()):
        (folder / f"key_{number}.py").write_text(f"{line}\n", encoding="utf-8")
    run(guarded, "git", "add", "--all")
    try:
        done = attempt(guarded, "git", "commit", "--message", "Add keys")
    finally:
        run(guarded, "git", "reset", "--quiet", "--hard")
    assert done.returncode != 0
    said = done.stdout + done.stderr
    let_through = [
        name for number, name in enumerate(LINES) if f"planted/key_{number}.py" not in said
    ]
    assert not let_through, let_through
    for name, key in KEYS.items():
        assert key not in said, f"the hook prints a key of {name}"
    assert run(guarded, "git", "rev-list", "--count", "HEAD").strip() == "1"


def test_a_file_that_was_forced_past_gitignore_is_stopped(guarded: Path) -> None:
    (guarded / ".env").write_text(f"{LINES['an admin token']}\n")
    run(guarded, "git", "add", "--force", ".env")
    try:
        done = attempt(guarded, "git", "commit", "--message", "Add .env")
    finally:
        run(guarded, "git", "reset", "--quiet", "--hard")
    assert done.returncode != 0


def test_the_hook_lets_placeholders_pass(guarded: Path) -> None:
    (guarded / "notes.md").write_text(PLACEHOLDERS)
    run(guarded, "git", "add", "--all")
    done = attempt(guarded, "git", "commit", "--message", "Add notes")
    assert done.returncode == 0, done.stdout + done.stderr
    run(guarded, "git", "reset", "--quiet", "--hard", "HEAD~1")


def test_the_scan_of_ci_finds_what_was_taken_out_again(guarded: Path, tmp_path: Path) -> None:
    app = tmp_path / "app"
    run(tmp_path, "git", "clone", "--quiet", guarded.as_uri(), app)
    command = scan_of_ci(app)
    clean = attempt(app, *command)
    assert clean.returncode == 0, clean.stdout + clean.stderr
    (app / "settings.py").write_text(f"{LINES['Anthropic']}\n")
    run(app, "git", "add", "--all")
    run(app, "git", "commit", "--quiet", "--no-verify", "--message", "Add settings")
    run(app, "git", "rm", "--quiet", "settings.py")
    run(app, "git", "commit", "--quiet", "--no-verify", "--message", "Remove settings")
    found = attempt(app, *command)
    assert found.returncode != 0
    assert "settings.py" in found.stdout
    assert KEYS["Anthropic"] not in found.stdout + found.stderr


def scan_of_ci(app: Path) -> list[str]:
    """The command of the workflow, on the tools of this environment."""
    text = (app / ".github/workflows/security.yml").read_text(encoding="utf-8")
    (line,) = [line for line in text.splitlines() if "kingfisher scan" in line]
    command = line.strip().removeprefix("run: ")
    assert command.startswith("uv run --locked --only-dev ")
    return ["uv", "run", "--no-sync", *command.split()[4:]]


def test_git_takes_no_file_of_secrets(make_app: MakeApp, tmp_path: Path) -> None:
    app = tmp_path / "app"
    shutil.copytree(make_app("docker"), app)
    secret = [
        *(".env", ".env.local", ".env.production", "app/.env", ".envrc", ".tmp_x1y2z3"),
        *("secrets/ADMIN_TOKEN", "tls/server.key", "tls/server.pem", "tls/server.pfx", "id_rsa"),
        *(".aws/credentials", ".vercel/.env.production.local", ".vercel/project.json"),
        *(".aws-sam/build/app/.env", "my-service-account.json", "client_secret_1.json"),
        *("credentials.json", ".netrc", ".pypirc", "data/app.db"),
    ]
    for name in secret:
        (app / name).parent.mkdir(parents=True, exist_ok=True)
        (app / name).write_text(f"{CANARY}\n")
    run(app, "git", "init", "--quiet")
    run(app, "git", "add", "--all")
    assert CANARY not in run(app, "git", "diff", "--cached")
    staged = set(run(app, "git", "diff", "--cached", "--name-only").split())
    assert not staged & set(secret)
    assert {".env.example", "app/main.py"} <= staged


def test_no_secret_is_built_into_a_package(make_app: MakeApp, tmp_path: Path) -> None:
    app = tmp_path / "app"
    shutil.copytree(make_app("docker"), app)
    for name in ("app/.env", "app/yours/.env.local", "app/tls.key", "app/yours/tls.pem", ".env"):
        (app / name).write_text(f"{CANARY}\n")
    (app / "app/yours/system_prompt.md").write_text("Be kind.\n")
    run(app, "uv", "build", "--quiet")
    (wheel,) = (app / "dist").glob("*.whl")
    (source,) = (app / "dist").glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        built = {name: archive.read(name) for name in archive.namelist()}
    with tarfile.open(source) as packed:
        kept = [member for member in packed.getmembers() if member.isfile()]
        built |= {member.name: packed.extractfile(member).read() for member in kept}  # type: ignore[union-attr]
    assert built["app/yours/system_prompt.md"] == b"Be kind.\n"
    assert [name for name, content in built.items() if CANARY.encode() in content] == []
