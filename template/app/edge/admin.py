"""The admin's door: `Authorization: Bearer <ADMIN_TOKEN>`."""

from fastapi import Request

from app.foundation.errors import AppError


def admin(request: Request) -> None:
    """A dependency that lets only the admin pass. Raises `AppError` invalid_api_key."""
    if not request.app.state.identity.is_admin(request.headers):
        raise AppError("invalid_api_key", detail="admin")
