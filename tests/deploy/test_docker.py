"""The Docker target on a real engine: built, started, called, stopped and started again.

Every test speaks to the app from outside, over HTTP and the `docker` command.
"""

import json
import re
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.engine import Engine
from tests.deploy.project import (
    DEMO,
    EX_CONFIG,
    KEY,
    SECRETS,
    SEND_TO_SERVER,
    TRY_TO_WRITE,
    Project,
    answers_both_ways,
    build,
    built,
    chats,
    kill_the_server,
    on_the_fake,
    spent,
    stop_in_mid_stream,
)
from tests.deploy.stage import question, write_document

pytestmark = pytest.mark.deploy

CANARY = "canary-5d0c1e9a"  # in every file that must stay out of the image
IN_THE_PROMPT = "prompt-3f6b27d4"  # in a file that must be in it: the search finds what is there
SEARCH = """
from app.launch.evidence.folder import INDEX
from app.launch.evidence.index import Knowledge
print(Knowledge(INDEX).search("What is a loaf of rye?", 1)[0].file)
"""


@pytest.fixture(scope="module")
def project(engine: Engine, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """An app in whose image nothing secret may be, built as its README says."""
    given = {"knowledge": "true"}
    app = built(engine, folder, tmp_path_factory.mktemp("docker") / "app", Project, **given)
    for name in (".env", ".git/config", "app/.env", "app/yours/.env.local", "app/tls.key"):
        with (app.folder / name).open("a") as file:
            file.write(f"\n# {CANARY}\n")
    app.write_secrets(SECRETS)
    (app.folder / "app/yours/system_prompt.md").write_text(f"Be kind. {IN_THE_PROMPT}\n")
    write_document(app.folder)
    (app.folder / "app/checklist.json").write_text("{}")
    build(app)
    return app


@pytest.fixture
def production(project: Project, fake: Any) -> Iterator[Project]:
    """The app in production: its secrets are files, its provider is the fake one."""
    with project.running(**on_the_fake(fake), secrets=SECRETS):
        yield project


def test_the_image_holds_the_app_and_nothing_secret(project: Project, tmp_path: Path) -> None:
    (image,) = json.loads(project.engine.docker("image", "inspect", project.name))
    print(f"image: {image['Size'] / 1e6:.0f} MB")
    assert image["Config"]["User"] == "999:999"
    assert image["Config"]["Healthcheck"]["Test"][0] == "CMD"

    project.engine.docker("save", "--output", tmp_path / "image.tar", project.name)
    with tarfile.open(tmp_path / "image.tar") as layers:
        layers.extractall(tmp_path, filter="data")
    names: set[str] = set()
    prompts = 0
    leaked = False
    for path in [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".json"]:
        if path.name == "image.tar" or not tarfile.is_tarfile(path):
            continue
        content = path.read_bytes()
        leaked |= CANARY.encode() in content
        prompts += IN_THE_PROMPT.encode() in content
        with tarfile.open(path) as layer:
            names |= set(layer.getnames())
    assert not leaked, "a file that .dockerignore must keep out is in the image"
    assert prompts == 1, "the search does not find what is there"
    assert "app/.venv/bin/serve" in names
    inside = {name for name in names if name.startswith("app/") and "/site-packages/" not in name}
    assert {name.split("/")[1] for name in inside} == {".venv", "data"}
    assert not [name for name in names if name.endswith(("/bin/uv", "/uv-cache"))]
    outside = r"/site-packages/(checklist|indexing|knowledge|pypdf|tests)/"
    assert not [name for name in names if re.search(outside, name)]
    for taken in ("checklist.json", "knowledge.db"):
        assert [name for name in names if name.endswith(f"/site-packages/app/{taken}")], taken


def test_an_image_built_again_has_the_new_code_and_documents(project: Project) -> None:
    prompt = project.folder / "app/yours/system_prompt.md"
    before = prompt.read_text()
    prompt.write_text("Be brief.\n")
    (project.folder / "knowledge/bread.md").write_text("A loaf of rye is 4 euro.\n")
    try:
        project.override(DEMO)
        project.compose("build")
        inside = "from app.preflight import read_instructions as read; print(read())"
        shown = project.compose("run", "--rm", "--no-TTY", "app", "python", "-c", inside)
        assert "Be brief." in shown
        shown = project.compose("run", "--rm", "--no-TTY", "app", "python", "-c", SEARCH)
        assert "bread.md" in shown
    finally:
        prompt.write_text(before)
        project.compose("build")
        project.compose("down", "--volumes")


def test_it_chats_on_the_demo_provider_and_can_write_nowhere_else(project: Project) -> None:
    with project.running(DEMO):
        with project.http() as client:
            answers_both_ways(client)

        status = project.python("print(open('/proc/1/status').read())")
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert fields["Uid"].split() == ["999"] * 4
        assert fields["Gid"].split() == ["999"] * 4
        assert {int(fields[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
        assert fields["NoNewPrivs"] == "1"
        places = ("/", "/app", "/app/.venv", "/etc", "/app/data", "/tmp")  # noqa: S108
        written = project.python(TRY_TO_WRITE, *places).splitlines()
        assert written[:4] == [f"{place} Read-only file system" for place in places[:4]]
        assert written[4:] == [f"{place} open" for place in places[4:]]


def test_production_starts_with_secrets_from_files_and_remembers_over_a_stop_and_a_kill(
    production: Project, fake: Any, fakes: Any
) -> None:
    with production.http() as client:
        assert client.post("/v1/chat/completions", json=question("Hello")).status_code == 401
    assert not fake.ledger.calls
    chats(production)
    assert [call.outcome for call in fake.ledger.calls] == ["answered"] * 2
    assert IN_THE_PROMPT in json.dumps(fake.ledger.calls[0].messages)

    once = {"Idempotency-Key": "paid-once"}
    with production.http(KEY) as client:
        first = client.post("/v1/chat/completions", json=question("Hello"), headers=once)
    kill_the_server(production)
    stop_in_mid_stream(production, fake, fakes)
    calls = len(fake.ledger.calls)
    production.compose("down")  # the container is gone, the volume stays
    production.up()
    assert spent(production) > first.json()["survival_kit"]["cost_usd"] > 0
    with production.http(KEY) as client:
        again = client.post("/v1/chat/completions", json=question("Hello"), headers=once)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.content == first.content
    assert len(fake.ledger.calls) == calls


def test_a_hanging_app_becomes_unhealthy(project: Project) -> None:
    often = {"interval": "1s", "timeout": "1s", "retries": 2}
    with project.running(DEMO, healthcheck=often):
        assert project.python(SEND_TO_SERVER, "SIGSTOP").split() == ["sent"]
        project.wait_for_health("unhealthy")
        project.python(SEND_TO_SERVER, "SIGCONT")
        project.wait_for_health("healthy")


@pytest.mark.parametrize("lacking", [list(SECRETS), ["ADMIN_TOKEN"]])
def test_missing_secrets_stop_it_with_the_list_of_problems(
    project: Project, lacking: list[str]
) -> None:
    project.override({name: value for name, value in SECRETS.items() if name not in lacking})
    try:
        done = project.attempt("run", "--rm", "--no-TTY", "app")
        assert done.returncode == EX_CONFIG
        for name in SECRETS:
            assert (f"  {name}: " in done.stderr) == (name in lacking), done.stderr
        for value in SECRETS.values():
            assert value not in done.stderr

        began = time.monotonic()
        assert project.attempt("up", "--wait").returncode != 0
        assert time.monotonic() - began < 30, "a deploy that cannot start must say so soon"
        assert f"  {lacking[0]}: " in project.compose("logs", "app")
    finally:
        project.compose("down", "--volumes")


def test_a_secret_that_the_app_may_not_read_is_a_problem_it_names(project: Project) -> None:
    project.override({}, secrets=SECRETS)
    for name in SECRETS:
        (project.folder / "secrets" / name).chmod(0o600)
    try:
        done = project.attempt("run", "--rm", "--no-TTY", "app")
        assert done.returncode == EX_CONFIG, done.stderr
        assert "  ADMIN_TOKEN: " in done.stderr
    finally:
        project.compose("down", "--volumes")
