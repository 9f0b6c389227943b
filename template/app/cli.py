"""The commands of the app, each of them run as `uv run NAME`."""

import asyncio
import importlib
import importlib.util
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dotenv import dotenv_values

from app.foundation.project import load_project

FACTORY = "app.main:create_app"
KEEP_ALIVE_SECONDS = 65  # longer than a load balancer's 60, so it never meets a closed connection


def dev() -> None:
    """Serve on this machine and reload when a file changes; the demo provider without a key."""
    import uvicorn

    from app.preflight import check_environment, check_store, taken_port, tell_mistyped
    from app.standards.visibility.logs import configure_logs

    _go_home()
    os.environ.setdefault("PROVIDERS", ",".join(_usable_providers()))
    if os.environ["PROVIDERS"] == "demo":
        print("No provider key is set, so the demo provider answers. Put a key in .env.")
    _index_documents()
    tell_mistyped()
    settings = check_environment(taken_port)
    asyncio.run(check_store(settings))
    configure_logs(settings)  # of this process: each worker configures its own
    print(f"http://{settings.host}:{settings.port}", file=sys.stderr)
    uvicorn.run(
        FACTORY,
        factory=True,
        host=settings.host,
        port=settings.port,
        reload=True,
        reload_dirs=["app"],
        log_config=None,
        access_log=False,
        proxy_headers=False,
    )


def serve(factory: str = FACTORY) -> None:
    """Serve in production: several workers, and running answers finish before the process ends."""
    import uvicorn

    from app.edge.head import HeadLimit
    from app.preflight import check_environment, check_store, stale_index, tell_mistyped
    from app.standards.visibility.logs import configure_logs

    _go_home()
    # Checked once, here, before any worker starts or the port opens.
    tell_mistyped()
    settings = check_environment(stale_index)
    asyncio.run(check_store(settings))
    configure_logs(settings)  # of this process: each worker configures its own
    # uvicorn raises the signal again after its shutdown: a stop that was asked for is no failure.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with _shared_metrics(settings.web_concurrency):
        uvicorn.run(
            factory,
            factory=True,
            http=HeadLimit,
            host=settings.host,
            port=settings.port,
            workers=settings.web_concurrency,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # X-Forwarded-For is judged by TRUSTED_PROXIES alone
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=int(settings.time_budget_seconds) + 5,
        )


@contextmanager
def _shared_metrics(workers: int) -> Iterator[None]:
    """A folder where several workers share their metrics; one alone needs none, and no disk."""
    if workers == 1:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="metrics-", ignore_cleanup_errors=True) as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        yield


def checklist() -> None:
    """Run the checklist, which lies in the project's folder and in no installed package."""
    if importlib.util.find_spec("checklist") is None:
        sys.exit("The checklist is for development: run it in the project's folder.")
    from checklist.cli import main

    sys.exit(main())


def failures() -> None:
    """Show what has failed, and make tests of it."""
    from app.failures import main

    _go_home()
    sys.exit(main())


def knowledge() -> None:
    """Index the documents in `knowledge/`, or search them: in a project that has some."""
    if importlib.util.find_spec("indexing") is None:
        sys.exit("Documents are indexed in the folder of a project that answers from them.")
    sys.exit(importlib.import_module("indexing.cli").main())


def switch() -> None:
    """Turn a provider, a model or all spending off or on, while the app runs."""
    from app.switch import main

    _go_home()
    sys.exit(main())


def secrets() -> None:
    """Ask for secrets, look at them, send them; like the checklist, it lies in the project."""
    if importlib.util.find_spec("keychain") is None:
        sys.exit("Secrets are prepared in development: run it in the project's folder.")
    from keychain.cli import main

    sys.exit(main())


def stores() -> None:
    """Move the records of another store into the app's own."""
    from app.move import main

    _go_home()
    sys.exit(main())


def rollout() -> None:
    """Show how a candidate model does beside the proven one."""
    from app.rollout import main

    _go_home()
    sys.exit(main())


def preview_update() -> None:
    """Show what an update of the template would do; like the checklist, it lies in the project."""
    if importlib.util.find_spec("updates") is None:
        sys.exit("Updates are for development: preview them in the project's folder.")
    from updates.cli import main

    sys.exit(main())


def _go_home() -> None:
    """From a folder of the project into the project's own, where `.env` and SQLite's file lie.

    Otherwise the money of a store is spent, or a switch turned, that nobody else looks at.
    """
    home = Path(__file__).resolve().parents[1]
    if home in Path.cwd().parents and (home / "pyproject.toml").is_file():
        os.chdir(home)


def _index_documents() -> None:
    """Index the documents where they changed. What cannot be read is said, and changes nothing."""
    if load_project().knowledge and importlib.util.find_spec("indexing") is not None:
        importlib.import_module("indexing.cli").refresh()


def _usable_providers() -> list[str]:
    """The project's providers that have what they need in the environment or in `.env`."""
    try:
        known = {**dotenv_values(".env"), **os.environ}
    except UnicodeDecodeError:
        known = dict(os.environ)  # what is wrong with the file is said with the other settings
    if known.get("PROVIDERS"):
        return [str(known["PROVIDERS"])]
    needed = {"compatible": "COMPATIBLE_BASE_URL"}
    usable = [
        name
        for name in load_project().providers
        if (known.get(needed.get(name, f"{name.upper()}_API_KEY")) or "").strip()
    ]
    return usable or ["demo"]
