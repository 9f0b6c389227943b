"""What a cold start on Lambda costs: from run.sh until the adapter sees readiness.

    python -m benchmarks.cold_start_aws FUNCTION --store REDIS_URL [--rounds 5]

FUNCTION is what `sam build` made of an app with Redis: its .aws-sam/build/AppFunction. Beside it,
in the same run and from the same folder, a bare FastAPI app on uvicorn starts.
"""

import argparse
import os
import statistics
import time
from pathlib import Path

import httpx2
import psutil

from tests.deploy.aws import free_port
from tests.kit import interpreter

BARE = """
import os, uvicorn
from fastapi import FastAPI
app = FastAPI()
app.get("/healthz")(lambda: {})
uvicorn.run(app, port=int(os.environ["PORT"]), log_level="error")
"""
SETTINGS = {"APP_ENV": "development", "PROVIDERS": "openai", "OPENAI_API_KEY": "sk-0123456789"}


def start(command: list[str], function: Path, store: str) -> tuple[float, float]:
    """CPU and wall seconds until /healthz answers 200."""
    port = free_port()
    place = {"PATH": f"{Path(interpreter('3.13')).parent}{os.pathsep}{os.defpath}"}
    environment = {**place, **SETTINGS, "PORT": str(port), "REDIS_URL": store}
    began = time.perf_counter()
    process = psutil.Popen(command, cwd=function, env=environment)
    try:
        with httpx2.Client(trust_env=False) as http:
            while process.poll() is None:
                try:
                    if http.get(f"http://127.0.0.1:{port}/healthz").status_code == 200:
                        spent = process.cpu_times()
                        return spent.user + spent.system, time.perf_counter() - began
                except httpx2.TransportError:
                    time.sleep(0.01)
        raise SystemExit("the function did not start")
    finally:
        process.kill()
        process.wait()


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("function", type=Path)
    parser.add_argument("--store", required=True, help="the URL of a Redis")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    function = options.function.resolve()
    cases = {"bare": ["python3", "-c", BARE], "app": [str(function / "run.sh")]}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for _ in range(options.rounds):
        for name, command in cases.items():
            found[name].append(start(command, function, options.store))
    print(f"{'':8}{'CPU s':>8}{'wall s':>8}")
    medians = {
        name: [statistics.median(x) for x in zip(*rows, strict=True)]
        for name, rows in found.items()
    }
    for name, (cpu, wall) in medians.items():
        print(f"{name:8}{cpu:8.2f}{wall:8.2f}")
    ratios = [ours / bare for ours, bare in zip(medians["app"], medians["bare"], strict=True)]
    print(f"{'ratio':8}{ratios[0]:8.2f}{ratios[1]:8.2f}")


if __name__ == "__main__":
    main()
