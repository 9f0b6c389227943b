"""The chat page (`GET /`) and its files."""

from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import FileResponse

from app.edge.pages import PageFiles, page_of
from app.foundation.project import load_project
from app.foundation.settings import Settings

router = APIRouter(include_in_schema=False)

_PAGE = Path(__file__).parents[1] / "web" / "chat"
files = PageFiles(directory=_PAGE)


@router.get("/")
async def page() -> FileResponse:
    """The page itself: no build step, nothing from elsewhere."""
    return page_of(_PAGE)


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
        "feedback": settings.feedback_seconds > 0,
    }
