"""`POST /v1/feedback`: what a caller thinks of an answer."""

from fastapi import APIRouter, Request

from app.edge.scope import peer_of, record_of
from app.launch.failures.feedback import Rating

router = APIRouter(prefix="/v1", tags=["Feedback"])


@router.post("/feedback")
async def feedback(request: Request, rating: Rating) -> dict[str, str]:
    """Rate an answer of your own, up or down; rated again, the last rating counts."""
    state, record = request.app.state, record_of(request.scope)
    caller = state.identity.caller(request.headers, peer_of(request.scope))
    record.caller = caller.name
    await state.feedback.rate(rating, caller, record)
    return {"request_id": rating.request_id, "rating": rating.rating}
