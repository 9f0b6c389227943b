"""The admin's door: `Authorization: Bearer <ADMIN_TOKEN>`."""

from fastapi import Request

from app.edge.scope import peer_of
from app.ops.door import Door


async def admin(request: Request) -> None:
    """A dependency that lets only the admin pass.

    Raises `AppError` invalid_api_key, and rate_limit_exceeded after too many wrong tokens.
    """
    door: Door = request.app.state.door
    await door.may_read(request.headers, peer_of(request.scope))
