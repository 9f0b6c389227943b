"""`uv run secrets init` and `check`: what is asked, what is written, what is never shown."""

import json
import re
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from dotenv import dotenv_values

from tests.kit import TEMPLATE, answers, generate
from tests.secrets.conftest import MakeApp
from tests.secrets.keychain import CANARY, secrets, terminal

EX_OPEN, EX_USAGE, EX_INTERRUPTED = 1, 64, 130
KEY = f"sk-{CANARY}"
DOWN = "\x1b[B"
CTRL_C = "\x03"
COMMENTED = "# Mine, and it stays.\nMY_OWN='a # b'\n\nexport OTHER = 7 # seven\nNO_VALUE\n"


@pytest.fixture
def copy(make_app: MakeApp, tmp_path: Path) -> Callable[..., Path]:
    """A copy of an app, to be changed."""

    def make(deploy: str = "docker", store: str = "") -> Path:
        return Path(shutil.copytree(make_app(deploy, store), tmp_path / "app"))

    return make


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_missing_is_asked_and_written(copy: Callable[..., Path]) -> None:
    app = copy()
    (app / ".env").write_text(COMMENTED)
    (app / ".env").chmod(0o644)
    with terminal(app, "init") as shown:
        shown.type("(Enter leaves it out)", f"{CANARY[:5]}")  # too short
        shown.type("is too short", f"\x15{KEY}")
        shown.type("Make one", "")  # the first choice
        shown.type("Make one", f"{DOWN}")
        shown.type("ADMIN_TOKEN (Enter leaves it out)", f"{CANARY}-admin")
        assert shown.end() == 0, shown.words
    text = (app / ".env").read_text()
    assert text.startswith(COMMENTED)
    assert mode(app / ".env") == 0o600
    values = dotenv_values(app / ".env", interpolate=False)
    assert values["OPENAI_API_KEY"] == KEY
    assert values["ADMIN_TOKEN"] == f"{CANARY}-admin"
    made = values["APP_API_KEYS"]
    assert made is not None
    assert re.fullmatch(r"web:[\w-]{43}", made)
    assert made not in shown.seen
    assert [path.name for path in app.iterdir() if path.name.startswith(".env.")] == [
        ".env.example"
    ]
    # Nothing is missing any more: nobody needs to be asked.
    assert secrets(app, "init").returncode == 0
    assert secrets(app, "check").returncode == 0
    assert (app / ".env").read_text() == text


def test_an_end_in_the_middle_keeps_what_was_answered(copy: Callable[..., Path]) -> None:
    app = copy("vercel")
    (app / ".env").write_text(COMMENTED)
    with terminal(app, "init") as shown:
        shown.type("OPENAI_API_KEY (Enter leaves it out)", KEY)
        shown.type("REDIS_URL (Enter leaves it out)", f"rediss://:{CANARY}", end=CTRL_C)
        assert shown.end() == EX_INTERRUPTED, shown.words
    assert "What was answered is in .env" in shown.words
    assert (app / ".env").read_text() == f"{COMMENTED}OPENAI_API_KEY={KEY}\n"
    # It goes on where it stopped.
    with terminal(app, "init", "--env", "local") as shown:
        shown.type("REDIS_URL (Enter leaves it out)", f"redis://:{CANARY}@h:x")
        shown.type("must be redis://", f"\x15rediss://:{CANARY}@h:1")
        assert shown.end() == 0, shown.words
    assert dotenv_values(app / ".env")["REDIS_URL"] == f"rediss://:{CANARY}@h:1"


def test_korean(folder: Path, tmp_path: Path) -> None:
    given = answers(language="ko", providers=["openai"])
    app = generate(folder, tmp_path / "app", given)
    done = secrets(app, "init")
    assert done.returncode == EX_USAGE
    assert "터미널이 아니어서 물을 수 없습니다" in done.stderr
    with terminal(app, "init", "--env", "local") as shown:
        shown.type("OPENAI_API_KEY (비워 두려면 Enter)", "한국어로 된 비밀")
        shown.type("공백 없이", f"\x15{KEY}")
        assert shown.end() == 0, shown.words
    assert "OPENAI_API_KEY: .env 에 적었습니다" in shown.words
    assert "비밀" not in shown.words.replace("비밀 값", "")


def test_without_a_terminal_it_names_what_it_would_ask(copy: Callable[..., Path]) -> None:
    app = copy("docker", "postgres")
    done = secrets(app, "init")
    assert done.returncode == EX_USAGE
    named = "OPENAI_API_KEY, DATABASE_URL, APP_API_KEYS, ADMIN_TOKEN, POSTGRES_PASSWORD"
    assert named in done.stderr
    assert not (app / ".env").exists()
    # What nobody needs to think of needs no terminal.
    done = secrets(app, "init", "--generate", "ADMIN_TOKEN", "POSTGRES_PASSWORD")
    assert done.returncode == 0, done.stderr
    assert mode(app / ".env") == 0o600
    made = dotenv_values(app / ".env")
    assert set(made) == {"ADMIN_TOKEN", "POSTGRES_PASSWORD"}
    # What is in use is not replaced unasked.
    assert secrets(app, "init", "--generate", "ADMIN_TOKEN").returncode == 0
    assert dotenv_values(app / ".env") == made
    assert not any(str(value) in done.stdout + done.stderr for value in made.values())


def test_a_value_in_the_command_is_not_repeated(copy: Callable[..., Path]) -> None:
    done = secrets(copy(), "init", f"OPENAI_API_KEY=sk-{CANARY}")
    assert done.returncode == EX_USAGE
    assert ".env.example" in done.stderr


def test_check_says_what_each_lacks(copy: Callable[..., Path]) -> None:
    app = copy("docker", "redis")
    lines = f"OPENAI_API_KEY=sk-{CANARY}\nADMIN_TOKEN={CANARY[:5]}\nREDIS_URL=http://{CANARY}\n"
    (app / ".env").write_text(lines)
    (app / ".env").chmod(0o640)
    done = secrets(app, "check")
    assert done.returncode == EX_OPEN
    local, target = done.stdout.split("Docker")
    assert "  .env: others on this machine may read it (mode 640)" in local
    assert "  ADMIN_TOKEN: is too short" in local
    assert "  REDIS_URL: must be redis://" in local
    assert "set: OPENAI_API_KEY" in local
    assert "APP_API_KEYS" not in local  # development does without
    assert "  ADMIN_TOKEN: is too short" in target
    assert "  APP_API_KEYS: is missing" in target
    assert "  REDIS_URL" not in target  # compose.yaml brings its own


@pytest.mark.parametrize("content", [b"\xff\xfe", None], ids=["no text", "a folder"])
def test_a_file_that_is_none_is_left_alone(
    copy: Callable[..., Path], content: bytes | None
) -> None:
    app = copy()
    if content is None:
        (app / ".env").mkdir()
    else:
        (app / ".env").write_bytes(content)
    done = secrets(app, "init", "--generate", "ADMIN_TOKEN")
    assert done.returncode == EX_USAGE
    assert done.stderr.startswith(".env ")
    if content is not None:
        assert (app / ".env").read_bytes() == content


def test_both_languages_say_everything() -> None:
    folder = TEMPLATE / "keychain/texts"
    texts = {name: json.loads((folder / f"{name}.json").read_text()) for name in ("en", "ko")}
    assert texts["en"].keys() == texts["ko"].keys()
    for key, text in texts["en"].items():
        gaps = [sorted(re.findall(r"\{\w+", found)) for found in (text, texts["ko"][key])]
        assert gaps[0] == gaps[1], key
