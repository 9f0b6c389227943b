"""What each launch safeguard adds to a request, whole and streamed, in one run.

    python benchmarks/safeguard_cost.py [--rounds 5] [--seconds 2]

One app a safeguard, beside one that has none of them switched on, all with SQLite and the same
provider (fast_provider.py); asked in turn by the same `wrk`. What counts is the CPU time per
request of the app's process with all its threads: medians over the rounds, and the ratio to the
bare app.
What the objectives add is in every one of them: see slo_cost.py.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.apps import free_port, installed, python_of, serving
from benchmarks.request_cost import CHUNKS, Case, Sample, ask, production, provider

STORE = "sqlite"
CLIENTS = 8
RULES = 20
COLD, DETERMINISTIC = "", ',"temperature":0'
TRIAL = {
    "CANDIDATE": "openai:on-trial",
    "CANDIDATE_INPUT_USD_PER_MTOK": "1",
    "CANDIDATE_OUTPUT_USD_PER_MTOK": "2",
    "SHADOW_DAILY_COST_CAP_USD": "1000",
}
# What an app does unless it is told otherwise, and the bare one does not.
BARE = {"FEEDBACK_SECONDS": "0", "FAILURES_TTL_SECONDS": "0"}
WAYS = {"whole": False, f"stream of {CHUNKS}": True}


@dataclass(frozen=True)
class Variant:
    """An app with one safeguard, by its settings, and the questions it is asked."""

    name: str
    settings: dict[str, str] = field(default_factory=dict)
    rules: str | None = ""  # the policy's file; None: the one that an app is generated with
    fields: str = COLD
    distinct: bool = False


def rules(count: int) -> str:
    """A policy of so many rules, of all kinds, none of which finds anything."""
    kinds = (
        'action = "block"\nwords = ["nightjar {n}", "쏙독새 {n}"]',
        'action = "abstain"\npatterns = ["maximum {1,9}dose {1,9}{n}"]',
        'action = "redact"\ndata = ["card", "email"]',
    )
    texts = [kinds[n % len(kinds)].replace("{n}", str(n)) for n in range(count)]
    return "\n".join(f'[[rule]]\nname = "rule-{n}"\n{text}\n' for n, text in enumerate(texts))


VARIANTS = (
    Variant("bare"),
    Variant("policy: as generated", rules=None),
    Variant(f"policy: {RULES} rules", rules=rules(RULES)),
    Variant(
        "cache: each question new", {"CACHE_TTL_SECONDS": "300"}, "", DETERMINISTIC, distinct=True
    ),
    Variant("cache: each question kept", {"CACHE_TTL_SECONDS": "300"}, "", DETERMINISTIC),
    Variant("moderation", {"MODERATION": "open"}),
    Variant(
        "failures and ratings kept", {"FEEDBACK_SECONDS": "3600"} | {"FAILURES_TTL_SECONDS": "60"}
    ),
    Variant("canary: half of the users", TRIAL | {"CANARY_PERCENT": "50"}),
    Variant("shadow: every answer", TRIAL | {"SHADOW_PERCENT": "100"}),
)


def measure(rounds: int, seconds: int) -> dict[tuple[str, str], list[Sample]]:
    """Start them all and ask them in turn."""
    samples: dict[tuple[str, str], list[Sample]] = {}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        app = installed(STORE, folder)
        provider_port, _ = stack.enter_context(provider(folder, 0))
        command = [python_of(app), "-c", "from app.cli import serve; serve()"]
        running: list[tuple[Variant, int, int]] = []
        for number, variant in enumerate(VARIANTS):
            port = free_port()
            store = {"DATABASE_URL": f"sqlite:///{folder / f'{number}.db'}"}
            settings = production(store, provider_port, port) | BARE | variant.settings
            if variant.rules is not None:
                file = folder / f"{number}.toml"
                file.write_text(variant.rules, encoding="utf-8")
                settings["POLICY_FILE"] = str(file)
            log = folder / f"{number}.log"
            pid = stack.enter_context(serving(app, command, port, settings, log))
            running.append((variant, port, pid))
        for taken in range(rounds + 1):
            for variant, port, pid in running:
                for way, stream in WAYS.items():
                    case = Case(
                        f"{variant.name}, {way}",
                        CLIENTS,
                        stream=stream,
                        fields=variant.fields,
                        distinct=variant.distinct,
                    )
                    sample = ask(port, pid, case, seconds)
                    if taken:  # the first time they load what they load once
                        samples.setdefault((variant.name, way), []).append(sample)
    return samples


def report(samples: dict[tuple[str, str], list[Sample]]) -> None:
    """Print medians and ratios."""
    print(
        f"\n{'CPU ms per request (medians)':30}" + "".join(f"{way:>16}{'ratio':>8}" for way in WAYS)
    )
    for variant in VARIANTS:
        cells = ""
        for way in WAYS:
            spent, bare = (
                statistics.median(sample.cpu_ms for sample in samples[one, way])
                for one in (variant.name, VARIANTS[0].name)
            )
            cells += f"{spent:16.2f}{spent / bare:8.2f}"
        print(f"{variant.name:30}{cells}")


def main() -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing: apt install wrk")
    report(measure(options.rounds, options.seconds))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
