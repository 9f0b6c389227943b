"""`/healthz` (is the process alive), `/readyz` (can it serve), `/metrics` (for Prometheus)."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import JSONResponse, Response

from app.edge.admin import admin
from app.health import Health

router = APIRouter(tags=["operations"])


def health(request: Request) -> Health:
    """What the app knows of its own state."""
    found: Health = request.app.state.health
    return found


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """200 while the process lives; touches nothing else."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(state: Annotated[Health, Depends(health)]) -> Response:
    """200 when a request could be answered now, else 503; with the state of each dependency."""
    ready, checks = await state.check()
    body: dict[str, Any] = {"status": "ok" if ready else "unavailable", "checks": checks}
    return JSONResponse(body, 200 if ready else 503)


@router.get("/metrics", dependencies=[Depends(admin)])
async def metrics(state: Annotated[Health, Depends(health)]) -> Response:
    """Prometheus text."""
    body, media_type = await state.metrics()
    return Response(body, media_type=media_type)
