"""A whole request with every guard on, beside a naive app without any, in one run.

    python benchmarks/request_cost.py [--stores sqlite] [--rounds 5] [--seconds 3]

The app is generated from the working tree and served as in production: keys, limits, caps, log
file, metrics. The naive one (naive_app.py) is FastAPI and the official SDK, the obvious way, in
the same Python, on the same server. One worker process each; they are asked in turn by the same
`wrk`, and ask the same provider (fast_provider.py, a process of its own). Medians over the rounds.

The machine's cores are shared by the load, the provider and the app, so two numbers are given:
requests per second, and CPU time per request of the measured process with all its threads.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.apps import cpu_seconds, free_port, installed, python_of, serving, store_server
from benchmarks.stores import STORES

HERE = Path(__file__).parent
CALLERS = 64
CHUNKS = 200
MODEL = "gpt-6-luna"
PROVIDER_KEY = "sk-benchmark-0123456789"
# Wide limits: every request is checked against them, and none is refused.
WIDE = "1000000"


@dataclass(frozen=True, slots=True)
class Case:
    """What is asked, by how many clients at once, and what is to be reached."""

    name: str
    clients: int
    stream: bool = False
    keyed: bool = False
    fields: str = ""  # more of the body, such as `,"temperature":0`
    distinct: bool = False  # no question comes twice
    least_ratio: float | None = None
    most_added_ms: float | None = None


CASES = (
    Case("plain", 16, least_ratio=1.0),
    Case("plain, Idempotency-Key", 16, keyed=True),
    Case("plain, one client", 1, most_added_ms=2.0),
    Case(f"stream of {CHUNKS}", 16, stream=True, least_ratio=3.0),
    Case(f"stream of {CHUNKS}, one client", 1, stream=True),
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of wrk against one server."""

    per_second: float
    p50_ms: float
    cpu_ms: float


def ask(port: int, pid: int, case: Case, seconds: int) -> Sample:
    """Load one server. Ends the benchmark when a single request failed."""
    environment = os.environ | {
        "STREAM": str(int(case.stream)),
        "KEYED": str(int(case.keyed)),
        "FIELDS": case.fields,
        "DISTINCT": str(int(case.distinct)),
        "CALLERS": str(CALLERS),
    }
    command = ["wrk", "-t1", f"-c{case.clients}", f"-d{seconds}s", "-s", str(HERE / "ask.lua")]
    before = cpu_seconds(pid)
    ended = subprocess.run(
        [*command, f"http://127.0.0.1:{port}"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    spent = cpu_seconds(pid) - before
    told = json.loads(ended.stdout.splitlines()[-1])
    if told["failed"] or not told["requests"]:
        sys.exit(f"{case.name}: {told['failed']} requests failed\n{ended.stdout}")
    requests = told["requests"]
    return Sample(requests / told["seconds"], told["p50_ms"], spent * 1000 / requests)


@contextmanager
def provider(folder: Path, gap_ms: float) -> Iterator[tuple[int, int]]:
    """The fake provider: its port and its process."""
    port = free_port()
    command = [sys.executable, str(HERE / "fast_provider.py"), str(port)]
    command += ["--chunks", str(CHUNKS), "--gap", str(gap_ms)]
    with serving(HERE, command, port, {}, folder / "provider.log") as pid:
        yield port, pid


def production(store: dict[str, str], provider_port: int, port: int) -> dict[str, str]:
    """The settings of the guarded app."""
    keys = ",".join(f"caller{number}:caller-key-{number:04}" for number in range(CALLERS))
    return store | {
        "APP_ENV": "production",
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "ADMIN_TOKEN": "admin-0123456789",
        "APP_API_KEYS": keys,
        "TRUSTED_PROXIES": "127.0.0.1/32",
        "OPENAI_API_KEY": PROVIDER_KEY,
        "OPENAI_BASE_URL": f"http://127.0.0.1:{provider_port}/v1",
        "OPENAI_MODEL": MODEL,
        "REQUESTS_PER_MINUTE": WIDE,
        "REQUESTS_PER_MINUTE_PER_IP": WIDE,
        "DAILY_COST_CAP_USD": "100000",
    }


def measure(store: str, rounds: int, seconds: int, pause: float, gap_ms: float) -> bool:
    """Print the table of one store; True when every target is reached."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        app = installed(store, folder)
        settings = stack.enter_context(store_server(app))
        provider_port, provider_pid = stack.enter_context(provider(folder, gap_ms))
        python = python_of(app)
        ports = {"naive": free_port(), "app": free_port()}
        environment = {
            "OPENAI_API_KEY": PROVIDER_KEY,
            "OPENAI_BASE_URL": f"http://127.0.0.1:{provider_port}/v1",
            "OPENAI_MODEL": MODEL,
        }
        naive = [python, "-m", "uvicorn", "naive_app:app", "--port", str(ports["naive"])]
        naive += ["--no-access-log", "--log-level", "warning"]
        served = [python, "-c", "from app.cli import serve; serve()"]
        guarded = production(settings, provider_port, ports["app"])
        pids = {
            "naive": stack.enter_context(
                serving(HERE, naive, ports["naive"], environment, folder / "naive.log")
            ),
            "app": stack.enter_context(
                serving(app, served, ports["app"], guarded, folder / "app.log")
            ),
        }
        for case in CASES[0], CASES[3]:
            alone = ask(provider_port, provider_pid, case, 1)
            print(f"the provider alone, {case.name}: {alone.per_second:.0f}/s")
        for kind in pids:  # both load what they load once
            for case in CASES[0], CASES[3]:
                ask(ports[kind], pids[kind], case, 1)
        samples: dict[tuple[Case, str], list[Sample]] = {}
        for _ in range(rounds):
            for case in CASES:
                for kind, pid in pids.items():
                    taken = ask(ports[kind], pid, case, seconds)
                    samples.setdefault((case, kind), []).append(taken)
                    time.sleep(pause)
        _check_guards(ports["app"], folder / "app.log")
    return report(store, samples)


def _check_guards(port: int, log: Path) -> None:
    """The guards were on: the log has its lines, and the metrics count."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/metrics", headers={"Authorization": "Bearer admin-0123456789"}
    )
    with urllib.request.urlopen(request) as answer:  # noqa: S310
        text = answer.read().decode()
    counted = next(
        float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith("llm_app_requests_total") and '/v1/chat/completions"' in line
    )
    with log.open() as lines:
        logged = sum('"message": "POST /v1/chat/completions 200"' in line for line in lines)
    print(f"logged {logged} requests, counted {counted:.0f}")
    if not logged >= counted > 0:
        sys.exit("the log and the metrics do not agree")


def report(store: str, samples: dict[tuple[Case, str], list[Sample]]) -> bool:
    """Print medians and ratios."""
    print(f"\n{store}: the guarded app beside the naive one (medians)\n")
    print(
        f"{'':28}{'requests/s':>18}{'ratio':>8}{'p50 ms':>18}{'added':>8}"
        f"{'CPU ms/request':>18}{'ratio':>8}"
    )
    reached = True
    for case in dict.fromkeys(case for case, _ in samples):
        rows = {kind: samples[case, kind] for kind in ("naive", "app")}
        rate = {k: statistics.median(s.per_second for s in rows[k]) for k in rows}
        p50 = {k: statistics.median(s.p50_ms for s in rows[k]) for k in rows}
        cpu = {k: statistics.median(s.cpu_ms for s in rows[k]) for k in rows}
        ratio, added = rate["app"] / rate["naive"], p50["app"] - p50["naive"]
        target = ""
        if case.least_ratio is not None:
            target = _judge(f">= {case.least_ratio:g} x", ratio >= case.least_ratio)
        if case.most_added_ms is not None:
            target = _judge(f"added <= {case.most_added_ms:g} ms", added <= case.most_added_ms)
        reached &= "missed" not in target
        print(
            f"{case.name:28}{rate['naive']:9.0f}{rate['app']:9.0f}{ratio:8.2f}"
            f"{p50['naive']:9.2f}{p50['app']:9.2f}{added:8.2f}"
            f"{cpu['naive']:9.2f}{cpu['app']:9.2f}{cpu['naive'] / cpu['app']:8.2f}{target}"
        )
    return reached


def _judge(target: str, reached: bool) -> str:
    return f"  {target}: {'reached' if reached else 'missed'}"


def main() -> int:
    """Measure every store that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stores", default=",".join(STORES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--pause", type=float, default=0, help="seconds between two samples")
    parser.add_argument("--gap", type=float, default=0, help="milliseconds between two chunks")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing: apt install wrk")
    reached = [
        measure(store, options.rounds, options.seconds, options.pause, options.gap)
        for store in options.stores.split(",")
    ]
    return int(not all(reached))


if __name__ == "__main__":
    raise SystemExit(main())
