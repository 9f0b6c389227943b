"""Every setting of the app: its name, unit, default and limits. Read once, at start.

Sources, strongest first: the environment, `.env` (not in production), `/run/secrets/*`, and AWS
Secrets Manager where AWS_SECRET_NAME is set.
`standards/environment.py` turns what is wrong into a report and exit code 78.
"""

from ipaddress import ip_network
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    Field,
    ModelWrapValidatorHandler,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticUseDefault
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from app.foundation import checks
from app.foundation.checks import Problem, UnreadableSourceError
from app.foundation.fields import (
    Network,
    Seconds,
    Secret,
    SecretUrl,
    Url,
    Usd,
    UsdPerMillionTokens,
    Words,
)
from app.foundation.launch_settings import LaunchSettings
from app.foundation.project import load_project
from app.foundation.sources import SECRETS, env_file, with_secret_manager

NANO_PER_USD = 1_000_000_000
SQLITE_URL = "sqlite:///data/app.db"  # below the folder that the app is started in


def _model_of(provider: str) -> Any:
    """A field whose default is the model that was answered for the provider."""
    return Field(default_factory=lambda: load_project().models.get(provider))


class InvalidSettingsError(Exception):
    """The environment is wrong. `settings` could be read, with defaults for the rest."""

    def __init__(self, problems: list[Problem], settings: "Settings") -> None:
        super().__init__(", ".join(problem.name.upper() for problem in problems))
        self.problems = problems
        self.settings = settings


class Settings(LaunchSettings):
    """The environment, checked. Field names are the variables' names in lower case."""

    model_config = SettingsConfigDict(
        extra="ignore",
        frozen=True,
        env_file_encoding="utf-8",
        env_ignore_empty=True,  # an empty variable hides no secret file
        hide_input_in_errors=True,
    )

    app_env: Literal["development", "production"] = "development"
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    web_concurrency: Annotated[int, Field(ge=1, le=64)] = 1

    providers: Words = Field(default_factory=lambda: load_project().providers)
    openai_api_key: Secret | None = None
    openai_base_url: Url | None = None
    openai_model: str | None = _model_of("openai")
    openai_input_usd_per_mtok: UsdPerMillionTokens | None = None
    openai_output_usd_per_mtok: UsdPerMillionTokens | None = None
    anthropic_api_key: Secret | None = None
    anthropic_base_url: Url | None = None
    anthropic_model: str | None = _model_of("anthropic")
    anthropic_input_usd_per_mtok: UsdPerMillionTokens | None = None
    anthropic_output_usd_per_mtok: UsdPerMillionTokens | None = None
    gemini_api_key: Secret | None = None
    gemini_base_url: Url | None = None
    gemini_model: str | None = _model_of("gemini")
    gemini_input_usd_per_mtok: UsdPerMillionTokens | None = None
    gemini_output_usd_per_mtok: UsdPerMillionTokens | None = None
    compatible_api_key: Secret | None = None
    compatible_base_url: Url | None = None
    compatible_model: str | None = _model_of("compatible")
    compatible_input_usd_per_mtok: UsdPerMillionTokens | None = None
    compatible_output_usd_per_mtok: UsdPerMillionTokens | None = None

    database_url: SecretStr | None = None
    redis_url: Annotated[SecretStr, AfterValidator(checks.redis_url)] | None = None
    app_api_keys: Annotated[dict[str, SecretStr], NoDecode] = Field(default_factory=dict)
    allow_anonymous: bool = False
    admin_token: Secret | None = None

    requests_per_minute: Annotated[int, Field(ge=1, le=1_000_000)] = 60
    requests_per_minute_per_ip: Annotated[int, Field(ge=1, le=1_000_000)] = 120
    daily_cost_cap_usd: Usd = Field(default_factory=lambda: load_project().daily_cost_cap_usd)
    daily_cost_cap_per_caller_usd: Usd | None = None
    app_timezone: Annotated[str, AfterValidator(checks.timezone)] = "UTC"
    idempotency_ttl_seconds: Annotated[int, Field(ge=1, le=30 * 86400)] = 86400
    cache_ttl_seconds: Annotated[int, Field(ge=0, le=30 * 86400)] = 300

    max_input_tokens: Annotated[int, Field(ge=50, le=2_000_000)] = 4000
    max_output_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    max_history_messages: Annotated[int, Field(ge=1, le=10_000)] = 10
    max_body_bytes: Annotated[int, Field(ge=1024, le=100 * 1024 * 1024)] = 1024 * 1024

    time_budget_seconds: Seconds = 60
    connect_timeout_seconds: Seconds = 5
    read_timeout_seconds: Seconds = 30
    write_timeout_seconds: Seconds = 10
    pool_timeout_seconds: Seconds = 5
    store_timeout_seconds: Seconds = 1
    max_attempts: Annotated[int, Field(ge=1, le=10)] = 3

    trusted_proxies: Annotated[tuple[Network, ...], NoDecode] = ()
    cors_origins: Words = ()
    alert_urls: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    app_release: Annotated[str, Field(pattern=r"^[\w.@+:-]{1,200}$")] | None = None
    sentry_dsn: SecretUrl | None = None
    otel_exporter_otlp_endpoint: Url | None = None
    otel_traces_sampler_arg: Annotated[float, Field(ge=0, le=1)] = 1.0
    aws_secret_name: str | None = None
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["json", "text"] | None = None
    log_prompts: bool = False

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The usual sources, strongest first, and AWS Secrets Manager where it is named."""
        usual = (init_settings, env_settings, dotenv_settings, file_secret_settings)
        return with_secret_manager(settings_cls, usual)

    @field_validator("providers")
    @classmethod
    def _known_providers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known = (*load_project().providers, "demo")
        for name in value:
            if name not in known:
                raise checks.wrong("unknown_provider", known=", ".join(known))
        if len(set(value)) != len(value):
            raise checks.wrong("provider_twice")
        return value

    @field_validator("database_url")
    @classmethod
    def _of_the_chosen_store(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and load_project().store != "redis":
            checks.database_url(value, load_project().store)
        return value

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _networks(cls, value: Any) -> Any:
        try:
            return tuple(ip_network(item, strict=False) for item in value)
        except ValueError:
            raise checks.wrong("cidr") from None

    @field_validator("app_api_keys", mode="before")
    @classmethod
    def _named_keys(cls, value: Any) -> Any:
        return checks.named_keys(value) if isinstance(value, str) else value

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: Any) -> Any:
        return value.upper() if isinstance(value, str) else value

    # pydantic runs "before" validators from the last one up: blank, then split, then the rest.
    @field_validator("providers", "cors_origins", "alert_urls", "trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return tuple(part for part in value.replace(",", " ").split() if part)

    @field_validator("*", mode="before")
    @classmethod
    def _blank_means_unset(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = value.strip()
            if not value:
                raise PydanticUseDefault
        return value

    @model_validator(mode="wrap")
    @classmethod
    def _everything_at_once(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Report the mistakes inside fields together with those between fields."""
        problems: dict[str, Problem] = {}
        try:
            settings = handler(data)
        except ValidationError as error:
            for item in error.errors(include_url=False):
                name, facts = str(item["loc"][0]), item.get("ctx", {})
                problems[name] = Problem(name, item["type"], facts, item["msg"])
            good = {name: value for name, value in data.items() if name not in problems}
            settings = handler(good)
        for problem in settings._between_fields():
            problems.setdefault(problem.name, problem)
        if problems:
            raise InvalidSettingsError(list(problems.values()), settings)
        return settings

    def _between_fields(self) -> list[Problem]:
        """What no single field can know."""
        wrong: list[Problem] = []
        for provider in self.providers:
            wrong += self._provider_problems(provider)
        if not self.providers:
            wrong.append(Problem("providers", "no_provider"))
        wrong += self._store_problems()
        if self.app_env == "production":
            wrong += self._production_problems()
        return wrong

    def _provider_problems(self, provider: str) -> list[Problem]:
        if provider == "demo":
            return []
        wrong: list[Problem] = []
        if provider != "compatible" and getattr(self, f"{provider}_api_key") is None:
            wrong.append(Problem(f"{provider}_api_key", "missing_provider_key"))
        if provider == "compatible" and self.compatible_base_url is None:
            wrong.append(Problem("compatible_base_url", "missing_base_url"))
        if not getattr(self, f"{provider}_model"):
            wrong.append(Problem(f"{provider}_model", "missing_model"))
        stated = [
            name
            for name in (f"{provider}_input_usd_per_mtok", f"{provider}_output_usd_per_mtok")
            if getattr(self, name) is None
        ]
        if len(stated) == 1:
            wrong.append(Problem(stated[0], "missing_price"))
        return wrong

    def _store_problems(self) -> list[Problem]:
        store, setting = load_project().store, self.store_setting
        if store == "sqlite":
            return []
        url: SecretStr | None = getattr(self, setting)
        if url is None:
            return [Problem(setting, f"missing_{store}_url")]
        if self.production and checks.is_placeholder(checks.password_of(url)):
            return [Problem(setting, "placeholder_password")]
        return []

    def _production_problems(self) -> list[Problem]:
        wrong: list[Problem] = []
        if "demo" in self.providers:
            wrong.append(Problem("providers", "demo_in_production"))
        if self.admin_token is None:
            wrong.append(Problem("admin_token", "missing_admin_token"))
        if not self.app_api_keys and not self.allow_anonymous:
            wrong.append(Problem("app_api_keys", "missing_app_keys"))
        if "*" in self.cors_origins:
            wrong.append(Problem("cors_origins", "any_origin_in_production"))
        return wrong

    @property
    def production(self) -> bool:
        """True when APP_ENV is `production`."""
        return self.app_env == "production"

    @property
    def store_setting(self) -> str:
        """The setting that says where the chosen store is."""
        return "redis_url" if load_project().store == "redis" else "database_url"

    @property
    def store_url(self) -> str:
        """Where the chosen store is, password included: never log this."""
        url: SecretStr | None = getattr(self, self.store_setting)
        return SQLITE_URL if url is None else url.get_secret_value()

    @property
    def timezone(self) -> ZoneInfo:
        """Where the day of the daily caps begins."""
        return ZoneInfo(self.app_timezone)

    @property
    def anonymous_allowed(self) -> bool:
        """True where a request without a key is served: stated so, or no keys in development."""
        return self.allow_anonymous or not (self.production or self.app_api_keys)

    @property
    def json_logs(self) -> bool:
        """LOG_FORMAT, or JSON in production."""
        return (self.log_format or ("json" if self.production else "text")) == "json"

    @property
    def lease_seconds(self) -> float:
        """How long a reservation lives unless it is renewed: longer than most requests take.

        It outlives the time budget and the settlement's own tries. Above a minute it is renewed
        instead, so that a dead worker never blocks a key for a quarter of an hour.
        """
        return min(self.time_budget_seconds, 60.0) + 4 * self.store_timeout_seconds + 5

    def secret_values(self) -> list[str]:
        """Every secret in clear, for the log's last line of defence. Never log this."""
        found: list[Any] = [*self.app_api_keys.values(), *self.alert_urls]
        found += [getattr(self, name) for name in type(self).model_fields]
        values = [value.get_secret_value() for value in found if isinstance(value, SecretStr)]
        return [value for value in values if not value.startswith("sqlite:")]


def read_settings() -> Settings:
    """Read the environment. Raises `InvalidSettingsError` with everything that is wrong.

    Raises `UnreadableSourceError` for a file that is no text, or what AWS_SECRET_NAME names.
    """
    file = env_file()
    try:
        return Settings(_env_file=file, _secrets_dir=SECRETS if SECRETS.is_dir() else None)
    except UnicodeDecodeError:
        raise UnreadableSourceError(Problem(file or str(SECRETS), "not_utf8")) from None
