"""The app as the Lambda Web Adapter serves it: a response ends when nothing is left to do.

Lambda freezes the process as soon as the response has ended, and may never wake it again. So the
end waits for what the request leaves behind: charges, alerts, telemetry. Everything before the end
leaves at once: the events of a stream, `[DONE]` among them.
"""

from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import main
from app.foundation.checks import Problem
from app.standards.environment import stop


def create_app() -> ASGIApp:
    """Build the app. A bad environment ends the process here, with exit code 78.

    So does shadow traffic: each response would wait for the candidate.
    """
    served = main.create_app()
    if served.state.settings.shadow_percent:
        stop([Problem("shadow_percent", "shadow_on_lambda")])
    return LastByte(served, served.state.finish)


class LastByte:
    """Holds back the end of each response until `finish` has returned."""

    def __init__(self, app: ASGIApp, finish: Callable[[], Awaitable[None]]) -> None:
        self._app = app
        self._finish = finish

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        held: list[Message] = []

        async def hold(message: Message) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                held.append(message)
            else:
                await send(message)

        try:
            await self._app(scope, receive, hold)
        finally:
            await self._finish()
            for message in held:
                await send(message)
