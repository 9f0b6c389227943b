"""What is checked before anything starts: the environment, the prices, the alert addresses."""

from app.foundation.checks import Problem
from app.foundation.settings import Settings
from app.standards.environment import load_or_exit
from app.standards.visibility.delivery import alert_url_problems
from app.targets import price_problems


def check_environment() -> Settings:
    """The settings; or every problem at once on standard error, and exit code 78."""
    return load_or_exit(price_problems, _alert_problems)


def _alert_problems(settings: Settings) -> list[Problem]:
    return [
        Problem("alert_urls", "alert_url", {"place": place})
        for place in alert_url_problems(settings)
    ]
