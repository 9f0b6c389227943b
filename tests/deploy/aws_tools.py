"""The tools of AWS and its linters, each set in an environment of its own below `build/`.

They cannot live among the other tools of the tests: they pin what those need newer.
"""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.kit import run

LOCKS = Path(__file__).parent / "tools"
# Nothing of this machine's account is used, and nothing is told to anyone.
NO_ACCOUNT = {
    "AWS_ACCESS_KEY_ID": "AKIDTEST",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "SAM_CLI_TELEMETRY": "0",
}


@dataclass(frozen=True)
class AwsTools:
    """Folders with the commands `sam`, `cfn-lint` and `aws`, and with `checkov`."""

    aws: Path
    checkov: Path

    @property
    def emulator(self) -> Path:
        """AWS's own emulator of Lambda, which comes with sam."""
        (found,) = self.aws.parent.glob(
            "lib/python*/site-packages/samcli/local/rapid/aws-lambda-rie-x86_64"
        )
        return found

    def environment(self, **more: str) -> dict[str, str]:
        """What a command needs to find the tools."""
        return {**NO_ACCOUNT, "PATH": f"{self.aws}{os.pathsep}{os.environ['PATH']}", **more}

    def run(self, folder: Path, *command: str | Path, **environment: str) -> str:
        """Run one of the tools in `folder`; what it prints is the message when it fails."""
        home = self.checkov if command[0] == "checkov" else self.aws
        name, *arguments = command
        return run(folder, home / name, *arguments, **self.environment(**environment))


def install(cache: Path) -> AwsTools:
    """The tools as they are locked; `cache` keeps them from one run to the next."""
    return AwsTools(_environment(cache, "aws"), _environment(cache, "checkov"))


def _environment(cache: Path, name: str) -> Path:
    place, lock = cache / name, LOCKS / f"{name}.txt"
    complete = place / "complete"
    wanted = f"{sys.version}\n{lock.read_text()}"
    if not (complete.exists() and complete.read_text() == wanted):
        shutil.rmtree(place, ignore_errors=True)
        run(Path.cwd(), "uv", "venv", "--quiet", "--python", sys.executable, place)
        python = place / "bin/python"
        options = ("--quiet", "--python", python, "--require-hashes", "--requirements", lock)
        run(Path.cwd(), "uv", "pip", "install", *options)
        complete.write_text(wanted)
    return place / "bin"
