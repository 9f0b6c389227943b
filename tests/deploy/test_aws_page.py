"""docs/deploy/aws.md: what needs no account is run as it stands there."""

import re
from pathlib import Path

import pytest

from tests.deploy.aws_tools import install
from tests.kit import answers, generate, run
from tests.releases.snapshot import ROOT

pytestmark = pytest.mark.deploy

PAGE = ROOT / "docs/deploy/aws.md"
NEEDS_THE_PLATFORM = "(needs the platform)"


def commands() -> list[tuple[bool, str]]:
    """Each command of the page, and whether it needs the platform."""
    found = re.findall(r"([^\n]*)\n\n```sh\n(.*?)\n```", PAGE.read_text(encoding="utf-8"), re.S)
    return [(before.endswith(NEEDS_THE_PLATFORM), command) for before, command in found]


def test_the_commands_of_the_page_run(folder: Path, tmp_path: Path) -> None:
    tools = install(ROOT / "build/aws")
    app = generate(folder, tmp_path / "app", answers(deploy="aws", store="redis"))
    mine = [command for needs, command in commands() if not needs]
    assert mine == ["uv lock", "sam validate", "sam build"]
    for command in mine:
        run(app, "sh", "-c", command, **tools.environment())
    assert (app / ".aws-sam/build/AppFunction/run.sh").is_file()


def test_what_the_page_calls_is_there(folder: Path, tmp_path: Path) -> None:
    app = generate(folder, tmp_path / "app", answers(deploy="aws", store="redis"))
    named = set(re.findall(r"deploy/aws/[\w.]+", PAGE.read_text(encoding="utf-8")))
    assert named
    assert all((app / name).is_file() for name in named)
