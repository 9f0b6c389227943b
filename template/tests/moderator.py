"""A server that speaks OpenAI's moderation wire, and does as it is told."""

import gzip
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from app.providers.formats import MAX_ANSWER_BYTES

Way = Literal["judge", "fail", "hang", "garbage", "nonsense", "nothing", "bomb", "deep"]
# More than any answer may have, in a few KB.
BOMB = gzip.compress(b" " * (MAX_ANSWER_BYTES + 1) + b'{"results": [{"flagged": false}]}')


class Moderator:
    """Flags what holds the word `flagword`, and keeps what it was asked, with which key."""

    def __init__(self) -> None:
        self.way: Way = "judge"
        self.asked: list[tuple[str, str, str]] = []
        self._ended = threading.Event()
        own = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                own.asked.append((self.path, body["input"], self.headers["Authorization"] or ""))
                if own.way == "hang":
                    own._ended.wait(10)
                status, content = own._answer(body)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                if content is BOMB:
                    self.send_header("Content-Encoding", "gzip")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, args=[0.02], daemon=True).start()

    def _answer(self, body: dict[str, Any]) -> tuple[int, bytes]:
        if self.way == "fail":
            return 500, b'{"error": {"message": "no"}}'
        if self.way == "garbage":
            return 200, b"<html>"
        if self.way == "nonsense":
            return 200, b'{"results": 7}'
        if self.way == "nothing":
            return 200, b'{"results": []}'
        if self.way == "deep":
            return 200, b"[" * 100_000
        if self.way == "bomb":
            return 200, BOMB
        flagged = "flagword" in body["input"]
        result = {"flagged": flagged, "categories": {"violence": flagged}, "category_scores": {}}
        told = {"id": f"modr-{time.time()}", "model": body["model"], "results": [result]}
        return 200, json.dumps(told).encode()

    def close(self) -> None:
        """Listen no longer."""
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()
