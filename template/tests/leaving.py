"""A client that asks and leaves when the test says so, whatever has come until then."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.running import CALLERS, RunningApp


@contextmanager
def asked(app: RunningApp, body: dict[str, Any], **headers: str) -> Iterator[None]:
    """Alice's question, on a connection of its own that ends with the block.

    A client that gives up after some time may do so before a busy machine has read its question.
    """
    content = json.dumps(body).encode()
    given = {
        "Host": f"127.0.0.1:{app.port}",
        "Authorization": f"Bearer {CALLERS['alice']}",
        "Content-Type": "application/json",
        "Content-Length": str(len(content)),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    with socket.create_connection(("127.0.0.1", app.port), timeout=30) as client:
        client.sendall(f"POST /v1/chat/completions HTTP/1.1\r\n{head}\r\n".encode() + content)
        yield
