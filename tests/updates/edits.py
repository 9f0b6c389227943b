"""What people do to their apps: every edit that no update may lose."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.updates.editing import Edit
from tests.updates.makers import (
    append,
    carriage_returns,
    delete,
    executable,
    formatted,
    line_replaced,
    link,
    rename,
    replace,
    uv_add,
    write,
)

EXAMPLE = '''
class Sentiment(BaseModel):
    """A typed answer: the model must fill exactly these fields."""

    mood: str = Field(description="one word, such as happy, angry or neutral")
    confidence: float = Field(description="from 0 to 1")

'''
ROUTE = '''

@router.post("/translate")
async def translate(question: Question, model: Model) -> Reply:
    """My own feature."""
    return Reply(text=await model.ask(f"Translate into Korean: {question.text}"))
'''
COMMENTED = "# REQUESTS_PER_MINUTE_PER_IP=120\n"
SERVICE = """\
  mailpit:
    image: axllent/mailpit
    restart: unless-stopped
"""
POLICY = "app/yours/policy.toml"
RULE = """
[[rule]]
name = "rivals"
action = "block"
words = ["another bakery"]
reason = "We only speak of our own."
"""
ALERTS = "deploy/monitoring/alertmanager/alertmanager.yml"
TABLE = """
[tool.coverage.run]
branch = true
"""
WORKFLOW = """\
name: nightly
on:
  schedule:
    - cron: "0 3 * * *"
jobs: {}
"""
STEP = """\
      - name: Tell the team
        run: echo "the checks begin"
"""


def pyproject(app: Path) -> dict[str, Any]:
    """The app's pyproject.toml, read."""
    with (app / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)


def depends(requirement: str) -> Callable[[Path], bool]:
    """Whether the app depends on it, once."""

    def works(app: Path) -> bool:
        found: list[str] = pyproject(app)["project"]["dependencies"]
        return found.count(requirement) == 1

    return works


def service(app: Path) -> bool:
    """Whether Compose would start the added service and the app."""
    services = yaml.safe_load((app / "compose.yaml").read_text(encoding="utf-8"))["services"]
    return "mailpit" in services and "app" in services


def new(what: str, name: str, content: str | bytes, mode: int = 0o644) -> Edit:
    """A file that the template does not have."""
    return Edit(what, (name,), write(name, content, mode), brings=True)


YOURS = (
    Edit(
        "prompt rewritten",
        ("app/yours/system_prompt.md",),
        write("app/yours/system_prompt.md", "You are the help desk of a bakery.\n"),
    ),
    Edit("route added", ("app/yours/routes.py",), append("app/yours/routes.py", ROUTE)),
    Edit("example deleted", ("app/yours/routes.py",), replace("app/yours/routes.py", EXAMPLE, "")),
    Edit("policy rule added", (POLICY,), append(POLICY, RULE)),
    new("feature added", "app/yours/billing.py", '"""My feature."""\n\nPRICE = 3\n'),
    new("binary file added", "app/yours/logo.png", b"\x89PNG\r\n\x1a\n\x00\x01\x02<<<<<<< \xff"),
    new("assistant's instructions added", "app/yours/AGENTS.md", "Answer in haiku.\n"),
    new("tests added", "tests/yours/test_billing.py", "def test_price() -> None: ...\n"),
    Edit(
        "test renamed",
        ("tests/yours/test_ask.py", "tests/yours/test_features.py"),
        rename("tests/yours/test_features.py", "tests/yours/test_ask.py"),
        brings=True,
    ),
    new("notes with an odd name added", "docs/우리 메모 (1).md", "Mine.\n\n\n"),
    new("file with CR LF added", "notes.txt", b"one\r\ntwo\r\n"),
    new("script added", "scripts/backup.sh", "#!/bin/sh\ncp -r data backup\n", 0o755),
    Edit("link added", ("CLAUDE.md",), link("CLAUDE.md", "AGENTS.md"), brings=True),
    new("workflow added", ".github/workflows/nightly.yml", WORKFLOW),
    new("document added", "knowledge/prices.md", "# Prices\n\nA loaf is 4 euro.\n"),
    Edit(
        "document rewritten",
        ("knowledge/about-these-documents.md",),
        write("knowledge/about-these-documents.md", "# Opening hours\n\nFrom six to noon.\n"),
    ),
    new("alerts added", "deploy/monitoring/prometheus/rules.yours.yml", "groups: []\n"),
    new("compose override added", "compose.override.yaml", "services: {}\n"),
    new("lock file committed", "uv.lock", "version = 1\n"),
    new(".env filled", ".env", "OPENAI_MODEL=gpt-6-sol\nREQUESTS_PER_MINUTE=300\n"),
    new("data written", "data/app.db", b"SQLite format 3\x00"),
)

MERGEABLE = (
    Edit(
        "dependency added by uv add",
        ("pyproject.toml",),
        uv_add("jinja2>=3,<4"),
        depends("jinja2>=3,<4"),
    ),
    Edit(
        "dependency added by hand",
        ("pyproject.toml",),
        replace(
            "pyproject.toml",
            "\n]\n\n[project.scripts]",
            '\n    "polars>=1,<3",\n]\n\n[project.scripts]',
        ),
        depends("polars>=1,<3"),
    ),
    Edit(
        "dependency pinned",
        ("pyproject.toml",),
        replace("pyproject.toml", '"tiktoken>=0.14.0,<1"', '"tiktoken==0.14.0"'),
        depends("tiktoken==0.14.0"),
    ),
    Edit(
        "development dependency added by uv add",
        ("pyproject.toml",),
        uv_add("--dev", "pytest-cov>=6"),
        lambda app: "pytest-cov>=6" in pyproject(app)["dependency-groups"]["dev"],
    ),
    Edit(
        "command added",
        ("pyproject.toml",),
        replace(
            "pyproject.toml",
            "\n\n[dependency-groups]",
            '\nbill = "app.yours.billing:main"\n\n[dependency-groups]',
        ),
        lambda app: "bill" in pyproject(app)["project"]["scripts"],
    ),
    Edit(
        "tool configured",
        ("pyproject.toml",),
        append("pyproject.toml", TABLE),
        lambda app: pyproject(app)["tool"]["coverage"]["run"]["branch"] is True,
    ),
    Edit(
        "version raised",
        ("pyproject.toml",),
        replace("pyproject.toml", 'version = "0.1.0"', 'version = "1.4.2"'),
    ),
    Edit(
        "README: chapter added",
        ("README.md",),
        append("README.md", "\n## My own chapter\n\nHow we run it here.\n"),
    ),
    Edit(
        "README: first sentence rewritten",
        ("README.md",),
        line_replaced("README.md", 2, "The help desk of our bakery."),
    ),
    Edit(
        "setting of one's own named",
        (".env.example",),
        append(".env.example", "\n# MY_SETTING=1\n"),
    ),
    Edit(
        "limit raised",
        (".env.example",),
        replace(".env.example", COMMENTED, "REQUESTS_PER_MINUTE_PER_IP=500\n"),
    ),
    Edit("pattern ignored", (".gitignore",), append(".gitignore", "\n/my-notes/\n")),
    Edit("compose service added", ("compose.yaml",), append("compose.yaml", SERVICE), service),
    Edit(
        "more processors given",
        ("compose.yaml",),
        replace("compose.yaml", 'cpus: "1.0"', 'cpus: "2.0"'),
        service,
    ),
    Edit("runbook: notes added", ("RUNBOOK.md",), append("RUNBOOK.md", "\n## Our bakery\n")),
    Edit(
        "receiver of alerts added",
        (ALERTS,),
        append(ALERTS, "  - name: bakery\n"),
        lambda app: {"name": "bakery"} in yaml.safe_load((app / ALERTS).read_bytes())["receivers"],
    ),
    Edit(
        "stack parameter added",
        ("samconfig.toml",),
        append("samconfig.toml", 'LogRetentionDays = "90"\n'),
    ),
)

TEMPLATE = (
    Edit(
        "limit raised in the code",
        ("app/foundation/settings.py",),
        replace("app/foundation/settings.py", "le=1_000_000)] = 60\n", "le=1_000_000)] = 90\n"),
    ),
    Edit(
        "safeguard patched",
        ("app/standards/spending/shield.py",),
        replace("app/standards/spending/shield.py", "HEADROOM = 4\n", "HEADROOM = 8\n"),
    ),
    Edit(
        "middleware added",
        ("app/main.py",),
        replace(
            "app/main.py",
            "    # The last one added meets a request first.\n",
            "    app.state.mine = True\n    # The last one added meets a request first.\n",
        ),
    ),
    Edit("function added", ("app/health.py",), append("app/health.py", "\n\nMINE = 1\n")),
    Edit("module formatted anew", ("app/targets.py",), formatted("app/targets.py")),
    Edit(
        "CR LF in a module",
        ("app/standards/tokens/gate.py",),
        carriage_returns("app/standards/tokens/gate.py", '"""', '"""(Patched here.) '),
    ),
    Edit(
        "message reworded",
        ("app/foundation/texts/ko.json",),
        replace("app/foundation/texts/ko.json", '"alert.on_call": "', '"alert.on_call": "☎ '),
    ),
    Edit(
        "chat page recoloured",
        ("app/web/chat/chat.css",),
        replace("app/web/chat/chat.css", "--rail: 2.75rem;", "--rail: 3rem;"),
    ),
    Edit(
        "icon replaced",
        ("app/web/chat/favicon.svg",),
        write("app/web/chat/favicon.svg", '<svg xmlns="http://www.w3.org/2000/svg"/>\n'),
    ),
    Edit("module deleted", ("tests/test_demo_provider.py",), delete("tests/test_demo_provider.py")),
    new("checklist item added", "checklist/test_6_1_ours.py", '"""Our own item."""\n'),
    Edit(
        "assistants told more",
        ("AGENTS.md",),
        append("AGENTS.md", "- Ask before you add a dependency.\n"),
    ),
    Edit(
        "system package added",
        ("Dockerfile",),
        replace(
            "Dockerfile",
            "WORKDIR /app\nCOPY --from=build",
            "WORKDIR /app\nRUN apt-get update && apt-get install -y ffmpeg\nCOPY --from=build",
        ),
    ),
    Edit("file made executable", ("mypy.ini",), executable("mypy.ini")),
    Edit("longer lines allowed", ("ruff.toml",), replace("ruff.toml", "= 100", "= 120")),
    Edit(
        "test marker added",
        ("pytest.ini",),
        append("pytest.ini", "filterwarnings =\n    ignore::DeprecationWarning\n"),
    ),
    Edit(
        "workflow step added",
        (".github/workflows/checks.yml",),
        replace(".github/workflows/checks.yml", "    steps:\n", f"    steps:\n{STEP}"),
    ),
    Edit(
        "update interval changed",
        (".github/dependabot.yml",),
        replace(".github/dependabot.yml", "weekly", "monthly"),
    ),
    Edit(
        "longer function allowed",
        ("vercel.json",),
        replace("vercel.json", '"maxDuration": 300', '"maxDuration": 800'),
    ),
    Edit(
        "more memory for the function",
        ("deploy/aws/template.yaml",),
        append("deploy/aws/template.yaml", "# reviewed by our operations\n"),
    ),
)

EDITS = (*YOURS, *MERGEABLE, *TEMPLATE)
