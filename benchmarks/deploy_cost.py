"""What a deploy with Docker costs: the image's size, and the time from `git clone` to an answer.

    python benchmarks/deploy_cost.py [--store redis] [--rounds 3]

Each round clones an app, builds its image with no cache of layers or packages, starts the compose
stack, waits until all of it is healthy and asks the demo provider a question; then the code
changes, and the same is done with what the cache has. Base images are there already: what pulling
them takes is the network's. It needs an engine, or root on Debian for a throwaway one.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.deploy.engine import Engine, running_engine
from tests.deploy.project import DEMO, Project
from tests.deploy.stage import question
from tests.kit import answers, export, generate, run
from tests.releases.snapshot import ROOT, commit

MEGABYTE = 1_000_000
MOST_MEGABYTES = 250
MOST_SECONDS = 120.0


def prepared(template: Path, folder: Path, store: str) -> Path:
    """A repository of an app with its lock, as its developer pushed it."""
    generate(template, folder, answers(store=store))
    run(folder, "uv", "lock", "--quiet")
    run(folder, "git", "init", "--quiet", "--initial-branch=main")
    commit(folder, "Start from Survival Kit", "v1.0.0")
    return folder


def started(project: Project) -> None:
    """Build, start, and have an answer."""
    project.compose("build")
    project.up()
    with project.http() as client:
        answer = client.post("/v1/chat/completions", json=question("Hello"))
    answer.raise_for_status()


def measured(engine: Engine, repository: Path, folder: Path) -> tuple[float, float, float]:
    """Seconds from nothing, seconds after a change of the code, the image in megabytes."""
    engine.docker("builder", "prune", "--all", "--force")
    began = time.perf_counter()
    run(folder, "git", "clone", "--quiet", repository, "app")
    project = Project(folder / "app", engine)
    project.override({**DEMO, "PUBLISHED_PORT": "0"})
    try:
        started(project)
        cold = time.perf_counter() - began
        (image,) = json.loads(engine.docker("image", "inspect", project.name))
        (project.folder / "app/yours/system_prompt.md").write_text("Be brief.\n")
        began = time.perf_counter()
        started(project)
        return cold, time.perf_counter() - began, image["Size"] / MEGABYTE
    finally:
        project.compose("down", "--volumes", "--timeout", "1")


def main() -> int:
    """Measure, print a table, and say whether the targets are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", choices=("sqlite", "redis", "postgres"), default="redis")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        template = export(base / "kit")
        repository = prepared(template, base / "repository", options.store)
        with running_engine(ROOT / "build/docker", template / "template") as engine:
            for number in range(options.rounds):
                folder = base / str(number)
                folder.mkdir()
                rows.append(measured(engine, repository, folder))
    cold, warm, size = (statistics.median(column) for column in zip(*rows, strict=True))
    print(f"from git clone to an answer: {cold:.1f} s (target: at most {MOST_SECONDS:.0f})")
    print(f"after a change of the code: {warm:.1f} s")
    print(f"image: {size:.0f} MB (target: at most {MOST_MEGABYTES})")
    return int(cold > MOST_SECONDS or size > MOST_MEGABYTES)


if __name__ == "__main__":
    raise SystemExit(main())
