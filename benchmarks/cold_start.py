"""What a cold start costs on Vercel and on Lambda: from the process's start until /healthz answers.

    python benchmarks/cold_start.py [--targets vercel,aws] [--rounds 5]

Each target's own tool builds the function of an app with Redis; it runs as the platform starts it.
Beside it, in the same run and from the same bundle, a bare FastAPI app starts the same way. npm is
needed for Vercel; the tools are kept below build/.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.apps import cpu_seconds, free_port
from tests.deploy.aws_tools import install
from tests.deploy.stage import store_server
from tests.deploy.vercel import Function
from tests.kit import answers, export, generate, interpreter, run
from tests.releases.snapshot import ROOT

BARE = """
from fastapi import FastAPI
app = FastAPI()
app.get("/healthz")(lambda: {})
"""
SERVE = """
import os, uvicorn
uvicorn.run(app, port=int(os.environ["PORT"]), log_level="error")
"""
SETTINGS = {"APP_ENV": "development", "PROVIDERS": "openai", "OPENAI_API_KEY": "sk-0123456789"}
PAUSE_SECONDS = 0.005

# One start: CPU and wall seconds until the function answers.
Start = Callable[[], tuple[float, float]]


def main() -> None:
    """Measure, and print a table for each target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", default="vercel,aws")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    for target in options.targets.split(","):
        with tempfile.TemporaryDirectory() as scratch:
            app = generate(
                export(Path(scratch) / "template"),
                Path(scratch) / "app",
                answers(deploy=target, store="redis"),
            )
            run(app, "git", "init", "--quiet")
            run(app, "uv", "lock", "--quiet")
            with store_server(app) as store:
                _measure(target, CASES[target](app, SETTINGS | store), options.rounds)


def _measure(target: str, cases: dict[str, Start], rounds: int) -> None:
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for number in range(rounds):
        for name, start in cases.items():
            print(f"{target}: {name}, round {number + 1} of {rounds}", file=sys.stderr)
            found[name].append(start())
    rows = {
        name: [statistics.median(values) for values in zip(*starts, strict=True)]
        for name, starts in found.items()
    }
    rows["ratio"] = [ours / bare for ours, bare in zip(rows["app"], rows["bare"], strict=True)]
    print(f"{target:8}{'CPU s':>8}{'wall s':>8}")
    for name, (cpu, wall) in rows.items():
        print(f"{name:8}{cpu:8.2f}{wall:8.2f}")


def vercel(app: Path, settings: dict[str, str]) -> dict[str, Start]:
    """The function of `vercel build`, served by Vercel's runtime; the bare one in its place."""
    function = Function.built(app)
    bundle, bare = app.parent / "bundle", app.parent / "bare"
    function.unpack(bundle)
    shutil.copytree(bundle, bare)
    (bare / "app/asgi.py").write_text(BARE)
    for compiled in bare.rglob("asgi.cpython-*.pyc"):
        compiled.unlink()

    def start(folder: Path) -> tuple[float, float]:
        began = time.perf_counter()
        with function.instance(folder, settings) as instance, instance.http() as http:
            http.get("/healthz").raise_for_status()
            return cpu_seconds(instance.pid), time.perf_counter() - began

    return {"bare": lambda: start(bare), "app": lambda: start(bundle)}


def aws(app: Path, settings: dict[str, str]) -> dict[str, Start]:
    """The function of `sam build`, started by its run.sh; the bare one by the same Python."""
    install(ROOT / "build/aws").run(app, "sam", "build")
    function = app / ".aws-sam/build/AppFunction"
    path = f"{Path(interpreter('3.13')).parent}{os.pathsep}{os.defpath}"

    def start(*command: str) -> tuple[float, float]:
        port = free_port()
        began = time.perf_counter()
        with _running(command, function, {"PATH": path, **settings, "PORT": str(port)}) as process:
            while process.poll() is None:
                try:
                    httpx2.get(f"http://127.0.0.1:{port}/healthz", trust_env=False)
                except httpx2.TransportError:
                    time.sleep(PAUSE_SECONDS)
                else:
                    return cpu_seconds(process.pid), time.perf_counter() - began
        raise SystemExit(f"{command[0]} did not start")

    return {
        "bare": lambda: start("python3", "-c", BARE + SERVE),
        "app": lambda: start(str(function / "run.sh")),
    }


@contextmanager
def _running(
    command: tuple[str, ...], folder: Path, environment: dict[str, str]
) -> Iterator[psutil.Popen]:
    process = psutil.Popen(command, cwd=folder, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


CASES = {"vercel": vercel, "aws": aws}

if __name__ == "__main__":
    main()
