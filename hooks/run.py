"""Run one migration in an app: all of it, or nothing.

Copier calls it in the app's folder, once, in the update that crosses the migration's version:

    python hooks/run.py 0_3_0_move_settings

The migration is the module of that name beside this file, with one function:

    def changes(app: Path) -> dict[str, str | None]:

It reads the app and returns what is to be changed: a path below the app with the file's new text,
or with None for a file that goes. It writes nothing itself. Once that is written it has to return
nothing more. Only the standard library and PyYAML are there: it runs on Copier's Python.

It ends with 1, and the app as it was, when the migration fails. See hooks/README.md.
"""

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

HERE = Path(__file__).parent
NAME = re.compile(r"(\d+)_(\d+)_(\d+)_[a-z0-9_]+")
Changes = dict[str, str | None]


class MigrationError(Exception):
    """The migration does what none may do."""


def load(name: str, folder: Path = HERE) -> Callable[[Path], Changes]:
    """The function of a migration. Raises `MigrationError` where there is none."""
    spec = spec_from_file_location(name, folder / f"{name}.py")
    if not NAME.fullmatch(name) or spec is None or spec.loader is None:
        raise MigrationError(f"{name} is no name of a migration, such as 0_3_0_move_settings")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    changes: Callable[[Path], Changes] = module.changes
    return changes


def run(changes: Callable[[Path], Changes], app: Path) -> list[str]:
    """Make the changes in `app`; the paths that were changed.

    Raises what the migration raises, and `MigrationError` when it would change something again, or
    something outside of the app. The app is then as it was.
    """
    wanted = {_inside(app, name): text for name, text in changes(app).items()}
    before = {path: path.read_bytes() if path.exists() else None for path in wanted}
    try:
        for path, text in wanted.items():
            _write(path, None if text is None else text.encode("utf-8"))
        again = sorted(changes(app))
        if again:
            raise MigrationError(f"a second run would change {', '.join(again)} once more")
    except BaseException:
        for path, content in before.items():
            _write(path, content)
        raise
    return sorted(path.relative_to(app).as_posix() for path in wanted)


def _inside(app: Path, name: str) -> Path:
    path = app / name
    below = path.resolve().is_relative_to(app.resolve())
    if not below or Path(name).is_absolute() or ".git" in Path(name).parts:
        raise MigrationError(f"{name} is not a file of the app")
    return path


def _write(path: Path, content: bytes | None) -> None:
    """Let the file be `content` in one step, its mode as it was; None takes it away."""
    if content is None:
        path.unlink(missing_ok=True)
        return
    mode = path.stat().st_mode if path.exists() else 0o644
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(content)
    Path(file.name).chmod(mode & 0o777)
    os.replace(file.name, path)


def main(arguments: list[str]) -> int:
    """Run the migration that the command line names in the folder that it is called in."""
    [name] = arguments
    # Copier's standard output may be somebody's report.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            changed = run(load(name), Path.cwd())
        except Exception as error:
            print(f"hooks/{name}.py: {type(error).__name__}: {error}", file=sys.stderr)
            print(
                "The migration changed nothing. To go back to your last commit: "
                "git restore -SW . && git clean -fd\n"
                "마이그레이션은 아무것도 바꾸지 않았습니다. 마지막 커밋으로 돌아가려면: "
                "git restore -SW . && git clean -fd",
                file=sys.stderr,
            )
            return 1
    print(f"hooks/{name}.py: {', '.join(changed) or '-'}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
