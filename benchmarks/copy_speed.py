"""`copier copy` of this template beside Copier's own floor: as many plain files, nothing rendered.

    python benchmarks/copy_speed.py [rounds]

Both are commands in a process of their own, taken in turn, from folders on the same disk; the
floor's files are the generated app's own, of the same sizes. Prints medians and their ratio.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.kit import ON_CALL, export, files

TARGET = 1.3


def copy(template: Path, target: Path) -> float:
    """Seconds that one `copier copy` takes."""
    data = [part for name, value in ON_CALL.items() for part in ("--data", f"{name}={value}")]
    command = [sys.executable, "-m", "copier", "copy", "--quiet", "--defaults", *data]
    start = time.perf_counter()
    subprocess.run([*command, str(template), str(target)], check=True)
    return time.perf_counter() - start


def main(rounds: int) -> int:
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        os.environ["COPIER_SETTINGS_PATH"] = str(base / "settings.yml")
        (base / "settings.yml").write_text("{}\n")
        ours, floor, target = export(base / "ours"), base / "floor", base / "app"
        copy(ours, target)
        shutil.copytree(target, floor / "template")
        (floor / "copier.yml").write_text(
            "_subdirectory: template\n" + "".join(f"{name}: x\n" for name in ON_CALL)
        )
        count = len(files(target))
        times: dict[str, list[float]] = {"ours": [], "floor": []}
        for _ in range(rounds):
            for kind, template in (("ours", ours), ("floor", floor)):
                shutil.rmtree(target)
                times[kind].append(copy(template, target))
    medians = {kind: statistics.median(taken) for kind, taken in times.items()}
    for kind, taken in times.items():
        print(f"{kind:>5}: median {medians[kind]:.2f} s, {min(taken):.2f} to {max(taken):.2f}")
    ratio = medians["ours"] / medians["floor"]
    print(f"ratio: {ratio:.2f} for {count} files (target: at most {TARGET})")
    return int(ratio > TARGET)


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]) if sys.argv[1:] else 7))
