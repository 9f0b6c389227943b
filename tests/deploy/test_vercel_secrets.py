"""`uv run secrets` through Vercel's own CLI: it does what the stand-in of tests/secrets does."""

import os
import shutil
from pathlib import Path

import pytest

from tests.deploy.vercel import CACHE, install_cli
from tests.kit import answers, generate
from tests.secrets.keychain import CANARY, secrets
from tests.secrets.vercel import link, standin, vercel_api

pytestmark = pytest.mark.deploy

SENT = {
    "OPENAI_API_KEY": f"sk-{CANARY}",
    "REDIS_URL": f"rediss://:{CANARY}@redis.example.com:6379/0",
    "APP_API_KEYS": f"web:{CANARY}-web",
    "ADMIN_TOKEN": f"{CANARY}-$admin#'",
    "DAILY_COST_CAP_USD": "7.5",
}


def story(app: Path, home: Path, path: str) -> list[object]:
    """Everything that the command is asked, and what it ends with, says, and leaves behind."""
    given = {"PATH": path, "XDG_DATA_HOME": str(home), "VERCEL_TELEMETRY_DISABLED": "1"}
    told: list[object] = []

    def ask(*arguments: str) -> None:
        done = secrets(app, *arguments, **given)
        told.append((arguments, done.returncode, done.stdout, done.stderr))

    with vercel_api(home) as api:
        ask("check")  # the folder is not linked yet
        link(app)
        ask("check")
        ask("push", "--yes")
        assert api.values == SENT, told
        told.append({name: found["type"] for name, found in api.variables.items()})
        told.append({name: found["target"] for name, found in api.variables.items()})
        ask("check")
        api.posted.clear()
        ask("push", "--yes", "DAILY_COST_CAP_USD")
        assert api.posted == []
        api.refuse = (403, f"You may not set this to {SENT['ADMIN_TOKEN']}")
        ask("push", "--yes", "ADMIN_TOKEN")
        (home / "com.vercel.cli/auth.json").unlink()
        ask("check")
    return told


def test_the_real_one_does_what_the_standin_does(folder: Path, tmp_path: Path) -> None:
    install_cli()
    real = os.pathsep.join([str(CACHE / "vercel/node_modules/.bin"), os.environ["PATH"]])
    made = generate(folder, tmp_path / "made", answers(deploy="vercel", store="redis"))
    lines = [f'{name}="{value}"\n' for name, value in SENT.items()]
    (made / ".env").write_text("".join(lines))
    (made / ".env").chmod(0o600)
    stories = []
    for name, path in (("stand-in", standin(tmp_path / "bin")), ("real", real)):
        app = Path(shutil.copytree(made, tmp_path / name))
        stories.append(story(app, tmp_path / f"home-{name}", path))
    assert stories[0] == stories[1]
    assert [part[1] for part in stories[1] if isinstance(part, tuple)] == [69, 1, 0, 0, 0, 69, 69]
