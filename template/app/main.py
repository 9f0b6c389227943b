"""The app on one page: the five standards, in the order in which a request meets them.

visibility ─ body limit ─ shield ─ caller ─ policy ─ evidence ─ tokens ─ [ store.admit ]
                                                                     │ ─ availability ─ provider
                                    idempotency claim + rate limits +  ─ evidence ─ policy
                                    cost reservation in one atomic step  ─ [ store.settle ]
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from app.answers import Answers
from app.edge import errors
from app.edge.body import BodyLimit
from app.edge.headers import SecurityHeaders
from app.foundation.messages import load_messages
from app.foundation.project import load_project
from app.guarded import RequestPath
from app.health import Health
from app.launch.budget import ErrorBudget
from app.launch.failures.collection import FailureCollection
from app.launch.failures.feedback import Feedback
from app.launch.grounds import Evidence
from app.launch.policy.moderation import Moderation
from app.launch.policy.rules import read_rules
from app.launch.policy.screen import Policy
from app.launch.rollout.rollout import Rollout
from app.launch.slo import Objectives
from app.launch.switches import Switches, switch_names
from app.ops.aggregates import Aggregates
from app.ops.door import Door
from app.ops.operations import Operations
from app.ops.tries import Tries
from app.preflight import check_environment, open_store, read_instructions
from app.routes import chat, docs, feedback, health, ops
from app.standards.availability.relay import Relay
from app.standards.spending.guard import Guard
from app.standards.spending.identity import Identity
from app.standards.spending.shield import Shield
from app.standards.tokens.counting import TokenCounter
from app.standards.tokens.gate import Gate
from app.standards.tokens.history import History
from app.standards.tokens.summary import Summariser
from app.standards.visibility.alerts import Alerts
from app.standards.visibility.logs import configure_logs
from app.standards.visibility.metrics import Metrics
from app.standards.visibility.request_log import RequestLog
from app.standards.visibility.telemetry import Telemetry
from app.stores.choose import choose_store
from app.summaries import Summaries
from app.targets import all_connected, build_candidate, build_targets
from app.watch import Watch
from app.yours import routes as yours

SHUTDOWN_SECONDS = 5.0
# What a web page elsewhere may read (CORS).
EXPOSED_HEADERS = (
    "Idempotency-Replayed",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "Server-Timing",
    "X-Cache",
    "X-Fallback",
    "X-Provider",
    "X-Request-ID",
    "x-should-retry",
)


def create_app() -> FastAPI:
    """Build the app. A bad environment ends the process here, with exit code 78.

    `uv run serve` starts it. Under plain uvicorn give `--no-proxy-headers`: its default believes
    any `X-Forwarded-For` from this machine, whatever TRUSTED_PROXIES says.
    """
    settings = check_environment()  # 2. environment
    project = load_project()

    # 1. visibility
    redactor = configure_logs(settings)
    telemetry = Telemetry(settings, project.slug, redactor)
    metrics = Metrics(settings.daily_cost_cap_usd, settings.daily_cost_cap_per_caller_usd)
    store = choose_store(settings)
    alerts = Alerts(settings, project, store, redactor)
    objectives = Objectives(settings)
    metrics.state_objectives(
        objectives.budgets, objectives.min_events, objectives.cost_usd_per_day, project.on_call
    )
    budget = ErrorBudget(objectives, store, metrics, alerts, speaks=settings.slo_alerts)
    failures = FailureCollection(settings, store, metrics, redactor)
    aggregates = Aggregates(budget.tally)
    watch = Watch(metrics, aggregates, alerts, telemetry)

    # 3. availability
    targets = build_targets(settings, watch.breaker)
    candidate = build_candidate(settings, targets, watch.candidate_breaker)
    connected = all_connected(targets, candidate)
    models = [(t.provider.name, t.provider.model) for t in connected]
    metrics.state_targets(models, float(settings.canary_percent / 100) if candidate else 0)
    relay = Relay(
        max_attempts=settings.max_attempts,
        read_timeout=settings.read_timeout_seconds,
        observer=watch,
    )
    # 4. spending
    identity = Identity(settings)
    guard = Guard(settings, store, watch.cap_warning)
    # 5. tokens
    counter = TokenCounter(settings.max_input_tokens)
    gate = Gate(counter, settings.max_input_tokens)

    switches = Switches(store, switch_names(models, with_candidate=bool(candidate)))
    rollout = Rollout(
        candidate,
        targets[0],
        settings,
        store=store,
        guard=guard,
        relay=relay,
        switches=switches,
        objectives=objectives,
        metrics=metrics,
        alerts=alerts,
        messages=load_messages(project.language),
        on_charge=watch.charged,
    )
    moderation = None if settings.moderation == "off" else Moderation(settings)
    evidence: Evidence | None = None
    if project.knowledge and settings.evidence_passages:
        evidence = import_module("app.launch.evidence.gather").open_evidence(settings)
    path = RequestPath(
        settings=settings,
        guard=guard,
        relay=relay,
        targets=targets,
        gate=gate,
        history=History(gate, settings.max_history_messages),
        summaries=Summaries(store, relay, Summariser(counter, settings.max_input_tokens)),
        answers=Answers(settings),
        rollout=rollout,
        policy=Policy(read_rules(settings.policy_file), moderation),
        evidence=evidence,
        instructions=read_instructions(),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await open_store(store, settings)
        keepers = [
            asyncio.create_task(work)
            for work in (
                guard.reap_for_ever(),
                guard.renew_for_ever(),
                budget.keep_for_ever(),
                rollout.keep_for_ever(),
                failures.keep_for_ever(),
            )
        ]
        yield
        for keeper in keepers:
            keeper.cancel()
        await rollout.close()
        await guard.drain(SHUTDOWN_SECONDS)
        await budget.catch_up()
        await failures.catch_up(SHUTDOWN_SECONDS)
        await alerts.close(SHUTDOWN_SECONDS)
        for target in connected:
            await target.provider.close()
        if moderation is not None:
            await moderation.close()
        if evidence is not None:
            await evidence.close()
        await store.close()
        await telemetry.close(SHUTDOWN_SECONDS)

    async def finish() -> None:
        """Wait, within bounds, for what requests leave behind: charges, counts, alerts, traces."""
        await rollout.finish()
        await guard.drain(SHUTDOWN_SECONDS)
        await budget.catch_up()
        await failures.catch_up(SHUTDOWN_SECONDS)
        await alerts.flush(SHUTDOWN_SECONDS)
        await telemetry.flush(SHUTDOWN_SECONDS)

    app = FastAPI(
        title=project.name,
        description=project.about,
        lifespan=lifespan,
        openapi_url=None if settings.production else "/openapi.json",
        redoc_url=None,
        telemetry=telemetry.fastapi(),
    )
    app.state.settings = settings
    app.state.path = path
    app.state.identity = identity
    app.state.feedback = Feedback(settings, store, guard, metrics, failures)
    app.state.health = Health(store, targets, metrics, switches)
    app.state.finish = finish
    app.state.door = Door(settings, identity, store, Tries(settings, store, guard))
    app.state.operations = Operations(
        settings=settings,
        project=project,
        store=store,
        tally=budget.tally,
        objectives=objectives,
        switches=switches,
        targets=connected,
    )

    # The last one added meets a request first.
    app.add_middleware(
        BodyLimit,
        max_bytes=settings.max_body_bytes,
        seconds=settings.time_budget_seconds,
        refuse=errors.render,
    )
    app.add_middleware(
        Shield,
        requests_per_minute=settings.requests_per_minute_per_ip,
        identity=identity,
        refuse=errors.render,
    )
    app.add_middleware(SecurityHeaders, production=settings.production)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=list(EXPOSED_HEADERS),
        )
    app.add_middleware(
        RequestLog,
        render_error=errors.render_code,
        observers=(
            watch.request_ended,
            budget.request_ended,
            rollout.request_ended,
            aggregates.request_ended,
            failures.request_ended,
        ),
        span=telemetry.phase,
    )
    errors.install(app)

    app.include_router(chat.router)
    app.include_router(feedback.router)
    app.include_router(health.router)
    app.include_router(ops.router)
    app.mount("/assets/ops", ops.files)
    app.include_router(yours.router)
    if project.web_page:
        web = import_module("app.routes.web")
        app.include_router(web.router)
        app.mount("/assets/chat", web.files)
    if settings.production:
        app.include_router(docs.router)
    return app
