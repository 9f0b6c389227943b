"""A server on this machine that takes whatever is sent to it: alerts, traces, error reports."""

import gzip
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


class Listener:
    """Use it as a context manager. With `hang` it takes a request and never answers it."""

    def __init__(self, *, hang: bool = False) -> None:
        self.bodies: list[bytes] = []
        self._over = threading.Event()
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                listener.bodies.append(body)
                if hang:
                    listener._over.wait()
                    return
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    @property
    def address(self) -> str:
        """Where it listens: host and port."""
        return f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=[0.02], daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def texts(self) -> list[str]:
        """What was sent so far."""
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
