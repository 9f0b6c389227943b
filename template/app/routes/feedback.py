"""`POST /v1/feedback`: what a caller thinks of an answer."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from app.edge.scope import peer_of, record_of
from app.launch.failures.feedback import Rating
from app.standards.spending.identity import Caller

router = APIRouter(prefix="/v1", tags=["Feedback"])


async def _caller(request: Request) -> Caller:
    caller: Caller = request.app.state.identity.caller(request.headers, peer_of(request.scope))
    return caller


@router.post("/feedback")
async def feedback(
    request: Request, rating: Rating, caller: Annotated[Caller, Depends(_caller)]
) -> dict[str, str]:
    """Rate an answer of your own, up or down; rated again, the last rating counts."""
    record = record_of(request.scope)
    await request.app.state.feedback.rate(rating, caller, record)
    record.caller = caller.name  # now: a rating that is refused is no refused question (SLO)
    return {"request_id": rating.request_id, "rating": rating.rating}
