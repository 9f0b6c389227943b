"""How many edits survive an update without a conflict, over releases, edits and answers.

    python tests/updates/figure.py

It prints the tables of docs/updating.md, and what each conflict is about; it fails when an edit is
lost, or conflicts in a file that is the user's or mergeable.
"""

import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.kit import HERE, forget_this_machine, releases
from tests.updates.matrix import ANSWERS, NEXT, Matrix, Step, steps

NAMES = {HERE: "this one", NEXT: "a next one"}


def main() -> int:
    """Try every update; 1 when the goal is missed."""
    missed = False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        forget_this_machine(folder / "settings")
        matrix = Matrix(releases(folder / "repository"), folder)
        for step in steps():
            missed = _report(matrix, step) or missed
    return int(missed)


def _report(matrix: Matrix, step: Step) -> bool:
    """Print what an update from one release to another did; whether the goal was missed."""
    found: Counter[tuple[str, str]] = Counter()
    conflicts: Counter[str] = Counter()
    for named in ANSWERS:
        for what, kind, outcome in matrix.tried(step, named, edited=True).outcomes:
            found[kind, outcome] += 1
            if outcome != "kept":
                conflicts[f"{what} ({kind}): {outcome}"] += 1
    print(
        f"\n{' → '.join(NAMES.get(name, name) for name in step)}, {len(ANSWERS)} sets of answers\n"
    )
    print("| whose file | edits | kept | conflict | lost |\n| --- | --- | --- | --- | --- |")
    for kind in ("yours", "mergeable", "template"):
        kept, conflict, lost = (found[kind, outcome] for outcome in ("kept", "conflict", "lost"))
        edits = kept + conflict + lost
        print(f"| {kind} | {edits} | {kept} ({kept / edits:.1%}) | {conflict} | {lost} |")
    print()
    for what, times in conflicts.most_common():
        print(f"- {what}, {times} times")
    lost = sum(times for (_, outcome), times in found.items() if outcome == "lost")
    return bool(lost or found["yours", "conflict"] or found["mergeable", "conflict"])


if __name__ == "__main__":
    sys.exit(main())
