"""The operations page (`GET /ops`), its session, what it shows and what it can do."""

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Request
from loguru import logger
from pydantic import BaseModel, Field, StringConstraints
from starlette.responses import JSONResponse, Response

from app.edge.pages import PageFiles, page_of
from app.edge.scope import peer_of
from app.foundation.errors import AppError
from app.ops.door import SESSION_SECONDS, Door, Session
from app.ops.operations import Operations
from app.ops.summary import RangeName

router = APIRouter(prefix="/ops", include_in_schema=False)

_PAGE = Path(__file__).parents[1] / "web" / "ops"
files = PageFiles(directory=_PAGE)
BY = "/ops"


class SignIn(BaseModel):
    """What opens a session."""

    token: Annotated[str, Field(max_length=1000)]


class Turn(BaseModel):
    """A kill switch to turn, and the reason, which others read."""

    name: str
    off: bool
    why: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]


@router.get("")
async def page() -> Response:
    """The page itself; it asks for the rest."""
    return page_of(_PAGE)


@router.get("/state")
async def state(request: Request, range: RangeName = "hour") -> Response:
    """What the page shows."""
    door = _door(request)
    opened = await door.may_look(*_who(request))
    found = await _operations(request).state(range)
    can = {"open": door.open, "csrf": opened.csrf if opened else None}
    return JSONResponse(found | {"session": can})


@router.get("/session")
async def session(request: Request) -> dict[str, bool]:
    """Whether the page can show something, or must ask for the token first."""
    try:
        await _door(request).may_look(*_who(request))
    except AppError as error:
        if error.status != 401:
            raise
        return {"in": False}
    return {"in": True}


@router.post("/session", status_code=204)
async def sign_in(request: Request, given: SignIn) -> Response:
    """Open a session."""
    door = _door(request)
    value = await door.sign_in(given.token, request.headers, peer_of(request.scope))
    response = Response(status_code=204)
    response.set_cookie(
        door.cookie,
        value,
        max_age=SESSION_SECONDS,
        path="/",
        secure=door.secure,
        httponly=True,
        samesite="strict",
    )
    return response


@router.delete("/session", status_code=204)
async def sign_out(request: Request) -> Response:
    """End the session, here and in the store."""
    door = _door(request)
    session = await door.may_act(*_who(request))
    if session is not None:
        await door.sign_out(session)
    response = Response(status_code=204)
    response.delete_cookie(
        door.cookie, path="/", secure=door.secure, httponly=True, samesite="strict"
    )
    return response


@router.post("/switches")
async def turn(request: Request, given: Turn) -> dict[str, Any]:
    """Turn a kill switch."""
    session = await _door(request).may_act(*_who(request))
    switches = _operations(request).switches
    if given.name not in switches.names:
        raise AppError("not_found", param="name", detail="switch", names=", ".join(switches.names))
    if given.off:
        await switches.turn_off(given.name, by=BY, why=given.why)
    else:
        await switches.turn_on(given.name)
    _audit(given, session)
    return {"name": given.name, "off": given.off}


def _audit(given: Turn, session: Session | None) -> None:
    logger.warning(
        "kill switch turned",
        switch=given.name,
        turned="off" if given.off else "on",
        by=BY,
        why=given.why,
        session=session.id[:8] if session else "token",
    )


def _door(request: Request) -> Door:
    found: Door = request.app.state.door
    return found


def _operations(request: Request) -> Operations:
    found: Operations = request.app.state.operations
    return found


def _who(request: Request) -> tuple[Any, str | None, str | None]:
    cookie = request.cookies.get(_door(request).cookie)
    return request.headers, cookie, peer_of(request.scope)
