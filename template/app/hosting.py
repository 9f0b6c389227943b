"""What the place that this app was generated for allows, checked before anything starts."""

from app.foundation.checks import Problem
from app.foundation.project import DeployName, load_project
from app.foundation.settings import Settings

PLACES: dict[DeployName, str] = {"docker": "Docker", "vercel": "Vercel", "aws": "AWS Lambda"}

# A function's disk goes with its instance, and every instance has one of its own.
NO_LASTING_DISK: frozenset[DeployName] = frozenset({"vercel", "aws"})

# How long a request may take, in seconds: the function's longest duration (300 s in vercel.json,
# 900 s in template.yaml), less what settling the charge may take after the answer.
LONGEST_BUDGET: dict[DeployName, float] = {"vercel": 270, "aws": 870}


def hosting_problems(settings: Settings) -> list[Problem]:
    """What does not fit the place: a store on its disk, a long budget, a secret of AWS."""
    project = load_project()
    place, wrong = PLACES[project.deploy], []
    if project.deploy in NO_LASTING_DISK and project.store == "sqlite":
        wrong.append(Problem("database_url", "no_lasting_disk", {"place": place}))
    longest = LONGEST_BUDGET.get(project.deploy, settings.time_budget_seconds)
    if settings.time_budget_seconds > longest:
        facts = {"place": place, "longest": longest}
        wrong.append(Problem("time_budget_seconds", "over_duration", facts))
    if settings.aws_secret_name and project.deploy != "aws":
        wrong.append(Problem("aws_secret_name", "aws_only"))
    return wrong
