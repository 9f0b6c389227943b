"""Keep a release for the update tests, and rebuild the history of releases without the network.

A release is kept as `<version>.tar.xz`: what Copier needs to render it, without large files. A
large file stands in `large.json` inside the archive by its SHA-256, and comes back from the working
tree while that still has the same file, and from `large/<sha256>` otherwise.

    python tests/releases/snapshot.py take 0.1.0
"""

import hashlib
import io
import json
import lzma
import os
import subprocess
import sys
import tarfile
from pathlib import Path

from packaging.version import Version

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PARTS = ("copier.yml", "checks.jinja", "hooks", "template")
LARGE = 256 * 1024
MANIFEST = "large.json"


def kept() -> list[str]:
    """The versions of the kept releases, oldest first."""
    return sorted(
        (path.name.removesuffix(".tar.xz") for path in HERE.glob("*.tar.xz")), key=Version
    )


def take(version: str) -> Path:
    """Keep what is committed as release `version`. The same commit gives the same bytes."""
    if str(Version(version)) != version:
        raise SystemExit(f"Write the version as {Version(version)}.")
    target = HERE / f"{version}.tar.xz"
    if target.exists():
        raise SystemExit(f"{target.relative_to(ROOT)} is kept already: a release never changes.")
    if git(ROOT, "status", "--porcelain", "--", *PARTS):
        raise SystemExit("Commit first: a release is what is committed.")
    large: dict[str, str] = {}
    plain = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(git(ROOT, "archive", "HEAD", "--", *PARTS))) as source,
        tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for member in sorted(
            filter(tarfile.TarInfo.isfile, source), key=lambda member: member.name
        ):
            content = source.extractfile(member)
            assert content is not None
            data = content.read()
            if len(data) > LARGE:
                large[member.name] = hashlib.sha256(data).hexdigest()
            else:
                add(archive, member.name, data, 0o755 if member.mode & 0o100 else 0o644)
        add(archive, MANIFEST, json.dumps(large, indent=2).encode() + b"\n", 0o644)
    target.write_bytes(lzma.compress(plain.getvalue(), preset=9 | lzma.PRESET_EXTREME))
    return target


def rebuild(repository: Path) -> None:
    """Make `repository` a git repository with one commit and one annotated tag a kept release."""
    repository.mkdir(parents=True, exist_ok=True)
    git(repository, "init", "--quiet", "--initial-branch=main")
    for version in kept():
        git(repository, "rm", "-r", "--quiet", "--force", "--ignore-unmatch", ".")
        unpack(version, repository)
        commit(repository, f"Release {version}", f"v{version}")


def unpack(version: str, folder: Path) -> None:
    """Write the files of a kept release into `folder`."""
    with tarfile.open(HERE / f"{version}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    manifest = folder / MANIFEST
    large: dict[str, str] = json.loads(manifest.read_text(encoding="utf-8"))
    manifest.unlink()
    for name, digest in large.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(find_large(version, name, digest))


def find_large(version: str, name: str, digest: str) -> bytes:
    """A large file of a release, from the working tree or from `large/`."""
    for path in (ROOT / name, HERE / "large" / digest):
        if path.is_file():
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() == digest:
                return data
    raise FileNotFoundError(
        f"{name} of release {version} is no longer in the working tree. Keep its old content: "
        f"git show v{version}:{name} > tests/releases/large/{digest}"
    )


def commit(repository: Path, message: str, tag: str) -> None:
    """Commit everything in `repository` and tag it, the way a release is tagged."""
    git(repository, "add", "--all", "--force")
    git(repository, "commit", "--quiet", "--allow-empty", "--message", message)
    git(repository, "tag", "--annotate", tag, "--message", message)


def git(folder: Path, *arguments: str) -> bytes:
    """Run git in `folder` with an identity of its own and no configuration but the repository's."""
    person = {"NAME": "Survival Kit", "EMAIL": "kit@survival.test"}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {f"GIT_AUTHOR_{name}": value for name, value in person.items()}
    environment |= {f"GIT_COMMITTER_{name}": value for name, value in person.items()}
    environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    return subprocess.run(
        ["git", *arguments], cwd=folder, env=environment, check=True, stdout=subprocess.PIPE
    ).stdout


def add(archive: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    """Add one file, without anything that differs between machines."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), mode
    archive.addfile(member, io.BytesIO(data))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["take", version]:
            print(f"Kept: {take(version).relative_to(ROOT)}")
        case _:
            raise SystemExit(__doc__)
