"""`/docs` and `/openapi.json` in production, where only the admin may read them."""

from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse

from app.edge.admin import admin

router = APIRouter(include_in_schema=False, dependencies=[Depends(admin)])


@router.get("/openapi.json")
async def openapi(request: Request) -> dict[str, Any]:
    """The API's description."""
    description: dict[str, Any] = request.app.openapi()
    return description


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    """The API's description as a page."""
    return get_swagger_ui_html(openapi_url="/openapi.json", title=request.app.title)
