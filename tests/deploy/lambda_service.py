"""Lambda on this machine: a function URL in front, the Runtime API behind, one instance between.

As on Lambda, an instance gets one request at a time, a response is streamed as it comes, and all of
the instance is frozen in the moment when its response has ended, until the next request.
"""

import json
import os
import queue
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

END_OF_PRELUDE = bytes(8)
PREFIX = "/2018-06-01/runtime"
ANSWER_SECONDS = 60.0


@dataclass
class Invocation:
    """One event on its way through the instance; `chunks` ends with None."""

    event: dict[str, Any]
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    chunks: "queue.Queue[bytes | None]" = field(default_factory=queue.Queue)


class LambdaService:
    """One function. `url` is its function URL; the instance starts with the first request."""

    def __init__(self, command: list[str], environment: Mapping[str, str], log: Path) -> None:
        self._command = command
        self._environment = environment
        self._log = log
        self._instance: subprocess.Popen[bytes] | None = None
        self._events: queue.Queue[Invocation] = queue.Queue()
        self._running: dict[str, Invocation] = {}
        self._one_at_a_time = threading.Lock()
        self._api = _serve(_RuntimeApi, self)
        self._front = _serve(_FunctionUrl, self)
        self.frozen = False
        # Whom requests come from: this machine's own address would be the adapter's.
        self.client_address = "198.51.100.7"
        self.url = f"http://127.0.0.1:{self._front.server_port}"

    def log(self) -> str:
        """What the function has written."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def exit_code(self, seconds: float) -> int:
        """The exit code of an instance that ends by itself."""
        self._wake()
        assert self._instance is not None
        return self._instance.wait(seconds)

    def end_instance(self) -> None:
        """Take the instance away without a word, as Lambda does; the next request starts one."""
        if self._instance is not None:
            self._signal(signal.SIGKILL)
            self._instance.wait()
        self._instance, self.frozen = None, False

    def close(self) -> None:
        self.end_instance()
        for server in (self._front, self._api):
            server.shutdown()
            server.server_close()

    @contextmanager
    def invoke(self, event: dict[str, Any]) -> Iterator[Iterator[bytes]]:
        """Send an event to the instance; what it answers, chunk by chunk."""
        with self._one_at_a_time:
            invocation = Invocation(event)
            self._running[invocation.request_id] = invocation
            self._wake()
            self._events.put(invocation)
            yield self._chunks(invocation)
            del self._running[invocation.request_id]

    def _chunks(self, invocation: Invocation) -> Iterator[bytes]:
        while (chunk := invocation.chunks.get(timeout=ANSWER_SECONDS)) is not None:
            yield chunk

    def next_event(self) -> Invocation:
        """What the Runtime API gives to an instance that asks."""
        return self._events.get()

    def answered(self, request_id: str, chunk: bytes | None) -> None:
        """A chunk of an answer, or with None its end: there the instance is frozen."""
        if chunk is None:
            self.frozen = True
            self._signal(signal.SIGSTOP)
        self._running[request_id].chunks.put(chunk)

    def _wake(self) -> None:
        if self._instance is None:
            with self._log.open("ab") as output:
                self._instance = subprocess.Popen(
                    self._command,
                    env={
                        **self._environment,
                        "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._api.server_port}",
                    },
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        elif self.frozen:
            self._signal(signal.SIGCONT)
        self.frozen = False

    def _signal(self, number: signal.Signals) -> None:
        assert self._instance is not None
        if self._instance.poll() is None:
            os.killpg(self._instance.pid, number)


def _serve(handler: type[BaseHTTPRequestHandler], service: LambdaService) -> ThreadingHTTPServer:
    bound = type(handler.__name__, (handler,), {"service": service})
    server = ThreadingHTTPServer(("127.0.0.1", 0), bound)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
    return server


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    service: LambdaService

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _RuntimeApi(_Handler):
    """What Lambda's documentation calls the runtime API."""

    def do_GET(self) -> None:
        assert self.path == f"{PREFIX}/invocation/next", self.path
        invocation = self.service.next_event()
        self.answer(
            200,
            json.dumps(invocation.event).encode(),
            Lambda_Runtime_Aws_Request_Id=invocation.request_id,
            Lambda_Runtime_Deadline_Ms=str(int((time.time() + 900) * 1000)),
            Lambda_Runtime_Invoked_Function_Arn="arn:aws:lambda:us-east-1:123456789012:function:f",
        )

    def do_POST(self) -> None:
        request_id = self.path.split("/")[-2]
        assert self.path == f"{PREFIX}/invocation/{request_id}/response", self.path
        assert self.headers["Lambda-Runtime-Function-Response-Mode"] == "streaming"
        while size := int(self.rfile.readline(), 16):
            self.service.answered(request_id, self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        self.service.answered(request_id, None)
        self.answer(202)


class _FunctionUrl(_Handler):
    """Turns a request into an event (payload format 2.0), and streams the answer."""

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        with self.service.invoke(
            function_url_event(self, body, self.service.client_address)
        ) as chunks:
            prelude = b""
            while END_OF_PRELUDE not in prelude:
                prelude += next(chunks)
            head, _, first = prelude.partition(END_OF_PRELUDE)
            told = json.loads(head)
            self.send_response(told["statusCode"])
            for name, value in told["headers"].items():
                if name != "content-length":
                    self.send_header(name, value)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            if first:
                self._send(first)
            for chunk in chunks:
                self._send(chunk)
            self.wfile.write(b"0\r\n\r\n")

    def _send(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()


def function_url_event(request: BaseHTTPRequestHandler, body: str, client: str) -> dict[str, Any]:
    """The event that a function URL makes of a request."""
    path, _, query = request.path.partition("?")
    headers = {name.lower(): value for name, value in request.headers.items()}
    forwarded = [*filter(None, [headers.get("x-forwarded-for")]), client]
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": {
            **headers,
            "x-forwarded-for": ", ".join(forwarded),
            "x-forwarded-proto": "https",
        },
        "requestContext": {
            "domainName": "test.lambda-url.us-east-1.on.aws",
            "http": {"method": request.command, "path": path, "sourceIp": client},
            "stage": "$default",
        },
        "body": body,
        "isBase64Encoded": False,
    }
