"""The chat page (`GET /`) and its files."""

from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

from app.foundation.project import load_project
from app.foundation.settings import Settings

router = APIRouter(include_in_schema=False)

_PAGE = Path(__file__).parents[1] / "web" / "chat"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

# Browsers ask each time whether a file is still the same: modules of two releases never mix.
_CHECKED = {"Cache-Control": "no-cache"}


class PageFiles(StaticFiles):
    """The page's files."""

    def file_response(self, *args: Any, **options: Any) -> Response:
        """A file, or 304 where the browser has it already."""
        response = super().file_response(*args, **options)
        response.headers.update(_CHECKED)
        return response


files = PageFiles(directory=_PAGE)


@router.get("/")
async def page() -> FileResponse:
    """The page itself: no build step, nothing from elsewhere."""
    return FileResponse(
        _PAGE / "index.html", headers={"Content-Security-Policy": _POLICY, **_CHECKED}
    )


@router.get("/assets/chat/config.json")
async def config(request: Request) -> dict[str, Any]:
    """What the page must know of the app."""
    settings: Settings = request.app.state.settings
    project = load_project()
    return {
        "name": project.name,
        "language": project.language,
        "about": project.about,
        "key_required": not settings.anonymous_allowed,
        "max_input_tokens": settings.max_input_tokens,
    }
