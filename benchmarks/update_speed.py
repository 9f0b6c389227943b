"""`copier update` and `preview-update` of an app beside Copier's own floor: as many plain files.

    python benchmarks/update_speed.py [rounds]

The app is updated from the working tree to a next release that changes some twenty of its files;
the floor is `copier update` of the same files, of the same sizes and with the same changes, from a
template that renders nothing. All three are commands in a process of their own, taken in turn, on
the same disk. Prints medians and their ratios to the floor.
"""

import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.kit import HERE, ON_CALL, answers, files, forget_this_machine, generate, releases
from tests.releases.snapshot import commit, git
from tests.updates.matrix import NEXT, with_next
from tests.updates.preview import COMMAND, save

TARGET = 1.3
UPDATE = [sys.executable, "-m", "copier", "update", "--quiet", "--defaults"]


def started(template: Path, app: Path) -> Path:
    """An app of the first release, committed."""
    generate(template, app, answers(), ref=HERE)
    git(app, "init", "--quiet", "--initial-branch=main")
    return save(app)


def plain(template: Path, folder: Path, scratch: Path) -> Path:
    """A template of the plain files of each release's app."""
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=main")
    for release in (HERE, NEXT):
        shutil.rmtree(folder / "template", ignore_errors=True)
        made = generate(template, scratch / release, answers(), ref=release)
        shutil.copytree(made, folder / "template")
        # The record of the answers is the one file that Copier has to write.
        (folder / "template/.copier-answers.yml").unlink()
        record = folder / "template/{{ _copier_conf.answers_file }}.jinja"
        record.write_text("{{ _copier_answers | to_nice_yaml }}")
        asked = "".join(f"{name}: x\n" for name in ON_CALL)
        (folder / "copier.yml").write_text(f"_subdirectory: template\n{asked}")
        commit(folder, release, release)
    return folder


def spent() -> float:
    """CPU seconds of all processes that this one has waited for, and of theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def seconds(app: Path, command: list[str]) -> tuple[float, float]:
    """How long the command takes, and how much CPU; the app is as before afterwards."""
    before, start = spent(), time.perf_counter()
    subprocess.run(
        command, cwd=app, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    taken = time.perf_counter() - start, spent() - before
    git(app, "reset", "--quiet", "--hard")
    git(app, "clean", "-fdxq")
    return taken


def main(rounds: int) -> int:
    """Measure; 1 when a target is missed."""
    with tempfile.TemporaryDirectory() as name:
        base = Path(name).resolve()
        forget_this_machine(base / "settings")
        ours = with_next(releases(base / "repository"), base / "ours")
        floor = started(plain(ours, base / "floor", base), base / "floor-app")
        app = started(ours, base / "app")
        count = len(files(app))
        if count != len(files(floor)):
            raise SystemExit("The floor has other files than the app.")
        work = {"floor": (floor, UPDATE), "update": (app, UPDATE), "preview": (app, COMMAND)}
        times: dict[str, list[tuple[float, float]]] = {kind: [] for kind in work}
        for _ in range(rounds):
            for kind, (folder, command) in work.items():
                times[kind].append(seconds(folder, command))
    floors = [statistics.median(one) for one in zip(*times["floor"], strict=True)]
    missed = False
    for kind, taken in times.items():
        wall, cpu = zip(*taken, strict=True)
        ratio = statistics.median(wall) / floors[0]
        missed = missed or ratio > TARGET
        least, most, median = min(wall), max(wall), statistics.median(wall)
        print(
            f"{kind:>8}: median {median:.2f} s, {least:.2f} to {most:.2f}, {ratio:.2f} x the floor"
        )
        used = statistics.median(cpu)
        print(f"{'CPU':>8}: median {used:.2f} s, {used / floors[1]:.2f} x the floor's")
    print(f"{count} files; target: at most {TARGET} x")
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]) if sys.argv[1:] else 7))
