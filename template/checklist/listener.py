"""A server on this machine that takes whatever is sent to it: alerts, traces, error reports."""

import gzip
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


class Listener:
    """Use it as a context manager. With `hang` it takes a request and never answers it.

    `answer` is what it says, as JSON. It can `die`, and `revive` at the same address. While it is
    `busy` it takes nothing and says 503, and what came is in `turned_away`.
    """

    def __init__(self, *, hang: bool = False, answer: bytes = b"") -> None:
        self.received: list[tuple[str, bytes]] = []  # each request's path and body
        self.turned_away: list[str] = []
        self.busy = False
        self._over = threading.Event()
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                if listener.busy:
                    listener.turned_away.append(body.decode("utf-8", "replace"))
                    self.send_error(503)
                    return
                listener.received.append((self.path, body))
                if hang:
                    listener._over.wait()
                    return
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._handler = Handler
        self._server = self._open(0)

    def _open(self, port: int) -> ThreadingHTTPServer:
        server = ThreadingHTTPServer(("127.0.0.1", port), self._handler)
        server.daemon_threads = True
        return server

    @property
    def address(self) -> str:
        """Where it listens: host and port."""
        return f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._serve()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.die()

    def _serve(self) -> None:
        threading.Thread(target=self._server.serve_forever, args=[0.02], daemon=True).start()

    def die(self) -> None:
        """From now on it refuses connections."""
        self._server.shutdown()
        self._server.server_close()

    def revive(self) -> None:
        """Listen again."""
        self._server = self._open(self._server.server_port)
        self._serve()

    @property
    def paths(self) -> list[str]:
        """Where it was sent so far."""
        return [path for path, _ in self.received]

    @property
    def bodies(self) -> list[bytes]:
        """What was sent so far."""
        return [body for _, body in self.received]

    @property
    def texts(self) -> list[str]:
        """What was sent so far, as text."""
        return [body.decode("utf-8", "replace") for body in self.bodies]

    def wait_for(self, count: int, timeout: float) -> list[str]:
        """Wait until `count` requests have come, or the time is over; what has come."""
        until(lambda: len(self.bodies) >= count, timeout)
        return self.texts


def until(true: Callable[[], bool], timeout: float) -> bool:
    """Wait until something is true; False when it is not after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (now := true()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return now
