"""The file of secrets: one value changes, at once or not at all, and every other line stays."""

import re
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from dotenv import dotenv_values
from hypothesis import given, settings
from hypothesis import strategies as some

from keychain import env_file
from keychain.messages import RefusedError

# Writes without an end; says when the first value is there.
WRITER = """
import itertools, sys
from pathlib import Path
from keychain import env_file

for number in itertools.count():
    env_file.write(Path(sys.argv[1]), "ADMIN_TOKEN", f"token-{number}-" + "x" * 100_000)
    if number == 0:
        print(flush=True)
"""
NAMES = some.sampled_from(["ADMIN_TOKEN", "OPENAI_API_KEY", "MINE"])
VALUES = some.text(some.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
LINES = some.sampled_from(
    [
        *("# a comment", "", "  ", "MINE=1", "export MINE='2'  # two", 'MINE="a\\nb"', "broken ="),
        *("ADMIN_TOKEN=x", "'odd", "NAME", "ADMIN_TOKEN='a b' # c", 'OTHER="${MINE}"'),
    ]
)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch")


@settings(max_examples=100, deadline=None)
@given(
    lines=some.lists(LINES, max_size=6),
    end=some.sampled_from(["\n", "\r\n"]),
    name=NAMES,
    value=VALUES,
)
def test_one_value_changes_and_nothing_else(
    lines: list[str], end: str, name: str, value: str, scratch: Path
) -> None:
    path = scratch / ".env"
    before = end.join(lines)
    path.write_bytes(before.encode())
    old = dotenv_values(path)
    try:
        env_file.write(path, name, value)
    except RefusedError:
        assert path.read_bytes() == before.encode()
        # Only what has a meaning of its own in such a file is refused.
        assert re.search(r"\$\{|[\r\n]", value) or "'odd" in before or "${MINE}" in before
        return
    assert dotenv_values(path) == old | {name: value}
    assert stat.S_IMODE(path.stat().st_mode) == env_file.MODE
    assert [found.name for found in scratch.iterdir()] == [".env"]
    comments = [line for line in lines if line.startswith("#")]
    end = "\r\n" if "\r\n" in before else "\n"  # of one line nobody knows
    assert [line for line in path.read_bytes().decode().split(end) if line in comments] == comments


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/env").write_text("A=1\n")
    (tmp_path / ".env").symlink_to("elsewhere/env")
    env_file.write(tmp_path / ".env", "ADMIN_TOKEN", "a-token-0123456789")
    assert (tmp_path / ".env").is_symlink()
    assert (tmp_path / "elsewhere/env").read_text() == "A=1\nADMIN_TOKEN=a-token-0123456789\n"


def test_killed_at_any_moment_the_file_is_whole(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    lines = "".join(f"LINE_{number}=value-{number}\n" for number in range(100))
    path.write_text(lines)
    for milliseconds in (0, 7, 13, 29):
        command = [sys.executable, "-c", WRITER, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(milliseconds / 1000)
            writer.kill()
        text = path.read_text()
        assert text.startswith(lines)
        assert re.fullmatch(r"ADMIN_TOKEN=token-\d+-x{100000}\n", text.removeprefix(lines))
        assert stat.S_IMODE(path.stat().st_mode) == env_file.MODE
