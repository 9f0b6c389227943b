"""Docker secrets: one file a name in the folder `secrets`, which compose mounts to /run/secrets."""

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from app.foundation.project import load_project
from keychain.env_file import open_to_others, write_whole
from keychain.messages import say
from keychain.places import Held, Place, PlaceError
from keychain.values import NAME, POSTGRES_PASSWORD, brings_postgres, is_secret

# The user of a container must be able to read a file; the folder keeps this machine's others out.
FOLDER_MODE = 0o700
FILE_MODE = 0o644


def place(folder: Path) -> Place:
    """The folder beside compose.yaml."""
    return _Docker(folder / "secrets")


class _Docker:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.title = say("docker.title")

    def held(self) -> Held:
        """The files whose names are those of settings; the app takes the blanks away."""
        try:
            paths = self._folder.iterdir() if self._folder.is_dir() else ()
            found = [path for path in paths if NAME.fullmatch(path.name) and path.is_file()]
            texts = {path.name: path.read_text("utf-8").strip() for path in found}
        except (OSError, UnicodeDecodeError) as error:
            raise PlaceError(self.title, "docker.unreadable", reason=type(error).__name__) from None
        closed = say("docker.closed")
        problems = {path.name: closed for path in found if not _readable_by_a_container(path)}
        if found and open_to_others(self._folder):
            problems[f"{self._folder.name}/"] = say("docker.open")
        return Held({name: text for name, text in texts.items() if text}, problems=problems)

    def seen_by_the_app(self, local: Mapping[str, str], held: Held) -> dict[str, str]:
        """`.env` is handed over by compose.yaml and is stronger; so is the store that it brings."""
        seen = {**held.values, **{name: value for name, value in local.items() if value.strip()}}
        store = load_project().store
        if store == "redis":
            seen["REDIS_URL"] = "redis://redis:6379/0"
        elif brings_postgres():
            password = local.get(POSTGRES_PASSWORD)
            seen.pop("DATABASE_URL", None)
            if password:
                seen["DATABASE_URL"] = f"postgresql://app:{password}@postgres:5432/app"
            elif "DATABASE_URL" in held.values:
                seen["DATABASE_URL"] = held.values["DATABASE_URL"]
        return seen

    def accepts(self, name: str) -> bool:
        """Secrets alone: compose.yaml reads the rest, and its own password, from `.env`."""
        return is_secret(name) and name != POSTGRES_PASSWORD

    def send(self, values: Mapping[str, str]) -> Iterator[str]:
        """Write the files, each at once or not at all."""
        for name, value in values.items():
            try:
                self._folder.mkdir(exist_ok=True)
                self._folder.chmod(FOLDER_MODE)
                write_whole(self._folder / name, value, FILE_MODE)
            except OSError as error:
                raise PlaceError(
                    self.title, "docker.unwritable", name=name, reason=error.strerror
                ) from None
            yield name

    def afterwards(self, names: set[str]) -> str:
        """How compose learns of the files."""
        ordered = sorted(names)
        lines = ["services:", "  app:", "    secrets:", *(f"      - {name}" for name in ordered)]
        lines += ["secrets:"]
        for name in ordered:
            lines += [f"  {name}:", f"    file: ./secrets/{name}"]
        return say("docker.afterwards", lines="\n".join(lines))


def _readable_by_a_container(path: Path) -> bool:
    return os.name != "posix" or bool(path.stat().st_mode & stat.S_IROTH)
