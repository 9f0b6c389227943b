"""Debian packages for the tests, unpacked below a folder and not installed."""

import re
import shutil
from pathlib import Path

from tests.kit import run

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
INSTALLED_HERE = Path("/var/lib/dpkg/status")


class NoMirrorError(Exception):
    """apt knows no mirror of Debian here."""


def suite_of_this_machine(otherwise: str) -> str:
    """The name of the Debian that runs here."""
    found = re.search(r"^VERSION_CODENAME=(\w+)$", Path("/etc/os-release").read_text(), re.M)
    return found[1] if found else otherwise


class Debian:
    """apt with a state of its own in `cache`, which is emptied; the machine's stays as it is.

    `suites` are taken from the machine's mirror; without them, what the machine is made of. With
    `installed`, what the machine has already is not brought again. Raises `NoMirrorError`.
    """

    def __init__(self, cache: Path, *suites: str, installed: bool = False) -> None:
        shutil.rmtree(cache, ignore_errors=True)
        for folder in ("sources", "state/lists/partial", "apt/archives/partial"):
            (cache / folder).mkdir(parents=True)
        (cache / "empty").touch()
        self._cache = cache
        options = {
            "APT::Sandbox::User": "root",
            "Dir::Cache": cache / "apt",
            "Dir::State": cache / "state",
            "Dir::State::status": INSTALLED_HERE if installed else cache / "empty",
        }
        if suites:
            options |= {
                "Dir::Etc::SourceList": "/dev/null",
                "Dir::Etc::SourceParts": cache / "sources",
            }
            mirror = self._mirror()
            for suite in suites:
                source = f"deb [signed-by={KEYRING}] {mirror} {suite} main\n"
                (cache / f"sources/{suite}.list").write_text(source)
        self._settings = [f"-o{name}={value}" for name, value in options.items()]
        self._apt("update")

    def alone(self, *packages: str, into: Path) -> None:
        """Unpack these packages, and nothing that they need."""
        downloads = self._cache / "apt/archives"
        self._apt("download", *packages, folder=downloads)
        self._unpack(into)

    def with_all_they_need(self, *packages: str, into: Path) -> None:
        """Unpack these packages, and what they need."""
        self._apt("install", "--yes", "--no-install-recommends", "--download-only", *packages)
        self._unpack(into)

    def _apt(self, *arguments: str, folder: Path | None = None) -> None:
        run(folder or self._cache, "apt-get", "-qq", *self._settings, *arguments)

    def _mirror(self) -> str:
        uris = run(self._cache, "apt-get", "update", "--print-uris")
        found = re.search(r"'(\S+/debian/)dists/", uris)
        if not found:
            raise NoMirrorError("apt knows no mirror of Debian")
        return found[1]

    def _unpack(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        downloads = (self._cache / "apt/archives").glob("*.deb")
        # base-files first: it makes /bin and /lib links into /usr.
        for package in sorted(downloads, key=lambda path: not path.match("base-files_*")):
            run(folder, "dpkg-deb", "--extract", package, folder)
            package.unlink()
