"""The function that Vercel calls, which `[tool.vercel]` in pyproject.toml names.

Between two requests its instance is frozen, and it ends without a word: no lifespan shutdown. So
each invocation lasts until what its request leaves behind is done. The answer has left by then.
"""

import os

from starlette.types import ASGIApp, Receive, Scope, Send

from app.main import create_app


def create_function() -> ASGIApp:
    """The app, in production unless APP_ENV says otherwise: what Vercel serves is public.

    A bad environment ends the process here with exit code 78, as everywhere.
    """
    os.environ["APP_ENV"] = os.environ.get("APP_ENV", "").strip() or "production"
    served = create_app()

    async def function(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await served(scope, receive, send)
        finally:
            if scope["type"] == "http":
                await served.state.finish()

    return function


app = create_function()
