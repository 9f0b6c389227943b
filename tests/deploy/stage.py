"""What an app meets in a test of a deployment: its store's server, and the fake provider."""

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Run in an app's folder: the throwaway servers of its own tests.
_SERVER = """
import sys
from pathlib import Path
from tests.servers import own_server, store_environment
with own_server() as server:
    for name, value in store_environment(Path("."), server.url).items():
        print(f"{name}={value}", flush=True)
    sys.stdin.read()
"""

# The fake provider cites nothing that it answers from.
UNCITED = {"EVIDENCE_REQUIRED": "false"}


def write_document(app: Path) -> None:
    """What `question` asks about, in an app that answers from documents."""
    text = "# Opening hours\n\nThe shop opens at nine.\n"
    (app / "knowledge/hours.md").write_text(text, encoding="utf-8")


def question(text: str = "Hello", stream: bool = False) -> dict[str, object]:
    """The body of a question that an app with documents can answer too."""
    content = f"{text}! What are the opening hours?"
    return {"model": "auto", "stream": stream, "messages": [{"role": "user", "content": content}]}


@contextmanager
def store_server(app: Path) -> Iterator[dict[str, str]]:
    """A throwaway server for an app's store, and the setting that leads the app to it."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        cwd=app,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    try:
        name, found, url = process.stdout.readline().strip().partition("=")
        assert found, "the store's server did not start"
        yield {name: url}
    finally:
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


def load_fakes(app: Path, name: str) -> Any:
    """The package of an app's fake provider, under a name of its own: here `tests` is another."""
    package = app / "tests/fake_provider"
    spec = importlib.util.spec_from_file_location(
        name, package / "__init__.py", submodule_search_locations=[str(package)]
    )
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
