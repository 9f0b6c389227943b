"""The guarded model: what routes and your own features ask. There is no other way to a provider.

from app.model import Model

@router.post("/recipes")
async def recipe(dish: Dish, model: Model) -> Recipe:
    return await model.typed(f"A recipe for {dish.name}", Recipe)
"""

import json
from collections.abc import AsyncGenerator, Coroutine, Iterator, Sequence
from contextlib import aclosing
from typing import Annotated, Any, Literal, TypedDict, TypeVar

from fastapi import Depends, Request
from pydantic import BaseModel, ValidationError

from app import wire
from app.edge.responses import EventStream, until_disconnect
from app.edge.scope import messages_of, peer_of, record_of
from app.exchange import Context, Live, Whole
from app.foundation.errors import AppError
from app.guarded import RequestPath
from app.standards.spending.identity import Caller

T = TypeVar("T")
Shape = TypeVar("Shape", bound=BaseModel)


class Turn(TypedDict):
    """One message of a conversation, as OpenAI's clients write it."""

    role: Literal["system", "user", "assistant"]
    content: str


Question = str | Sequence[Turn]


class GuardedModel:
    """The model, for one HTTP request.

    Every call is counted, limited, paid for and logged as that request's caller, within that
    request's time budget: it is not for work that goes on after the response. All methods raise
    `AppError`; let it pass, and the client gets the right status and message. A question is a text,
    or a conversation (the newest message last). With `knowledge=True` its answer rests on the
    app's knowledge, where the app has any, and cites it; a typed answer never does.
    """

    def __init__(self, path: RequestPath, caller: Caller, request: Request) -> None:
        self._path = path
        self._caller = caller
        self._request = request
        self._deadline = path.deadline()
        self._calls = 0

    async def ask(
        self, question: Question, *, max_tokens: int | None = None, knowledge: bool = False
    ) -> str:
        """The answer's text. `max_tokens` bounds it below MAX_OUTPUT_TOKENS."""
        whole = await self.complete(_request(question, max_tokens=max_tokens), knowledge)
        return str(_message_of(whole)["content"])

    async def typed(
        self, question: Question, shape: type[Shape], *, max_tokens: int | None = None
    ) -> Shape:
        """The answer as a pydantic model: the provider is held to its JSON schema.

        Where the app abstains there is none: content_policy_violation, with the reason.
        """
        schema = wire.JsonSchema.model_validate(
            {"name": shape.__name__, "schema": strict_schema(shape), "strict": True}
        )
        answer_format = wire.Format(type="json_schema", json_schema=schema)
        asked = _request(question, max_tokens=max_tokens, response_format=answer_format)
        message = _message_of(await self.complete(asked, knowledge=False))
        text = str(message["content"])
        if message.get("abstained"):
            raise AppError("content_policy_violation", detail="reason", reason=text)
        try:
            return shape.model_validate_json(text)
        except ValidationError as error:
            # Without the answer's text, which the log must not show.
            raise AppError("providers_unavailable", detail="shape", retry_after=1.0) from (
                ValueError(f"{error.error_count()} fields do not fit {shape.__name__}")
            )

    async def stream(
        self, question: Question, *, max_tokens: int | None = None, knowledge: bool = False
    ) -> AsyncGenerator[str, None]:
        """The answer's text in pieces. An answer that breaks off raises `AppError`."""
        return _texts(await self._open(question, max_tokens, knowledge))

    async def sse(
        self, question: Question, *, max_tokens: int | None = None, knowledge: bool = False
    ) -> EventStream:
        """A response that streams the answer: one JSON string an event, `[DONE]` at the end."""
        return EventStream(_sse(await self._open(question, max_tokens, knowledge)), self._deadline)

    async def complete(self, request: wire.ChatRequest, knowledge: bool = True) -> Whole:
        """A request of the OpenAI wire, answered whole."""
        context = self._context(knowledge)
        return await self._while_wanted(context, self._path.complete(request, context))

    async def open_stream(self, request: wire.ChatRequest, knowledge: bool = True) -> Live | Whole:
        """A request of the OpenAI wire, answered in events (whole when it is a replay)."""
        context = self._context(knowledge)
        return await self._while_wanted(context, self._path.stream(request, context))

    async def _while_wanted(self, context: Context, work: Coroutine[Any, Any, T]) -> T:
        if context.idempotency_key is not None:
            # Its client will come back for the answer: the work is not thrown away.
            return await work
        return await until_disconnect(self._request.receive, work)

    async def _open(
        self, question: Question, max_tokens: int | None, knowledge: bool
    ) -> Live | Whole:
        asked = _request(question, max_tokens=max_tokens, stream=True)
        opened = await self.open_stream(asked, knowledge)
        if isinstance(opened, Whole) and opened.status >= 400:
            raise _error_in(opened.body)
        return opened

    def models(self) -> list[str]:
        """What `model` may say."""
        return self._path.models()

    def _context(self, knowledge: bool) -> Context:
        scope, headers = self._request.scope, self._request.headers
        self._calls += 1
        return Context(
            caller=self._caller,
            # A route that asks twice makes two executions of one key.
            route=f"{self._request.method} {scope['path']} {self._calls}",
            record=record_of(scope),
            messages=messages_of(scope),
            deadline=self._deadline,
            idempotency_key=headers.get("idempotency-key"),
            no_store="no-store" in ",".join(headers.getlist("cache-control")).lower(),
            knowledge=knowledge,
        )


async def guarded_model(request: Request) -> GuardedModel:
    """The dependency behind `Model`. Raises `AppError` for a request without a valid key."""
    state, scope = request.app.state, request.scope
    caller = state.identity.caller(request.headers, peer_of(scope))
    record_of(scope).caller = caller.name
    return GuardedModel(state.path, caller, request)


Model = Annotated[GuardedModel, Depends(guarded_model)]


def strict_schema(shape: type[BaseModel]) -> dict[str, Any]:
    """A model's JSON schema as strict structured outputs want it: closed, every field required."""
    return dict(_strict(shape.model_json_schema()))


def _strict(node: Any) -> Any:
    if isinstance(node, list):
        return [_strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    strict = {key: _strict(value) for key, value in node.items() if key != "default"}
    if node.get("type") == "object" and isinstance(node.get("properties"), dict):
        strict["properties"] = {name: _strict(sub) for name, sub in node["properties"].items()}
        strict["additionalProperties"] = False
        strict["required"] = list(node["properties"])
    return strict


def _request(question: Question, **options: Any) -> wire.ChatRequest:
    turns = [{"role": "user", "content": question}] if isinstance(question, str) else list(question)
    asked = {name: value for name, value in options.items() if value is not None}
    return wire.ChatRequest.model_validate({"messages": turns, **asked})


def _message_of(whole: Whole) -> dict[str, Any]:
    if whole.status >= 400:
        raise _error_in(whole.body)
    return dict(json.loads(whole.body)["choices"][0]["message"])


async def _texts(opened: Live | Whole) -> AsyncGenerator[str, None]:
    if isinstance(opened, Whole):
        for text, error in _replayed(opened):
            if error is not None:
                raise _error_in(error)
            yield text
        return
    async with aclosing(opened.events) as events:
        async for event in events:
            if event.error is not None:
                raise event.error
            if event.text:
                yield event.text


def _replayed(whole: Whole) -> Iterator[tuple[str, bytes | None]]:
    """The texts of a replayed stream, and the error that it ended with."""
    for line in whole.body.split(b"\n"):
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        if "error" in event:
            yield "", line[6:]
        for choice in event.get("choices", ()):
            if text := choice["delta"].get("content"):
                yield text, None


def _error_in(body: bytes) -> AppError:
    """The error that a stored answer holds."""
    error = json.loads(body)["error"]
    return AppError(error["code"], param=error["param"], told=error["message"])


async def _sse(opened: Live | Whole) -> AsyncGenerator[bytes, None]:
    if isinstance(opened, Whole):
        for text, error in _replayed(opened):
            yield b"data: " + error + b"\n\n" if error is not None else _text_event(text)
        yield wire.DONE
        return
    async with aclosing(opened.events) as events:
        async for event in events:
            if event.error is not None or event.data == wire.DONE:
                yield event.data
            elif event.text:
                yield _text_event(event.text)


def _text_event(text: str) -> bytes:
    return b"data: " + json.dumps(text, ensure_ascii=False).encode("utf-8", "replace") + b"\n\n"
