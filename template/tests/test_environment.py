"""A bad environment: everything that is wrong at once, exit code 78, and no value printed."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from app.foundation import checks
from app.foundation.messages import load_messages
from app.foundation.project import load_project
from app.foundation.settings import InvalidSettingsError, Settings, read_settings
from app.preflight import PROMPT
from tests.conftest import StartApp
from tests.fake_provider import FakeProvider
from tests.running import ROOT, clean_environment, production
from tests.servers import store_environment

FIRST = load_project().providers[0]
STORE = load_project().store
STORE_SETTING = "REDIS_URL" if STORE == "redis" else "DATABASE_URL"
REQUIRED = ["ADMIN_TOKEN", "APP_API_KEYS"]
REQUIRED += [] if STORE == "sqlite" else [STORE_SETTING]
REQUIRED += [
    "COMPATIBLE_BASE_URL" if name == "compatible" else f"{name.upper()}_API_KEY"
    for name in load_project().providers
]


def start(environment: dict[str, str], cwd: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    """Try to serve; the process must end by itself."""
    return subprocess.run(
        [sys.executable, "-c", "from app.cli import serve; serve()"],
        cwd=cwd,
        env={**clean_environment(), "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_everything_is_reported_at_once(fake: FakeProvider, tmp_path: Path) -> None:
    bad = {
        **production(fake, tmp_path),
        "APP_API_KEYS": "alice:changeme",
        "ADMIN_TOKEN": "  ",
        f"{FIRST.upper()}_API_KEY": "sk-xxx",
        "DAILY_COST_CAP_USD": "-5",
        "MAX_ATTEMPTS": "many",
        "APP_TIMEZONE": "Mars/Olympus",
        "TRUSTED_PROXIES": "everyone",
        "CORS_ORIGINS": "*",
        STORE_SETTING: "mysql://root:hunter2@db/app",
        "ALERT_URLS": "nonsense",
    }
    ended = start(bad)
    assert ended.returncode == 78
    for name in (*bad.keys() - production(fake, tmp_path).keys(), "APP_API_KEYS", "ADMIN_TOKEN"):
        assert f"{name}:" in ended.stderr, ended.stderr
    for value in ("changeme", "sk-xxx", "hunter2", "Olympus", "everyone", "nonsense"):
        assert value not in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("value", [None, "", "   ", "changeme", "your-key-here", "sk-xxx", "<key>"])
def test_each_required_name_is_required(
    monkeypatch: pytest.MonkeyPatch, fake: FakeProvider, tmp_path: Path, value: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    for required in REQUIRED:
        with monkeypatch.context() as patch:
            for name in list(os.environ):
                if name.lower() in Settings.model_fields:
                    patch.delenv(name)
            for name, text in production(fake, tmp_path).items():
                patch.setenv(name, text)
            if value is None:
                patch.delenv(required)
            else:
                patch.setenv(required, value)
            with pytest.raises(InvalidSettingsError) as caught:
                read_settings()
        assert [problem.name.upper() for problem in caught.value.problems] == [required]


def test_an_unknown_price_stops_the_start(fake: FakeProvider, tmp_path: Path) -> None:
    environment = production(fake, tmp_path, providers=FIRST)
    for name in (f"{FIRST}_INPUT_USD_PER_MTOK", f"{FIRST}_OUTPUT_USD_PER_MTOK"):
        del environment[name.upper()]
    ended = start({**environment, f"{FIRST.upper()}_MODEL": "no-such-model-1"})
    assert ended.returncode == 78
    assert f"{FIRST.upper()}_INPUT_USD_PER_MTOK" in ended.stderr


def test_demo_is_refused_in_production(fake: FakeProvider, tmp_path: Path) -> None:
    ended = start(production(fake, tmp_path, providers="demo"))
    assert ended.returncode == 78
    assert "PROVIDERS:" in ended.stderr


@pytest.mark.parametrize(
    ("url", "told"),
    {
        "sqlite": [
            ("sqlite:////dev/null/app.db", "/dev/null/app.db"),
            ("postgresql://a:hunter2@db/app", "sqlite:///"),
        ],
        "redis": [
            ("redis://:hunter2@127.0.0.1:1/0", "127.0.0.1:1"),
            ("rediss://:hunter2@no-such-host.invalid/0", "no-such-host.invalid:6379"),
            ("redis://127.0.0.1:6379/zero", "redis://"),
        ],
        "postgres": [
            ("postgresql://app:hunter2@127.0.0.1:1/app", "127.0.0.1:1"),
            ("postgresql://app:hunter2@no-such-host.invalid/app", "no-such-host.invalid"),
            ("postgresql+asyncpg://app:hunter2@127.0.0.1/app", "postgresql://"),
        ],
    }[STORE],
)
def test_an_unusable_store_stops_the_start(
    fake: FakeProvider, tmp_path: Path, url: str, told: str
) -> None:
    ended = start(production(fake, tmp_path, **{STORE_SETTING.lower(): url}))
    assert ended.returncode == 78, ended.stderr
    assert f"  {STORE_SETTING}: " in ended.stderr
    assert told in ended.stderr
    assert "hunter2" not in ended.stderr
    assert "Traceback" not in ended.stderr


def test_dotenv_is_read_in_development_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = store_environment(tmp_path)[STORE_SETTING]
    (tmp_path / ".env").write_text(
        f"LOG_LEVEL=debug\nPROVIDERS=demo\nSENTRY_DSN=\n{STORE_SETTING}={url}\n"
    )
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.lower() in Settings.model_fields:
            monkeypatch.delenv(name)
    assert read_settings().log_level == "DEBUG"
    monkeypatch.setenv("APP_ENV", "production")
    with pytest.raises(InvalidSettingsError):
        read_settings()


@pytest.mark.parametrize(
    "value",
    [
        "sk-proj-Zk3J9sLq2mX",
        "AIzaSyD-9tSrke72PouQMnMX",
        "gsk_yourself123",
        "xai-93jf93jf93",
        "example-key-9f8e7d",
    ],
)
def test_real_keys_are_no_placeholders(value: str) -> None:
    assert not checks.is_placeholder(value)


def test_secret_values_finds_every_secret(
    monkeypatch: pytest.MonkeyPatch, fake: FakeProvider, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    environment = production(fake, tmp_path, alert_urls="json://user:pass@127.0.0.1/hook")
    for name, text in environment.items():
        monkeypatch.setenv(name, text)
    values = read_settings().secret_values()
    for secret in ("alice-0123456789", "admin-0123456789", "sk-canary-0123456789"):
        assert secret in values
    assert any("pass@" in value for value in values)


def test_the_demo_needs_nothing_but_a_store(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.lower() in Settings.model_fields:
            monkeypatch.delenv(name)
    monkeypatch.setenv("PROVIDERS", "demo")
    if STORE != "sqlite":
        monkeypatch.setenv(STORE_SETTING, store_environment(tmp_path)[STORE_SETTING])
    assert read_settings().anonymous_allowed


def test_every_complaint_has_words_in_both_languages() -> None:
    english, korean = load_messages("en"), load_messages("ko")
    assert english.texts.keys() == korean.texts.keys()
    folder = Path(checks.__file__).parents[1]
    sources = [path.read_text(encoding="utf-8") for path in folder.rglob("*.py")]
    complaints = re.findall(
        r'(?:wrong\(|Problem\([^,()]+(?:\[0\])?, )"([a-z_]+)"', "\n".join(sources)
    )
    assert len(complaints) > 20
    assert {f"setting.{complaint}" for complaint in complaints} <= english.texts.keys()


def test_what_a_function_does_not_allow_is_refused(fake: FakeProvider, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "app", tmp_path / "app")
    answers = tmp_path / "app/project.json"
    answers.write_text(json.dumps(json.loads(answers.read_text()) | {"deploy": "vercel"}))
    here = {"PYTHONPATH": str(tmp_path), "TIME_BUDGET_SECONDS": "271"}
    ended = start(production(fake, tmp_path) | here, cwd=tmp_path)
    assert ended.returncode == 78
    assert "  TIME_BUDGET_SECONDS: " in ended.stderr
    assert ("  DATABASE_URL: " in ended.stderr) == (STORE == "sqlite")


def test_what_is_started_from_a_folder_of_the_project_reads_its_env(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "app", tmp_path / "app")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "docs").mkdir()
    here = {**clean_environment(), "PYTHONPATH": str(tmp_path), **store_environment(tmp_path)}

    def dev() -> str:
        ended = subprocess.run(
            [sys.executable, "-c", "from app.cli import dev; dev()"],
            cwd=tmp_path / "docs",
            env=here | {"PROVIDERS": "demo"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ended.returncode == 78, ended.stderr
        assert "Traceback" not in ended.stderr
        return ended.stderr

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        env = f"PORT={port}\nDAILY_COST_CAP=1\nOTEL_EXPORTER_OTLP_TRACES_ENDPOINT=x\nMINE=1\n"
        (tmp_path / ".env").write_text(env, encoding="utf-8")
        # As Windows editors and PowerShell write text.
        policy, prompt = (tmp_path / f"app/yours/{one}" for one in ("policy.toml", PROMPT.name))
        policy.write_text(policy.read_text(encoding="utf-8"), encoding="utf-8-sig")
        prompt.write_text("You are helpful.", encoding="utf-16")
        said = dev().splitlines()
    assert "DAILY_COST_CAP_USD" in said[0], "a slip of the pen is told"
    wrong = [line.partition(": ")[0].strip() for line in said if line[:2] == "  "]
    assert wrong == [f"app/yours/{PROMPT.name}", "PORT"]
    assert str(port) in "".join(said)
    (tmp_path / ".env").write_text(env, encoding="utf-16")
    assert "  .env: " in dev()


def test_a_slip_in_env_is_told_once_however_many_workers(
    start_app: StartApp, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("DAILY_COST_CAP=1\n", encoding="utf-8")
    app = start_app(workers=2, app_env="development", log_format="json")
    assert app.log().count("DAILY_COST_CAP_USD") == 1
