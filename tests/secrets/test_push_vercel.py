"""`uv run secrets push` and `check` with Vercel: through the CLI's stand-in, to a real server."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.secrets.conftest import MakeApp
from tests.secrets.keychain import CANARY, COMMAND, environment, secrets, terminal
from tests.secrets.vercel import Api, link, standin, vercel_api

EX_OPEN, EX_USAGE, EX_UNAVAILABLE, EX_INTERRUPTED = 1, 64, 69, 130
SENT = {
    "OPENAI_API_KEY": f"sk-{CANARY}",
    "REDIS_URL": f"rediss://:{CANARY}@redis.example.com:6379/0",
    "APP_API_KEYS": f"web:{CANARY}-web",
    "ADMIN_TOKEN": f"{CANARY}-$admin#'",
    "DAILY_COST_CAP_USD": "7.5",
}
HERE = {"APP_ENV": "development", "PORT": "9000", "MINE": f"{CANARY}-mine"}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with vercel_api(tmp_path / "home") as api:
        yield api


@pytest.fixture
def app(make_app: MakeApp, tmp_path: Path) -> Path:
    app = Path(shutil.copytree(make_app("vercel"), tmp_path / "app"))
    link(app)
    write(app, SENT | HERE)
    return app


@pytest.fixture
def surroundings(tmp_path: Path) -> dict[str, str]:
    return {"PATH": standin(tmp_path / "bin"), "XDG_DATA_HOME": str(tmp_path / "home")}


def write(app: Path, values: dict[str, str]) -> None:
    lines = [f'{name}="{value}"\n' for name, value in values.items()]
    (app / ".env").write_text("".join(lines))
    (app / ".env").chmod(0o600)


def test_all_that_the_app_needs_is_sent(
    api: Api, app: Path, surroundings: dict[str, str], tmp_path: Path
) -> None:
    done = secrets(app, "check", "--env", "target", **surroundings)
    assert done.returncode == EX_OPEN
    assert "REDIS_URL: is missing" in done.stdout

    done = secrets(app, "push", "--yes", **surroundings)
    assert done.returncode == 0, done.stderr
    assert api.values == SENT
    hidden = {name for name, item in api.variables.items() if item["type"] == "sensitive"}
    assert hidden == SENT.keys() - {"DAILY_COST_CAP_USD"}
    assert all(item["target"] == ["production"] for item in api.variables.values())
    assert "it takes another one" in done.stdout
    assert secrets(app, "check", **surroundings).returncode == 0

    # What can be compared and is the same is not sent again.
    api.posted.clear()
    done = secrets(app, "push", "--yes", **surroundings)
    assert "unchanged: DAILY_COST_CAP_USD" in done.stdout
    assert set(api.posted) == hidden
    # No value was ever in a command line, where every user of the machine can see it.
    assert CANARY not in (tmp_path / "home/com.vercel.cli/arguments").read_text()


def test_it_shows_the_names_and_asks(api: Api, app: Path, surroundings: dict[str, str]) -> None:
    with terminal(app, "push", **surroundings) as shown:
        shown.type("Send them?", "n", end="")
        assert shown.end() == EX_OPEN
    assert all(name in shown.words for name in SENT)
    assert "PORT" not in shown.words
    assert "MINE" not in shown.words
    assert not api.posted
    assert secrets(app, "push", **surroundings).returncode == EX_USAGE
    with terminal(app, "push", "ADMIN_TOKEN", **surroundings) as shown:
        shown.type("Send them?", "y", end="")
        assert shown.end() == 0, shown.words
    assert api.posted == ["ADMIN_TOKEN"]
    assert "The app would still not start there" in shown.words


def test_killed_in_the_middle_the_next_push_completes_it(
    api: Api, app: Path, surroundings: dict[str, str]
) -> None:
    api.hang = {"APP_API_KEYS"}
    given = environment(**surroundings)
    process = subprocess.Popen(
        [*COMMAND, "push", "--yes"], cwd=app, env=given, stdout=subprocess.PIPE, text=True
    )
    try:
        assert api.hanging.wait(60)
    finally:
        process.kill()
        said, _ = process.communicate()
    arrived = [name for name in SENT if f"{name}: sent" in said]
    assert arrived == list(api.values) == ["OPENAI_API_KEY", "REDIS_URL"]
    api.hang = set()
    assert secrets(app, "push", "--yes", **surroundings).returncode == 0
    assert api.values == SENT


def test_ended_in_the_middle_it_says_what_is_left(
    api: Api, app: Path, surroundings: dict[str, str]
) -> None:
    api.hang = {"REDIS_URL"}
    process = subprocess.Popen(
        [*COMMAND, "push", "--yes"],
        cwd=app,
        env=environment(**surroundings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert api.hanging.wait(60)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == EX_INTERRUPTED
    assert "OPENAI_API_KEY: sent" in out
    assert "Not sent: REDIS_URL, " in err
    assert CANARY not in out + err


def test_a_platform_that_refuses_is_quoted_without_the_value(
    api: Api, app: Path, surroundings: dict[str, str]
) -> None:
    api.refuse = (403, f"You may not set this to {SENT['OPENAI_API_KEY']}")
    done = secrets(app, "push", "--yes", **surroundings)
    assert done.returncode == EX_UNAVAILABLE
    assert "Error: You may not set this to ***" in done.stderr
    assert "Not sent: OPENAI_API_KEY, REDIS_URL," in done.stderr
    assert not api.values


def test_a_platform_that_is_silent_is_given_up(
    api: Api, app: Path, surroundings: dict[str, str]
) -> None:
    api.hang = {"OPENAI_API_KEY"}
    hurry = "import keychain.places.vercel as vercel; vercel.LIMIT_SECONDS = 2.0; "
    done = subprocess.run(
        [sys.executable, "-c", hurry + COMMAND[-1], "push", "--yes"],
        cwd=app,
        env=environment(**surroundings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == EX_UNAVAILABLE, done.stderr
    assert "no answer within 2 s" in done.stderr
    assert "Not sent: " in done.stderr
    assert CANARY not in done.stdout + done.stderr


def test_what_must_be_there_first_is_said(
    api: Api, app: Path, surroundings: dict[str, str], tmp_path: Path
) -> None:
    (app / ".vercel/project.json").unlink()
    done = secrets(app, "check", **surroundings)
    assert done.returncode == EX_UNAVAILABLE
    assert done.stdout.startswith(".env: complete")  # what needs no network
    assert "isn’t linked" in done.stderr
    link_home = tmp_path / "home/com.vercel.cli/auth.json"
    link_home.unlink()
    assert "vercel login" in secrets(app, "push", "--yes", **surroundings).stderr
    done = secrets(app, "push", "--yes", PATH=os.defpath)
    assert done.returncode == EX_UNAVAILABLE
    assert "npm install --global vercel" in done.stderr


def test_what_the_app_would_not_start_with_is_not_sent(
    api: Api, app: Path, surroundings: dict[str, str]
) -> None:
    here = {"REDIS_URL": "redis://127.0.0.1:6379/0", "ADMIN_TOKEN": CANARY[:4], "PROVIDERS": "demo"}
    write(app, SENT | here)
    done = secrets(app, "push", "--yes", **surroundings)
    assert done.returncode == EX_OPEN
    assert "ADMIN_TOKEN: is too short" in done.stderr
    assert "PROVIDERS: demo is for development" in done.stderr
    assert not api.posted
    # The store of this machine means another one there.
    done = secrets(app, "push", "--yes", "REDIS_URL", **surroundings)
    assert done.returncode == EX_USAGE
    assert "127.0.0.1" in done.stderr
    # What is named goes, also what only the user's own code knows: nobody can say it is no secret.
    write(app, SENT | here | HERE)
    done = secrets(app, "push", "--yes", "OPENAI_API_KEY", "MINE", **surroundings)
    assert done.returncode == 0
    assert api.values == {"OPENAI_API_KEY": SENT["OPENAI_API_KEY"], "MINE": HERE["MINE"]}
    assert {item["type"] for item in api.variables.values()} == {"sensitive"}
