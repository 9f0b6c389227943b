"""Your own features. Each asks the guarded model, so it is limited, paid for and logged."""

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.responses import Response

from app.model import Model

router = APIRouter(prefix="/yours", tags=["yours"])


class Question(BaseModel):
    """What a client sends."""

    text: str = Field(min_length=1, examples=["Why is the sky blue?"])


class Reply(BaseModel):
    """What it gets."""

    text: str


class Sentiment(BaseModel):
    """A typed answer: the model must fill exactly these fields."""

    mood: str = Field(description="one word, such as happy, angry or neutral")
    confidence: float = Field(description="from 0 to 1")


@router.post("/ask")
async def ask(question: Question, model: Model) -> Reply:
    """A plain question."""
    return Reply(text=await model.ask(question.text))


@router.post("/stream")
async def stream(question: Question, model: Model) -> Response:
    """A streamed answer."""
    return await model.sse(question.text)


@router.post("/sentiment")
async def sentiment(question: Question, model: Model) -> Sentiment:
    """A typed answer."""
    return await model.typed(f"What is the mood of this text? {question.text}", Sentiment)
