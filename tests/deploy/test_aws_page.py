"""docs/deploy/aws.md: what needs no account is run as it stands there."""

import re
from pathlib import Path

import pytest

from tests.deploy.aws_tools import install
from tests.deploy.pages import commands
from tests.kit import answers, generate, run
from tests.releases.snapshot import ROOT

pytestmark = pytest.mark.deploy

PAGE = ROOT / "docs/deploy/aws.md"
LOCAL = ("uv lock", "sam validate", "sam build")


def test_the_commands_of_the_page_run(folder: Path, tmp_path: Path) -> None:
    environment = install(ROOT / "build/aws").environment(SURVIVAL_KIT=str(folder))
    where = tmp_path
    mine = [command.text for command in commands(PAGE) if not command.needs_the_platform]
    assert set(LOCAL) <= set(mine)
    for command in mine:
        if command.startswith("cd "):
            where /= command.removeprefix("cd ")
        else:
            run(where, "bash", "--noprofile", "--norc", "-e", "-c", command, **environment)
    assert (where / ".aws-sam/build/AppFunction/run.sh").is_file()


def test_what_the_page_calls_is_there(folder: Path, tmp_path: Path) -> None:
    app = generate(folder, tmp_path / "app", answers(deploy="aws", store="redis"))
    named = set(re.findall(r"deploy/aws/[\w.]+", PAGE.read_text(encoding="utf-8")))
    assert named
    assert all((app / name).is_file() for name in named)
