"""The pauses between attempts at one target."""

from tenacity import RetryCallState, wait_random_exponential
from tenacity.stop import stop_base

from app.providers.base import ProviderError
from app.standards.availability.deadline import Deadline

# The n-th pause is random between 0 and FIRST * 2^n seconds, and never over MAX.
FIRST_PAUSE_SECONDS = 0.5
MAX_PAUSE_SECONDS = 8.0


class NoTimeLeft(stop_base):
    """Stop when the next pause would not fit into the deadline."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline

    def __call__(self, retry_state: RetryCallState) -> bool:
        return retry_state.upcoming_sleep >= self._deadline.remaining


_backoff = wait_random_exponential(multiplier=FIRST_PAUSE_SECONDS, max=MAX_PAUSE_SECONDS)


def pause(state: RetryCallState) -> float:
    """The provider's `Retry-After` when it gave one, else exponential backoff with full jitter."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, ProviderError) and error.retry_after is not None:
        return error.retry_after
    return _backoff(state)
