"""The template as a local git repository: its releases, and what its changelog says of them."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from updates.git import GitError, git
from updates.messages import RefusedError

# How people write the addresses of hosted repositories for Copier.
SHORT = {"gh:": "https://github.com/", "gl:": "https://gitlab.com/"}
Version = tuple[int, int, int]


def version_of(name: str) -> Version | None:
    """The numbers of a release's tag, such as v0.2.0; None for anything else."""
    found = re.fullmatch(r"v?(\d+)\.(\d+)\.(\d+)", name)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


@dataclass(frozen=True, slots=True)
class Template:
    """A clone of the template, with its tags."""

    path: Path

    def newest(self) -> str:
        """The tag of the newest release. Raises `RefusedError` where there is none."""
        releases = [name for name in git(self.path, "tag").split() if version_of(name)]
        if not releases:
            raise RefusedError("no_releases", source=self.path)
        return max(releases, key=lambda name: version_of(name) or (0, 0, 0))

    def knows(self, name: str) -> bool:
        """True for a tag, a branch or a commit that is here, also as `git describe` writes it."""
        try:
            git(
                self.path,
                "rev-parse",
                "--verify",
                "--quiet",
                "--end-of-options",
                f"{name}^{{commit}}",
            )
        except GitError:
            return False
        return True

    def questions(self, name: str) -> frozenset[str]:
        """What the release `name` asks, by name."""
        content = yaml.safe_load(git(self.path, "show", f"{name}:copier.yml"))
        return frozenset(str(key) for key in content if str(key)[0] != "_")

    def describe(self, name: str) -> str:
        """The name that Copier records for it."""
        return git(self.path, "describe", "--tags", "--always", f"{name}^{{commit}}").strip()

    def is_older(self, name: str, than: str) -> bool:
        """Whether going from `than` to `name` is a step back."""
        versions = version_of(name), version_of(than)
        if versions[0] and versions[1]:
            return versions[0] < versions[1]
        if self.describe(name) == self.describe(than):
            return False
        try:
            git(
                self.path, "merge-base", "--is-ancestor", f"{name}^{{commit}}", f"{than}^{{commit}}"
            )
        except GitError:
            return False
        return True

    def changelog(self, old: str, new: str) -> str:
        """What the changelog at `new` says of the releases after `old`; empty where nothing is."""
        try:
            text = git(self.path, "show", f"{new}:CHANGELOG.md")
        except GitError:
            return ""
        last, upto = version_of(old), version_of(new)
        kept = []
        for part in re.split(r"^(?=## )", text, flags=re.MULTILINE)[1:]:
            version = version_of(part.split("\n", 1)[0].removeprefix("## ").strip())
            # What is unreleased comes only with something that is not a release.
            if version is None and upto is None:
                kept.append(part.strip())
            if version and (last is None or version > last) and (upto is None or version <= upto):
                kept.append(part.strip())
        return "\n\n".join(kept)


@contextmanager
def open_template(source: str) -> Iterator[Template]:
    """The template at an address or a path, cloned where it is not on this machine.

    Raises `RefusedError` for one that cannot be reached.
    """
    local = Path(source).expanduser()
    if local.is_dir():
        try:
            top = Path(git(local, "rev-parse", "--show-toplevel").strip())
        except GitError as error:
            raise RefusedError("unreachable", str(error), source=source) from None
        if top.resolve() != local.resolve():
            raise RefusedError("unreachable", source=source)
        yield Template(local.resolve())
        return
    address = source.removeprefix("git+")
    for short, long in SHORT.items():
        if address.startswith(short):
            address = long + address.removeprefix(short).lstrip("/")
    with tempfile.TemporaryDirectory(prefix="template-", ignore_cleanup_errors=True) as name:
        clone = Path(name) / "template"
        try:
            git(Path(name), "clone", "--quiet", "--no-checkout", "--", address, str(clone))
        except GitError as error:
            raise RefusedError(
                "unreachable", _no_secret(str(error)), source=_no_secret(source)
            ) from None
        yield Template(clone)


def _no_secret(text: str) -> str:
    """The text without a password that stands in an address."""
    return re.sub(r"(?<=://)[^/@\s]+@", "", text)
