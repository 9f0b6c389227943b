"""docs/deploy/vercel.md: its commands, in their order, as they stand there.

What needs the platform is stood in for: `vercel link` by the file that it writes, the deployment by
the built function in Vercel's own runtime.
"""

import json
import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.deploy.pages import commands
from tests.deploy.runbook import rollback
from tests.deploy.stage import load_fakes, store_server
from tests.deploy.vercel import CACHE, PROJECT, PYTHON, Function, install_cli
from tests.kit import interpreter, run
from tests.releases.snapshot import ROOT

pytestmark = pytest.mark.deploy

PAGE = ROOT / "docs/deploy/vercel.md"
ADMIN, ALICE = "admin-0123456789", "alice-0123456789"
BUILD = "VERCEL_PYTHON_COMPILEALL=1 vercel build --prod --yes"
LOCAL = ("uv lock --check", BUILD, 'uv run checklist --url "$PRODUCTION_URL"')
DEPLOY = "vercel deploy --prebuilt --prod"
ROLLBACK = "vercel rollback"
ON_THE_PLATFORM = ("vercel link", DEPLOY, ROLLBACK)


def test_the_page_leads_to_an_app_that_answers(folder: Path, tmp_path: Path) -> None:
    install_cli()
    path = (CACHE / "vercel/node_modules/.bin", Path(interpreter(PYTHON)).parent)
    environment = {
        "APP_KEY": ALICE,
        "CHECKLIST_ADMIN_TOKEN": ADMIN,
        "CHECKLIST_APP_KEY": ALICE,
        "PATH": os.pathsep.join([*map(str, path), os.environ["PATH"]]),
        "SURVIVAL_KIT": str(folder),
        "VERCEL_TELEMETRY_DISABLED": "1",
    }
    where = tmp_path
    printed: dict[str, str] = {}
    passed: list[str] = []
    with ExitStack() as stack:
        for command in commands(PAGE):
            if command.needs_the_platform:
                passed.append(command.text)
                if command.text == "vercel link":
                    (where / ".vercel").mkdir()
                    (where / ".vercel/project.json").write_text(json.dumps(PROJECT))
                elif command.text == DEPLOY and "PRODUCTION_URL" not in environment:
                    environment["PRODUCTION_URL"] = deployed(where, tmp_path / "task", stack)
            elif command.text.startswith("cd "):
                where /= command.text.removeprefix("cd ")
            else:
                shell = ("bash", "--noprofile", "--norc", "-e", "-c", command.text)
                printed[command.text] = run(where, *shell, **environment)
                print(f"$ {command.text}\n{printed[command.text]}")
    assert set(LOCAL) <= printed.keys()
    assert set(ON_THE_PLATFORM) <= set(passed)
    assert [" ".join(words) for words in rollback(where)] == [ROLLBACK]


def deployed(app: Path, bundle: Path, stack: ExitStack) -> str:
    """Serve what was built; the address."""
    fake = stack.enter_context(load_fakes(app, "fake_of_vercel_page").FakeProvider())
    settings = {
        "ADMIN_TOKEN": ADMIN,
        "APP_API_KEYS": f"alice:{ALICE}",
        "OPENAI_API_KEY": "sk-provider-0123456789",
        "OPENAI_BASE_URL": fake.openai_base_url,
        **stack.enter_context(store_server(app)),
    }
    function = Function.found(app)
    function.unpack(bundle)
    instance = stack.enter_context(function.instance(bundle, settings))
    return f"http://127.0.0.1:{instance.port}"
