"""The kinds of settings: what a number may be, and what a text is checked for."""

from decimal import Decimal
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import NoDecode

from app.foundation import checks

Seconds = Annotated[float, Field(gt=0, le=900, allow_inf_nan=False)]
Usd = Annotated[Decimal, Field(gt=0, le=1_000_000, allow_inf_nan=False)]
Percent = Annotated[Decimal, Field(gt=0, le=Decimal("99.99"), allow_inf_nan=False)]
Share = Annotated[Decimal, Field(ge=0, le=100, allow_inf_nan=False)]
UsdPerMillionTokens = Annotated[Decimal, Field(ge=0, le=100_000, allow_inf_nan=False)]
Secret = Annotated[SecretStr, AfterValidator(checks.secret)]
Url = Annotated[str, AfterValidator(checks.http_url)]
SecretUrl = Annotated[SecretStr, AfterValidator(checks.secret_http_url)]
Words = Annotated[tuple[str, ...], NoDecode]
Network = IPv4Network | IPv6Network
