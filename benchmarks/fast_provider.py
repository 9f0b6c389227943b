"""A provider on the OpenAI wire that costs next to nothing, for benchmarks. It checks nothing.

    python benchmarks/fast_provider.py PORT [--chunks 200] [--gap 0]

A whole answer, or a stream of so many chunks, each of which leaves in a packet of its own: with
`--gap` (in milliseconds) between two of them, or as fast as the event loop turns. Prints "ready".
"""

import argparse
import asyncio
import json
import signal
from typing import Any, cast

USAGE = {"prompt_tokens": 12, "completion_tokens": 200, "total_tokens": 212}
_WORDS = ("Every", " answer", " is", " made", " of", " tokens,", " one", " after", " another.")


def whole(chunks: int) -> bytes:
    """The whole answer, head and body."""
    text = "".join(_WORDS[i % len(_WORDS)] for i in range(chunks))
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text, "refusal": None, "annotations": []},
        "logprobs": None,
        "finish_reason": "stop",
    }
    body = json.dumps(_head("chat.completion") | {"choices": [choice], "usage": USAGE}).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def stream(chunks: int) -> list[bytes]:
    """The stream's packets: head, role, so many texts, finish, usage, end mark."""
    deltas: list[dict[str, str]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": _WORDS[i % len(_WORDS)]} for i in range(chunks)]
    events = [_chunk([_choice(delta, None)], None) for delta in deltas]
    events += [_chunk([_choice({}, "stop")], None), _chunk([], USAGE), "[DONE]"]
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    packets = [head]
    for event in events:
        data = f"data: {event}\n\n".encode()
        packets.append(f"{len(data):x}\r\n".encode() + data + b"\r\n")
    packets[-1] += b"0\r\n\r\n"
    return packets


def _head(kind: str) -> dict[str, Any]:
    return {
        "id": "chatcmpl-CqHcTdvfGqNSyjUzL2vWvTUVkC2aG",
        "object": kind,
        "created": 1_764_000_000,
        "model": "gpt-6-luna",
        "service_tier": "default",
        "system_fingerprint": None,
    }


def _choice(delta: dict[str, str], finish: str | None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}


def _chunk(choices: list[dict[str, Any]], usage: dict[str, int] | None) -> str:
    body = _head("chat.completion.chunk") | {"choices": choices, "usage": usage}
    return json.dumps(body | {"obfuscation": "x7Qm2Lr9"}, separators=(",", ":"))


_VERDICT = b'{"id":"modr-1","model":"omni-moderation-latest","results":[{"flagged":false}]}'
_MODERATED = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
    % (
        len(_VERDICT),
        _VERDICT,
    )
)


class Connection(asyncio.Protocol):
    """One kept connection; requests come one after another."""

    def __init__(self, answer: bytes, packets: list[bytes], gap: float) -> None:
        self._answer = answer
        self._packets = packets
        self._gap = gap
        self._received = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(body) < length:
            return
        self._received = b""
        if b"/moderations" in head:
            self._transport.write(_MODERATED)
        elif b'"stream":true' in body.replace(b" ", b""):
            self._play(0)
        else:
            self._transport.write(self._answer)

    def _play(self, number: int) -> None:
        if self._transport.is_closing():
            return
        self._transport.write(self._packets[number])
        if number + 1 < len(self._packets):
            loop = asyncio.get_running_loop()
            loop.call_later(self._gap, self._play, number + 1)


async def serve(port: int, chunks: int, gap: float) -> None:
    """Answer until SIGTERM."""
    answer, packets = whole(chunks), stream(chunks)
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    server = await loop.create_server(lambda: Connection(answer, packets, gap), "127.0.0.1", port)
    print("ready", flush=True)
    await stopped.wait()
    server.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--chunks", type=int, default=200)
    parser.add_argument("--gap", type=float, default=0.0)
    options = parser.parse_args()
    asyncio.run(serve(options.port, options.chunks, options.gap / 1000))
