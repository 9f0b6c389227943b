"""`uv run secrets push` and `check` with Docker secrets: real files, which the app reads."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.secrets.conftest import MakeApp
from tests.secrets.keychain import CANARY, environment, secrets

EX_OPEN, EX_USAGE, EX_UNAVAILABLE = 1, 64, 69
SENT = {
    "OPENAI_API_KEY": f"sk-{CANARY}",
    "APP_API_KEYS": f"web:{CANARY}-web",
    "ADMIN_TOKEN": f"{CANARY}-$admin#'",
}

# Runs in the app's folder: the app's own sources, and the folder that compose would mount.
READ = """
import json
from pathlib import Path
from app.foundation import settings

settings.SECRETS = Path("secrets")
found = settings.read_settings()
names = ("openai_api_key", "admin_token")
values = {name: getattr(found, name).get_secret_value() for name in names}
keys = {name: key.get_secret_value() for name, key in found.app_api_keys.items()}
print(json.dumps({**values, "app_api_keys": keys}))
"""


@pytest.fixture
def app(make_app: MakeApp, tmp_path: Path) -> Path:
    return Path(shutil.copytree(make_app("docker", "postgres"), tmp_path / "app"))


def write(app: Path, values: dict[str, str]) -> Path:
    """A file that compose does not hand to the app."""
    path = app / ".env.production"
    path.write_text("".join(f'{name}="{value}"\n' for name, value in values.items()))
    return path


def test_the_app_starts_with_what_was_sent(app: Path) -> None:
    here = {"DATABASE_URL": "postgresql://app@localhost/app", "DAILY_COST_CAP_USD": "7"}
    write(app, SENT | here | {"POSTGRES_PASSWORD": CANARY})
    done = secrets(app, "push", "--yes", "--file", ".env.production")
    assert done.returncode == 0, done.stderr
    folder = app / "secrets"
    assert {path.name: path.read_text() for path in folder.iterdir()} == SENT
    # A container's user must read the files; the folder keeps this machine's others out.
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o644}

    given = environment(APP_ENV="production", DATABASE_URL="postgresql://app@db/app")
    read = subprocess.run(
        [sys.executable, "-c", READ], cwd=app, env=given, capture_output=True, check=True
    )
    assert json.loads(read.stdout) == {
        "openai_api_key": SENT["OPENAI_API_KEY"],
        "admin_token": SENT["ADMIN_TOKEN"],
        "app_api_keys": {"web": f"{CANARY}-web"},
    }
    # What it says to write is what compose understands.
    override = yaml.safe_load(done.stdout.split("\n\n")[1])
    assert set(override["services"]["app"]["secrets"]) == SENT.keys()
    assert all((app / item["file"]).is_file() for item in override["secrets"].values())


def test_only_what_changed_is_written(app: Path) -> None:
    write(app, SENT)
    assert secrets(app, "push", "--yes", "--file", ".env.production").returncode == 0
    before = {path.name: path.stat().st_ino for path in (app / "secrets").iterdir()}
    write(app, SENT | {"ADMIN_TOKEN": f"{CANARY}-rotated"})
    done = secrets(app, "push", "--yes", "--file", ".env.production")
    assert "changed: ADMIN_TOKEN\n" in done.stdout
    assert "unchanged: OPENAI_API_KEY, APP_API_KEYS\n" in done.stdout
    assert (app / "secrets/ADMIN_TOKEN").read_text() == f"{CANARY}-rotated"
    after = {path.name: path.stat().st_ino for path in (app / "secrets").iterdir()}
    assert {name for name in after if after[name] != before[name]} == {"ADMIN_TOKEN"}


def test_what_a_container_cannot_read_is_named_and_mended(app: Path) -> None:
    write(app, SENT)
    (app / ".env").write_text(f"POSTGRES_PASSWORD={CANARY}\n")
    assert secrets(app, "push", "--yes", "--file", ".env.production").returncode == 0
    (app / "secrets/ADMIN_TOKEN").chmod(0o600)
    (app / "secrets").chmod(0o755)
    done = secrets(app, "check", "--env", "target")
    assert done.returncode == EX_OPEN
    assert "2 missing or wrong" in done.stdout
    assert "  ADMIN_TOKEN: the container's user may not read the file" in done.stdout
    assert "  secrets/: others on this machine may look into the folder" in done.stdout
    done = secrets(app, "push", "--yes", "--file", ".env.production")
    assert "ADMIN_TOKEN: sent" in done.stdout
    assert "OPENAI_API_KEY: sent" not in done.stdout
    assert secrets(app, "check", "--env", "target").returncode == 0


def test_compose_brings_the_store_once_it_has_a_password(app: Path) -> None:
    write(app, SENT)
    done = secrets(app, "push", "--yes", "--file", ".env.production")
    assert "POSTGRES_PASSWORD: is missing" in done.stdout
    (app / ".env").write_text(f"POSTGRES_PASSWORD={CANARY}\n")
    done = secrets(app, "check", "--env", "target")
    assert done.returncode == 0, done.stdout
    (app / ".env").write_text(f"POSTGRES_PASSWORD={CANARY}\nAPP_ENV=development\n")
    done = secrets(app, "check", "--env", "target")
    assert done.returncode == EX_OPEN
    assert "APP_ENV: says development" in done.stdout
    (app / ".env").write_text(f"POSTGRES_PASSWORD={CANARY}\n")
    os.truncate(app / "secrets/ADMIN_TOKEN", 5)
    (app / "secrets/OPENAI_API_KEY").write_text("sk-xxx\n")
    done = secrets(app, "check", "--env", "target")
    assert done.returncode == EX_OPEN
    assert "  ADMIN_TOKEN: is too short" in done.stdout
    assert "  OPENAI_API_KEY: is a placeholder" in done.stdout


def test_a_folder_that_cannot_be_written_is_said(app: Path) -> None:
    write(app, SENT)
    (app / "secrets").write_text("")
    done = secrets(app, "push", "--yes", "--file", ".env.production")
    assert done.returncode == EX_UNAVAILABLE
    assert "secrets/OPENAI_API_KEY cannot be written (File exists)" in done.stderr
    assert "Not sent: OPENAI_API_KEY, APP_API_KEYS, ADMIN_TOKEN" in done.stderr
    (app / ".env.production").unlink()
    done = secrets(app, "push", "--yes", "--file", ".env.production")
    assert done.returncode == EX_USAGE
    assert ".env.production has nothing to send" in done.stderr
