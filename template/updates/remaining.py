"""What is left to do by hand when other answers were given: keys, data, places to deploy to."""

from typing import Any

from updates.changes import Change
from updates.messages import say

_NEEDS = {"compatible": "COMPATIBLE_BASE_URL"}


def remaining_steps(
    old: dict[str, Any], new: dict[str, Any], changes: tuple[Change, ...]
) -> tuple[str, ...]:
    """One sentence a step, in the order in which they are best done."""
    steps = []
    before, after = _words(old.get("providers")), _words(new.get("providers"))
    for name in sorted(after - before):
        steps.append(say("left.provider_added", name=_NEEDS.get(name, f"{name.upper()}_API_KEY")))
    for name in sorted(before - after):
        steps.append(say("left.provider_removed", provider=name, prefix=f"{name.upper()}_"))
    stores = old.get("store", "sqlite"), new.get("store", "sqlite")
    if stores[0] != stores[1]:
        setting = "REDIS_URL" if stores[1] == "redis" else "DATABASE_URL"
        steps.append(say("left.store", old=stores[0], new=stores[1], setting=setting))
    places = old.get("deploy", "docker"), new.get("deploy", "docker")
    if places[0] != places[1]:
        steps.append(say("left.deploy", new=places[1]))
    names = old.get("slug"), new.get("slug")
    if all(names) and names[0] != names[1]:
        steps.append(say("left.slug", old=names[0], new=names[1]))
    if old.get("language") != new.get("language"):
        steps.append(say("left.language"))
    if new.get("knowledge") and not old.get("knowledge"):
        steps.append(say("left.knowledge"))
    if any(change.path == "pyproject.toml" for change in changes):
        steps.append(say("left.lock"))
    return tuple(steps)


def _words(value: Any) -> set[str]:
    return {str(one) for one in value} if isinstance(value, list) else set()
