"""`python -m tests.fake_provider --port 9000 [--delay 0.05]`: a provider to point an app at."""

import argparse
import contextlib
import threading

from .behaviours import Reply
from .provider import FakeProvider


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m tests.fake_provider", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9000, help="0 takes a free one")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds between two words")
    options = parser.parse_args()
    with FakeProvider(options.host, options.port) as fake:
        fake.always(Reply(delay_between=options.delay))
        print(f"OPENAI_BASE_URL={fake.openai_base_url}")
        print(f"ANTHROPIC_BASE_URL={fake.anthropic_base_url}")
        print(f"GEMINI_BASE_URL={fake.gemini_base_url}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            while not threading.Event().wait(3600):  # without a timeout Windows misses Ctrl-C
                pass


if __name__ == "__main__":
    main()
