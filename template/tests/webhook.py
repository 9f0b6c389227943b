"""A webhook that alerts are sent to: it listens on a socket and keeps what it is sent."""

import asyncio
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "canaryToken0123456789"


class Webhook:
    """Keeps what it is sent, and answers as it is told: `statuses`, then 200."""

    def __init__(self) -> None:
        self.received: list[dict[str, str]] = []
        self.statuses: list[int] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.received.append(json.loads(body))
                self.send_response(hook.statuses.pop(0) if hook.statuses else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"json://127.0.0.1:{self._server.server_port}/{TOKEN}"
        threading.Thread(target=self._server.serve_forever, args=[0.02], daemon=True).start()

    @property
    def titles(self) -> list[str]:
        """The titles of what was received."""
        return [message["title"] for message in self.received]

    async def has(self, count: int) -> list[dict[str, str]]:
        """What was received, which must become `count` messages and stay so."""
        return await asyncio.to_thread(self.wait_for, count, 20.0)

    def wait_for(
        self, count: int, seconds: float, about: str = "", quiet: float = 0.1
    ) -> list[dict[str, str]]:
        """What was received with `about` in its title, as `has`; it must stay so for `quiet`."""
        deadline = time.monotonic() + seconds
        while len(self._about(about)) < count and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(quiet)
        found = self._about(about)
        assert len(found) == count, self.received
        return found

    def _about(self, words: str) -> list[dict[str, str]]:
        return [message for message in self.received if words in message["title"]]

    def close(self) -> None:
        """Listen no longer."""
        self._server.shutdown()
        self._server.server_close()
