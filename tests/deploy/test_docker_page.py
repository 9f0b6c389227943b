"""docs/deploy/docker.md: its commands, in their order, as they stand there, on a real engine.

What the platform brings is stood in for: the domain is `localhost`, `git pull` is a new commit.
"""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.engine import Engine
from tests.deploy.images import CERTIFICATES
from tests.deploy.pages import commands
from tests.deploy.project import ADMIN, KEY, SECRETS, on_the_fake
from tests.deploy.proxied import Proxied
from tests.kit import run
from tests.releases.snapshot import ROOT

pytestmark = pytest.mark.deploy

PAGE = ROOT / "docs/deploy/docker.md"
NEW_KEY = "sk-provider-9876543210"
PULL = "git pull"
ROLLBACK = "deploy/docker/release.sh rollback"
CHECKLIST = 'uv run checklist --url "$PRODUCTION_URL"'
ON_THE_PLATFORM = {
    PULL,
    'deploy/docker/release.sh deploy "$IMAGE"',
    "docker compose --profile monitoring up --detach --wait",
}


def test_the_page_leads_to_an_app_that_answers(
    engine: Engine, folder: Path, tmp_path: Path, fake: Any
) -> None:
    project = Proxied(tmp_path / "my-app", engine)
    environment = {
        **engine.environment,
        "ADMIN_TOKEN": ADMIN,
        "APP_KEY": KEY,
        "CHECKLIST_ADMIN_TOKEN": ADMIN,
        "CHECKLIST_APP_KEY": KEY,
        "COMPOSE_PROJECT_NAME": project.name,
        "DOMAIN": "localhost",
        "HTTP_PORT": "0",
        "HTTPS_PORT": "0",
        "NEW_OPENAI_API_KEY": NEW_KEY,
        "OPENAI_API_KEY": SECRETS["OPENAI_API_KEY"],
        "PUBLISHED_PORT": "0",
        "SURVIVAL_KIT": str(folder),
    }
    where = tmp_path
    printed: dict[str, str] = {}
    passed = set()
    try:
        for command in commands(PAGE):
            if command.needs_the_platform:
                passed.add(command.text)
                if command.text == PULL:
                    new_commit(where)
                continue
            if command.text.startswith("cd "):
                where /= command.text.removeprefix("cd ")
                continue
            if "PRODUCTION_URL" in command.text and not project.url:
                project.find()
                environment["PRODUCTION_URL"] = project.url
                environment |= dict.fromkeys(("CURL_CA_BUNDLE", "SSL_CERT_FILE"), trust(project))
            shell = ("bash", "--noprofile", "--norc", "-e", "-c", command.text)
            printed[command.text] = run(where, *shell, **environment)
            print(f"$ {command.text}\n{printed[command.text]}")
            if command.text.endswith("> compose.override.yaml"):
                add_the_network(project, fake)
    finally:
        if (project.folder / "compose.override.yaml").exists():
            print(project.attempt("logs", "--no-color").stdout)
            project.attempt("down", "--volumes", "--timeout", "1")
    assert passed == ON_THE_PLATFORM
    assert {CHECKLIST, ROLLBACK} <= printed.keys()
    assert printed['SMOKE_APP_KEY="$APP_KEY" deploy/docker/release.sh try'].endswith("answers\n")
    assert "Application startup complete" in printed["deploy/docker/release.sh logs --since 1h"]
    serves, before = commits(printed["deploy/docker/release.sh version"])
    assert serves != before
    assert commits(printed[ROLLBACK]) == [before, serves]


def commits(versions: str) -> list[str]:
    """The commits of what serves and of what did before, as release.sh tells them at its end."""
    tags = [set(line.split()[1:]) for line in versions.splitlines()[-2:]]
    found = [[tag for tag in of if not tag.endswith((":latest", ":previous"))] for of in tags]
    assert all(len(names) == 1 for names in found), versions
    return [names[0] for names in found]


def trust(project: Proxied) -> str:
    """The authorities that this machine trusts and, beside them, the proxy's own: a file."""
    known = Path(os.environ.get("SSL_CERT_FILE", CERTIFICATES)).read_text()
    both = project.folder.parent / "trusted.crt"
    both.write_text(known + project.authority().read_text())
    return str(both)


def new_commit(app: Path) -> None:
    """What `git pull` brings."""
    (app / "app/yours/system_prompt.md").write_text("Be brief.\n")
    run(app, "git", "commit", "--quiet", "--all", "--message", "Be brief")


def add_the_network(project: Proxied, fake: Any) -> None:
    """The way to the provider, and to PyPI during a build, which a server has by itself."""
    path = project.folder / "compose.override.yaml"
    written = yaml.safe_load(path.read_text())
    app = written["services"]["app"] | on_the_fake(fake)
    if project.engine.throwaway:
        app["build"] = {"network": "host"}
    path.write_text(yaml.safe_dump({**written, "services": {"app": app}}))
