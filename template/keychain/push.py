"""`secrets push`: send what differs to the target, after showing the names and asking."""

import sys
from pathlib import Path

import questionary

from keychain import env_file
from keychain.messages import RefusedError, say
from keychain.places import Held, Place, PlaceError
from keychain.values import known_names, problems_of, sent_elsewhere


def push(path: Path, place: Place, names: list[str], *, sure: bool) -> bool:
    """Send the values of the file, or those of `names`; True when the target has them all.

    Raises `RefusedError` before anything was sent, and `PlaceError` where the target fails: what
    arrived before is said, and the next push sends the rest.
    """
    values = env_file.read(path)
    # What only the user's own code knows goes where it is named.
    mine = sent_elsewhere(values, filter(place.accepts, names or known_names()))
    _require_there(names, mine, path)
    if not mine:
        raise RefusedError("nothing", file=path.name)
    held = place.held()
    found = problems_of({**held.values, **mine}, production=True)
    wrong = {name: found[name] for name in mine if name in found}
    if wrong:
        print("\n".join(f"{name}: {words}" for name, words in wrong.items()), file=sys.stderr)
        print(say("push.wrong", file=path.name), file=sys.stderr)
        return False
    changed = {
        name: value
        for name, value in mine.items()
        if held.values.get(name) != value or name in held.problems
    }
    _show(place, held, mine, changed)
    if changed:
        if not sure and not _confirmed():
            print(say("push.not_sent"), file=sys.stderr)
            return False
        _send(place, changed)
        print(place.afterwards(set(mine)))
    _say_what_is_missing(place, Held({**held.values, **mine}, held.hidden))
    return True


def _require_there(names: list[str], mine: dict[str, str], path: Path) -> None:
    absent = [name for name in names if name not in mine]
    if absent:
        raise RefusedError("not_sendable", names=", ".join(absent), file=path.name)


def _show(place: Place, held: Held, mine: dict[str, str], changed: dict[str, str]) -> None:
    print(place.title)
    groups = {
        "new": [name for name in changed if name not in held.names],
        "changed": [name for name in changed if name in held.values],
        "hidden": [name for name in changed if name in held.hidden],
        "same": [name for name in mine if name not in changed],
    }
    for group, names in groups.items():
        if names:
            print("  " + say(f"push.{group}", names=", ".join(names)))
    sys.stdout.flush()


def _confirmed() -> bool:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise RefusedError("unconfirmed")
    return bool(questionary.confirm(say("push.ask"), default=False).unsafe_ask())


def _send(place: Place, changed: dict[str, str]) -> None:
    left = list(changed)
    try:
        for name in place.send(changed):
            left.remove(name)
            print(say("push.sent", name=name), flush=True)
    except (PlaceError, KeyboardInterrupt):
        print(say("push.left", names=", ".join(left)), file=sys.stderr)
        raise


def _say_what_is_missing(place: Place, held: Held) -> None:
    seen = place.seen_by_the_app(env_file.read(env_file.ENV), held)
    found = problems_of(seen, production=True)
    lacking = [f"{name}: {words}" for name, words in found.items() if name not in held.hidden]
    if lacking:
        print("\n".join([say("push.missing"), *(f"  {line}" for line in sorted(lacking))]))
