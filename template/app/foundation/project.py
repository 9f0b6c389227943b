"""The answers that were given when this app was generated (`app/project.json`)."""

import json
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Language = Literal["en", "ko"]
StoreName = Literal["sqlite", "redis", "postgres"]
DeployName = Literal["docker", "vercel", "aws"]


class OnCall(BaseModel):
    """Who is called when an alert fires, and how to reach them."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(min_length=1)
    contact: str = Field(min_length=1)


class Project(BaseModel):
    """What this app is. Settings take their defaults from here; `copier update` may change it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    slug: str
    about: str
    language: Language
    providers: tuple[str, ...]
    models: dict[str, str]
    store: StoreName
    deploy: DeployName
    web_page: bool
    knowledge: bool = False  # an app that is older than the question has none
    daily_cost_cap_usd: Decimal
    on_call: OnCall


@cache
def load_project() -> Project:
    """Read the answers once; the file is part of the app and never changes while it runs."""
    path = Path(__file__).parents[1] / "project.json"
    return Project.model_validate(json.loads(path.read_text(encoding="utf-8")))
