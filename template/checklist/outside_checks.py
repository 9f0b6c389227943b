"""What is looked at on a live deployment: few requests, and hardly any that cost something."""

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import httpx2

from app.foundation.project import load_project
from app.foundation.settings import Settings

CHAT = "/v1/chat/completions"
CLOSED = ("/metrics", "/docs", "/openapi.json")
HEADERS = (
    "x-content-type-options",
    "x-frame-options",
    "referrer-policy",
    "content-security-policy",
)
BODY_BYTES = Settings.model_fields["max_body_bytes"].default
# How far the long question goes over the limit: far enough for any way of counting.
OVER_THE_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class Finding:
    """Whether it is as it should be, and what was seen."""

    holds: bool
    seen: str


class Deployment:
    """A live app, and the bounded number of ways in which it is asked."""

    MOST_REQUESTS: ClassVar[int] = 20
    # The question, one more for the headers, and the long one if its limit should be missing.
    MOST_CALLS: ClassVar[int] = 3
    MAX_OUTPUT: ClassVar[int] = 16

    def __init__(self, http: httpx2.Client, admin_token: str, app_key: str) -> None:
        self.host = http.base_url.host
        self._http = http
        self._admin = {"Authorization": f"Bearer {admin_token}"}
        self._caller = {"Authorization": f"Bearer {app_key}"}
        self._left = self.MOST_REQUESTS

    @property
    def longest_text(self) -> str:
        """A question over the limit that this folder's settings have by default."""
        limit = int(Settings.model_fields["max_input_tokens"].default)
        return " hello" * (limit + OVER_THE_LIMIT)

    def get(self, path: str) -> httpx2.Response:
        """As a stranger."""
        return self._send("GET", path, {})

    def metrics(self) -> httpx2.Response:
        """As the owner."""
        return self._send("GET", "/metrics", self._admin)

    def ask(self, text: str, *, key: str | None = None, **fields: Any) -> httpx2.Response:
        """As a caller: few tokens, of input and of output."""
        headers = self._caller | ({"Idempotency-Key": key} if key else {})
        messages = [{"role": "user", "content": text}]
        body = {"model": "auto", "messages": messages, "max_tokens": self.MAX_OUTPUT, **fields}
        return self._send("POST", CHAT, headers, json=body)

    def ask_as_stranger(self) -> httpx2.Response:
        """Without a key."""
        return self._send("POST", CHAT, {}, json={"messages": []})

    def spent(self) -> float:
        """What the app says that its day has cost, in dollars."""
        found = re.search(r"^llm_app_daily_cost_usd (\S+)", self.metrics().text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def _send(
        self, method: str, path: str, headers: dict[str, str], **content: Any
    ) -> httpx2.Response:
        if self._left == 0:
            raise ValueError(f"more than {self.MOST_REQUESTS} requests")
        self._left -= 1
        return self._http.request(method, path, headers=headers, **content)


def _answered() -> str:
    """A question that gets an answer: where the app has knowledge, one about a document's title."""
    if not load_project().knowledge:
        return "Say hello."
    folder = import_module("app.launch.evidence.folder")
    title = re.sub(r"[\W_]+", " ", folder.documents(folder.FOLDER)[0].stem)
    return f"{title}?"


def _code(answer: httpx2.Response) -> str:
    return str(answer.json()["error"]["code"])


def health(app: Deployment) -> Finding:
    """It lives, and could answer."""
    alive, ready = app.get("/healthz"), app.get("/readyz")
    seen = f"/healthz {alive.status_code}, /readyz {ready.status_code}"
    return Finding((alive.status_code, ready.status_code) == (200, 200), seen)


def tls(app: Deployment) -> Finding:
    """Only through TLS, with a certificate that this machine trusts; browsers are told so."""
    strict = app.get("/healthz").headers.get("strict-transport-security", "-")
    clear = f"http://{app.host}/healthz"
    try:
        status = httpx2.get(clear, follow_redirects=False, timeout=5).status_code
    except httpx2.HTTPError:
        status = 0  # nothing listens without TLS
    seen = f"Strict-Transport-Security: {strict}, http: {status or 'closed'}"
    return Finding("max-age=" in strict and not 200 <= status < 300, seen)


def headers(app: Deployment) -> Finding:
    """The security headers that browsers look for."""
    found = app.get("/healthz").headers
    missing = [name for name in HEADERS if name not in found]
    request_id = found.get("x-request-id", "")
    seen = f"{len(HEADERS) - len(missing)} of {len(HEADERS)}, X-Request-ID {bool(request_id)}"
    return Finding(not missing and bool(request_id), f"{seen} {' '.join(missing)}".strip())


def closed(app: Deployment) -> Finding:
    """A stranger reads neither metrics nor the description of the API."""
    statuses = {path: app.get(path).status_code for path in CLOSED}
    seen = ", ".join(f"{path} {status}" for path, status in statuses.items())
    return Finding(all(status in {401, 403, 404} for status in statuses.values()), seen)


def key(app: Deployment) -> Finding:
    """A stranger asks nothing."""
    answer = app.ask_as_stranger()
    return Finding(answer.status_code == 401, f"status {answer.status_code} {_code(answer)}")


def oversized(app: Deployment) -> Finding:
    """A body that is too large is refused. In a field that is refused as well, so it is free."""
    answer = app.ask("Hello", padding="x" * BODY_BYTES)
    seen = f"{BODY_BYTES} bytes: status {answer.status_code}"
    return Finding(answer.status_code == 413, seen)


def tokens(app: Deployment) -> Finding:
    """A question over the token limit is refused before it is paid for."""
    answer = app.ask(app.longest_text)
    seen = f"{len(app.longest_text) // 6} tokens: status {answer.status_code}"
    return Finding(answer.status_code == 400 and _code(answer) == "context_length_exceeded", seen)


def replay(app: Deployment) -> Finding:
    """One key, one execution: the second answer is the first, and another payload is refused."""
    name = f"checklist-{uuid.uuid4().hex}"
    question = _answered()
    first, second = (app.ask(question, key=name) for _ in range(2))
    other = app.ask(f"{question} Please.", key=name)
    replayed = second.headers.get("idempotency-replayed")
    same = first.status_code == 200 and second.content == first.content and replayed == "true"
    statuses = f"{first.status_code}, {second.status_code}, {other.status_code}"
    return Finding(same and other.status_code == 422, f"{statuses}, replayed: {replayed}")


def limits(app: Deployment) -> Finding:
    """The headers of an answer state a limit, and what is left of it."""
    answer = app.ask(_answered())
    policy, state = (answer.headers.get(name, "") for name in ("ratelimit-policy", "ratelimit"))
    quota, left = re.search(r"q=(\d+)", policy), re.search(r"r=(\d+)", state)
    counted = quota is not None and left is not None and int(left[1]) < int(quota[1])
    return Finding(counted, f"RateLimit-Policy: {policy or '-'}; RateLimit: {state or '-'}")


# By name: the item that it belongs to (or none), and the check.
CHECKS: dict[str, tuple[str, Callable[[Deployment], Finding]]] = {
    "health": ("", health),
    "tls": ("", tls),
    "headers": ("", headers),
    "closed": ("", closed),
    "key": ("", key),
    "oversized": ("5.1", oversized),
    "tokens": ("5.1", tokens),
    "replay": ("4.3", replay),
    "limits": ("4.1", limits),
}
# What nobody can see from outside without doing harm.
UNSEEN = (
    *("1.1", "1.2", "2.1", "2.2", "3.1", "3.2", "3.3", "4.2", "5.2"),
    *("L2", "L3", "L4", "L5", "L6", "L8", "L9", "L10"),
)
