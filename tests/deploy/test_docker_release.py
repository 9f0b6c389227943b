"""deploy/docker/release.sh and changed secrets, on a real engine, with one container and SQLite."""

import os
import shutil
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.engine import Engine
from tests.deploy.project import (
    EVERY_ADDRESS,
    KEY,
    SECRETS,
    Project,
    build,
    on_the_fake,
    spent,
)
from tests.deploy.runbook import rollback
from tests.deploy.stage import question
from tests.kit import answers, generate, run
from tests.secrets.keychain import secrets

pytestmark = pytest.mark.deploy

BEFORE = "0.1.0"
NEW_KEY = "alice-9876543210"
NEW_PROVIDER_KEY = "sk-provider-9876543210"
WORKFLOW = ".github/workflows/deploy-docker.yml"
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def fake(fakes: Any) -> Iterator[Any]:
    with fakes.FakeProvider(EVERY_ADDRESS) as running:
        yield running


@pytest.fixture(scope="module")
def old(
    engine: Engine, repository: Path, tmp_path_factory: pytest.TempPathFactory, fake: Any
) -> Iterator[Project]:
    """An app of the first release, in production: it was there before."""
    folder = tmp_path_factory.mktemp("docker") / "old"
    project = Project(generate(repository, folder, answers(), f"v{BEFORE}"), engine)
    run(folder, "uv", "lock", "--quiet")
    build(project)
    with project.running(**on_the_fake(fake), secrets=SECRETS):
        yield project


@pytest.fixture(scope="module")
def project(
    engine: Engine, folder: Path, old: Project, tmp_path_factory: pytest.TempPathFactory, fake: Any
) -> Project:
    """The app as it is now, in the same compose project and with the same volume."""
    path = tmp_path_factory.mktemp("docker") / "new"
    found = Project(generate(folder, path, answers()), engine)
    run(path, "git", "init", "--quiet")
    run(path, "uv", "lock", "--quiet")
    run(path, "git", "add", "--all")
    run(path, "git", "commit", "--quiet", "--message", "The new version")
    found.override(**on_the_fake(fake), secrets=SECRETS)
    return found


def ask(project: Project, once: str) -> tuple[str | None, bytes]:
    """A question with an idempotency key: whether its answer is a replay, and the answer."""
    project.find()
    with project.http(KEY) as client:
        headers = {"Idempotency-Key": once}
        answer = client.post(CHAT, json=question("Hello"), headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.headers.get("Idempotency-Replayed"), answer.content


def test_a_release_is_taken_back_and_the_old_version_reads_what_the_new_one_wrote(
    old: Project, project: Project, fake: Any
) -> None:
    image = old.container()["Image"]
    assert ask(old, "paid-before")[0] is None
    paid = spent(old)

    commit = run(project.folder, "git", "rev-parse", "--short=12", "HEAD").strip()
    shown = project.release("deploy")
    print(shown)
    assert f"{project.name}:{commit}" in shown
    assert project.container()["Image"] != image
    assert ask(project, "paid-before")[0] == "true"
    answer = ask(project, "paid-after")[1]
    assert spent(project) > paid
    paid = spent(project)
    assert project.release("try", SMOKE_APP_KEY=KEY).endswith("answers\n")
    calls = len(fake.ledger.calls)

    (command,) = rollback(project.folder)
    assert command[0] == "deploy/docker/release.sh"
    print(project.release(*command[1:]))
    assert project.container()["Image"] == image
    assert ask(project, "paid-after") == ("true", answer)
    assert spent(project) > paid, "what was tried was paid for too"
    assert len(fake.ledger.calls) == calls

    print(project.release("rollback"))  # and forward again
    assert project.container()["Image"] != image
    assert ask(project, "paid-after") == ("true", answer)
    assert "POST /v1/chat/completions 200" in project.release("logs", "--since", "1h")


def test_a_version_that_does_not_start_is_not_what_stays(old: Project, project: Project) -> None:
    image = project.container()["Image"]
    shown = project.release("version")
    main = project.folder / "app/main.py"
    before = main.read_text()
    main.write_text("raise SystemExit('broken')\n")
    try:
        with pytest.raises(AssertionError, match=r"broken[\s\S]*the version before serves"):
            project.release("deploy")
    finally:
        main.write_text(before)
    assert project.container()["Image"] == image
    assert project.release("version") == shown
    assert ask(project, "paid-after")[0] == "true"
    with pytest.raises(AssertionError, match="a question: 401"):
        project.release("try", SMOKE_APP_KEY="not-a-key-0123456789")


def test_the_workflow_deploys_tries_and_takes_back(
    engine: Engine, old: Project, project: Project, tmp_path: Path
) -> None:
    """The steps of its last job, as they stand there. Stood in for: SSH, and the registry."""
    server = tmp_path / "server/app"
    server.mkdir(parents=True)
    for name in ("compose.override.yaml", "secrets"):
        (server / name).symlink_to(project.folder / name)
    tools = tmp_path / "tools"
    tools.mkdir()
    stand_in(tools / "ssh", f'[ "$1" = user@server ]; shift; cd {server.parent}; exec sh -c "$*"')
    docker = shutil.which("docker", path=engine.environment.get("PATH"))
    stand_in(tools / "docker", f'case $1 in log*) exit ;; esac; exec {docker} "$@"')
    image = "ghcr.io/kit/app:0123456789ab"
    labelled = f"FROM {project.name}\nLABEL version=next\n"
    (tmp_path / "Dockerfile").write_text(labelled)
    engine.docker("build", "--quiet", "--tag", image, tmp_path)
    workflow = yaml.safe_load((project.folder / WORKFLOW).read_text())
    steps = {step["name"]: step for step in workflow["jobs"]["deploy"]["steps"]}
    path = engine.environment.get("PATH", os.environ["PATH"])
    outputs = tmp_path / "outputs"

    def step(name: str, **environment: str) -> str:
        known = {
            **engine.environment,
            **project.variables,
            "COMPOSE_PROJECT_NAME": project.name,
            "DEPLOY_FOLDER": "app",
            "DEPLOY_HOST": "user@server",
            "GITHUB_ACTOR": "kit",
            "GITHUB_OUTPUT": str(outputs),
            "IMAGE": image,
            "PATH": f"{tools}:{path}",
            "REGISTRY_TOKEN": "token-0123456789",
            "RUNNER_TEMP": str(tmp_path),
            "URL": project.url,
        }
        return run(project.folder, "bash", "-e", "-c", steps[name]["run"], **known | environment)

    before = project.container()["Image"]
    step("Send the compose files")
    assert (server / "deploy/docker/release.sh").is_file()
    step("Deploy")
    step("Leave no token on the server")
    deployed = project.container()["Image"]
    assert deployed != before
    assert outputs.read_text() == "changed=true\n"
    assert "steps.deploy.outputs.changed == 'true'" in steps["Roll back"]["if"]
    step("Deploy")  # run again: what serves is what served
    assert outputs.read_text() == "changed=true\nchanged=false\n"
    assert project.container()["Image"] == deployed
    project.find()
    assert "answers" in step("Try what was deployed", SMOKE_APP_KEY=KEY)
    with pytest.raises(AssertionError, match="a question: 401"):
        step("Try what was deployed", SMOKE_APP_KEY="not-a-key-0123456789")
    print(step("Roll back"))
    assert project.container()["Image"] == before


def stand_in(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\nset -e\n{script}\n")
    path.chmod(0o755)


def test_secrets_are_rotated_without_a_build(old: Project, project: Project, fake: Any) -> None:
    container = project.container()
    changed = {
        "APP_API_KEYS": f"alice:{NEW_KEY},alice-old:{KEY}",
        "OPENAI_API_KEY": NEW_PROVIDER_KEY,
    }
    lines = [f"{name}={value}\n" for name, value in changed.items()]
    (project.folder / ".env.production").write_text("".join(lines))
    # It puts each in its place at once: it is another file then.
    sent = secrets(project.folder, "push", "--yes", "--file", ".env.production")
    assert sent.returncode == 0, sent.stderr
    project.compose("restart", "app")
    project.wait_for_health("healthy")
    project.find()
    assert project.container()["Id"] == container["Id"]
    for key in (NEW_KEY, KEY):
        with project.http(key) as client:
            assert client.post(CHAT, json=question("Hello")).status_code == 200
        assert fake.ledger.calls[-1].key == sha256(NEW_PROVIDER_KEY.encode()).hexdigest()[:12]

    (project.folder / "secrets/APP_API_KEYS").write_text(f"alice:{NEW_KEY}\n")
    project.release("restart")
    project.find()
    assert project.container()["Image"] == container["Image"]
    with project.http(KEY) as client:
        assert client.post(CHAT, json=question("Hello")).status_code == 401
    with project.http(NEW_KEY) as client:
        assert client.post(CHAT, json=question("Hello")).status_code == 200
