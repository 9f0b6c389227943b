"""The settings of the launch safeguards. All settings are read as one: `settings.py`."""

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings

from app.foundation import checks
from app.foundation.fields import Percent, Seconds, Share, Url, Usd, UsdPerMillionTokens


class LaunchSettings(BaseSettings):
    """What the safeguards of `app/launch` may be told."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    seed: int | None = None
    policy_file: str | None = None
    moderation: Literal["off", "open", "closed"] = "off"
    moderation_base_url: Url | None = None
    moderation_timeout_seconds: Seconds = 3

    knowledge_file: str | None = None
    evidence_passages: Annotated[int, Field(ge=0, le=20)] = 4
    evidence_min_score: Annotated[float, Field(ge=0, le=1)] = 0.33
    evidence_required: bool = True
    evidence_timeout_seconds: Seconds = 3

    slo_availability_percent: Percent = Decimal("99.5")
    slo_latency_ms: Annotated[int, Field(ge=1, le=900_000)] = 10_000
    slo_latency_percent: Percent = Decimal(95)
    slo_fallback_percent: Percent = Decimal(10)
    slo_refusal_percent: Percent = Decimal(20)
    slo_cost_usd_per_day: Usd | None = None
    slo_alerts: bool = True
    slo_min_events: Annotated[int, Field(ge=1, le=1_000_000)] = 20

    candidate: Annotated[str, AfterValidator(checks.candidate)] | None = None
    candidate_input_usd_per_mtok: UsdPerMillionTokens | None = None
    candidate_output_usd_per_mtok: UsdPerMillionTokens | None = None
    canary_percent: Share = Decimal(0)
    failures_ttl_seconds: Annotated[int, Field(ge=0, le=400 * 86400)] = 14 * 86400
    feedback_seconds: Annotated[int, Field(ge=0, le=30 * 86400)] = 3600

    shadow_percent: Share = Decimal(0)
    shadow_daily_cost_cap_usd: Usd | None = None  # a tenth of DAILY_COST_CAP_USD
