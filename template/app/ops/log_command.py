"""The command that shows a request's lines in the log of the place where this app runs.

RUNBOOK.md says the same; a test compares.
"""

import os
from typing import Any

from app.foundation.project import DeployName, Project

# Stands in a command for the request's id, which no shell takes for more than a word.
REQUEST_ID = "REQUEST_ID"
_COMMANDS: dict[DeployName, str] = {
    "docker": f"docker compose logs --no-log-prefix app | grep -F -e {REQUEST_ID}",
    "vercel": f"vercel logs --environment production --since 1d --query {REQUEST_ID}",
    "aws": (
        "aws logs filter-log-events --log-group-name {group}"
        f" --filter-pattern '\"{REQUEST_ID}\"' --query 'events[].message' --output text"
    ),
}


def log_command(project: Project, *, production: bool) -> dict[str, Any]:
    """`place` is the target, and `command` what to run there.

    In development `place` is `terminal`, without a command: the log is where the app was started.
    """
    if not production:
        return {"place": "terminal", "command": None}
    command = _COMMANDS[project.deploy].format(group=_group(project.slug))
    return {"place": project.deploy, "command": command}


def _group(slug: str) -> str:
    """Where AWS keeps the log. A function is told; a container (ecs.yaml) is not."""
    if os.environ.get("ECS_CONTAINER_METADATA_URI_V4"):
        return f"/ecs/{slug}"
    return os.environ.get("AWS_LAMBDA_LOG_GROUP_NAME") or f"/aws/lambda/{slug}"
