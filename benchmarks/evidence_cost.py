"""What looking every question up in documents adds to a request, beside the same without them.

    python benchmarks/evidence_cost.py [--passages 1000] [--requests 300]

An app with knowledge is generated from the working tree and served as in production, on this
Python, with its own fake provider. The documents are made of invented words, some common and most
rare, as in any language. Every question takes six words from one passage; four passages go to the
provider, and the answer cites one. Given is the CPU time per request of the app's process with all
its threads, and what an answer takes one after another.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.kit import answers, export, generate

MOST_RATIO = {"whole": 2.5, "stream": 2.0}
# Run in the app's folder: its own provider, its own way to start.
_INSIDE = """
import json, random, sys, time
from pathlib import Path
from indexing.build import build
from tests.fake_provider import FakeProvider, Reply
from tests.running import production, running_app

passages, requests = int(sys.argv[1]), int(sys.argv[2])
chance = random.Random(7)
syllables = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
words = ["".join(chance.choices(syllables, k=chance.randint(2, 4))) for _ in range(5000)]
weights = [1 / (rank + 10) for rank in range(len(words))]
folder = Path("measured")
(folder / "documents").mkdir(parents=True)
texts = [chance.choices(words, weights, k=110) for _ in range(passages)]
for start in range(0, passages, 10):
    parts = [f"## {' '.join(t[:3])}\\n\\n{' '.join(t)}.\\n" for t in texts[start : start + 10]]
    (folder / f"documents/{start}.md").write_text("\\n".join(parts), encoding="utf-8")
built = sum(build(folder / "documents", folder / "index.db").passages.values())
found = {"passages": built}
for used in (0, 4):
    with FakeProvider() as fake:
        fake.always(Reply("It says so [1]. " + "And so on. " * 40))
        place = folder / str(used)
        place.mkdir()
        index = (folder / "index.db").resolve()
        settings = production(fake, place, knowledge_file=index, evidence_passages=used)
        with running_app(settings, place) as app, app.http() as http:
            def ask(number, stream):
                said = " ".join(chance.sample(texts[number % passages], 6)) + f" {number}?"
                body = {"messages": [{"role": "user", "content": said}], "stream": stream}
                answer = http.post("/v1/chat/completions", json=body)
                assert answer.status_code == 200 and '"abstained"' not in answer.text, answer.text
            for stream in (False, True):
                for number in range(40):
                    ask(number, stream)
                worker = app.serving()
                cpu, began = sum(worker.cpu_times()[:2]), time.perf_counter()
                for number in range(requests):
                    ask(number, stream)
                spent = sum(worker.cpu_times()[:2]) - cpu
                took = time.perf_counter() - began
                found[f"{'stream' if stream else 'whole'} {used}"] = [
                    spent / requests * 1000, took / requests * 1000
                ]
print(json.dumps(found))
"""


def main() -> int:
    """Measure, print, and fail where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=300)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        app = folder / "app"
        generate(export(folder / "template"), app, answers(knowledge=True))
        command = [sys.executable, "-c", _INSIDE, str(options.passages), str(options.requests)]
        environment = os.environ | {"PYTHONPATH": str(app)}
        done = subprocess.run(command, cwd=app, env=environment, stdout=subprocess.PIPE, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"{found['passages']} passages; CPU (and time) in ms per request")
    missed = False
    for kind, most in MOST_RATIO.items():
        (without, without_took), (given, took) = found[f"{kind} 0"], found[f"{kind} 4"]
        ratio = given / without
        missed |= ratio > most
        print(
            f"  {kind:6}: {without:.2f} ({without_took:.2f}) without, {given:.2f} ({took:.2f}) with"
            f" documents: {ratio:.2f} x  <= {most} x: {'missed' if ratio > most else 'reached'}"
        )
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main())
