"""What the tests of the template share: its questions, its files, and how apps are made from it."""

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from copier import run_copy

from tests.releases.snapshot import PARTS, ROOT, commit, git, rebuild

TEMPLATE = ROOT / "template"
PROVIDERS = ("openai", "anthropic", "gemini", "compatible")
STORES = ("sqlite", "redis", "postgres")
HERE = "v9999.0.0"  # the working tree, as a release
# Compiled files are kept, whatever this machine is told: hundreds of processes start from them.
COMPILED = {"PYTHONDONTWRITEBYTECODE": ""}
ON_CALL = {"on_call_name": "Kim Minji", "on_call_contact": "+82 10 5550 0100"}

CONFIG: dict[str, Any] = yaml.safe_load((ROOT / "copier.yml").read_text(encoding="utf-8"))
QUESTIONS: dict[str, dict[str, Any]] = {
    name: question for name, question in CONFIG.items() if not name.startswith("_")
}


def answers(**given: Any) -> dict[str, Any]:
    """The answers of a test, someone on call. Copier ignores an unknown name; this does not."""
    unknown = given.keys() - QUESTIONS.keys()
    if unknown:
        raise KeyError(f"no such question: {', '.join(sorted(unknown))}")
    return ON_CALL | given


def generate(
    source: str | Path, folder: Path, given: dict[str, Any], ref: str | None = None
) -> Path:
    """Copy the template as a user does who trusts nothing."""
    run_copy(str(source), folder, data=given, defaults=True, quiet=True, unsafe=False, vcs_ref=ref)
    return folder


def export(folder: Path) -> Path:
    """Write the template as it lies in the working tree, uncommitted changes too, into `folder`."""
    names = git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *PARTS)
    for name in names.decode().split("\0"):
        if name and (ROOT / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
    return folder


def releases(repository: Path) -> Path:
    """Make `repository` one of every kept release, and of the working tree as the newest."""
    rebuild(repository)
    git(repository, "rm", "-r", "--quiet", "--force", "--ignore-unmatch", ".")
    export(repository)
    commit(repository, "The working tree", HERE)
    return repository


def forget_this_machine(home: Path) -> None:
    """Let nothing be trusted, and git know no one's configuration, from here on."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "gitconfig").write_text("[user]\nname = Kit\nemail = kit@survival.test\n")
    (home / "copier.yml").write_text("{}\n")
    os.environ["COPIER_SETTINGS_PATH"] = str(home / "copier.yml")
    os.environ["GIT_CONFIG_GLOBAL"] = str(home / "gitconfig")
    os.environ["GIT_CONFIG_NOSYSTEM"] = "1"


def files(folder: Path) -> dict[str, Path]:
    """Every file below `folder`, by its path in it."""
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".git" not in path.relative_to(folder).parts
    }


def texts(folder: Path) -> Iterator[tuple[str, str]]:
    """Every text file below `folder` but the tokenizer's ranks: its path and its content."""
    for name, path in files(folder).items():
        if "/ranks/" not in name:
            yield name, path.read_text(encoding="utf-8")


class _Yaml(yaml.SafeLoader):
    """YAML with CloudFormation's short forms: `!Ref Name` is {"!Ref": "Name"}."""


def _short_form(loader: _Yaml, tag: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.MappingNode):
        return {f"!{tag}": loader.construct_mapping(node, deep=True)}
    if isinstance(node, yaml.SequenceNode):
        return {f"!{tag}": loader.construct_sequence(node, deep=True)}
    assert isinstance(node, yaml.ScalarNode)
    return {f"!{tag}": loader.construct_scalar(node)}


_Yaml.add_multi_constructor("!", _short_form)


def read_yaml(text: str) -> Any:
    """What a YAML text says, CloudFormation's short forms included."""
    return yaml.load(text, _Yaml)  # noqa: S506 (it is a safe loader)


def ownership(folder: Path) -> dict[str, str]:
    """The kinds of the app's files: path or folder to kind. Raises where a path is listed twice."""
    with (folder / ".survival-kit/ownership.toml").open("rb") as file:
        entries = tomllib.load(file)["files"]
    kinds: dict[str, str] = {}
    for entry in entries:
        assert set(entry) == {"kind", "path", "why"}, entry
        assert entry["path"] not in kinds, f"{entry['path']} is listed twice"
        assert entry["why"].endswith("."), entry
        kinds[entry["path"]] = entry["kind"]
    return kinds


def owner(name: str, kinds: dict[str, str]) -> str | None:
    """The kind of one file: of the paths that name it or a folder around it, the longest counts."""
    around = [path for path in kinds if name == path or (path[-1] == "/" and name.startswith(path))]
    return kinds[max(around, key=len)] if around else None


def run(folder: Path, *command: str | Path, **environment: str) -> str:
    """Run a command in `folder`; what it prints is the message when it fails."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
        | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}"
    return done.stdout


def interpreter(version: str) -> str:
    """A Python of this version. Outside CI, the running one stands in where it is missing."""
    for path in (shutil.which(f"python{version}"), *_pyenv(version)):
        if (
            path
            and subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0
        ):
            return str(path)
    assert not os.environ.get("CI"), f"Python {version} is missing: CI tests apps on it"
    return sys.executable


def _pyenv(version: str) -> list[Path]:
    """The Pythons of this version that pyenv keeps."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    return sorted(root.glob(f"versions/{version}.*/bin/python"))
