"""`secrets check`: what each environment lacks, or holds that the app would not start with."""

from collections.abc import Iterable
from pathlib import Path

from keychain import env_file
from keychain.messages import say
from keychain.places import Place
from keychain.values import known_names, problems_of, sent_elsewhere


def check_file(path: Path) -> bool:
    """Look at `.env` as `uv run dev` would; True when nothing is wrong."""
    values = env_file.read(path)
    problems = problems_of(values, production=False)
    mode = env_file.open_to_others(path)
    if mode:
        problems[path.name] = say("check.open_to_others", mode=mode, file=path.name)
    return _show(path.name, set(values), problems)


def check_place(place: Place, path: Path) -> bool:
    """Look at the target as the app would in production; True when nothing is wrong.

    Raises `PlaceError` where it gives no answer.
    """
    local, held = env_file.read(path), place.held()
    # Whatever file was named: what is handed over beside the place's own is in .env.
    seen = place.seen_by_the_app(env_file.read(env_file.ENV), held)
    found = problems_of(seen, production=True)
    # What is hidden is there; more cannot be known.
    problems = {name: words for name, words in found.items() if name not in held.hidden}
    problems |= held.problems
    complete = _show(place.title, {*seen, *held.hidden}, problems)
    mine = sent_elsewhere(local, filter(place.accepts, known_names()))
    other = [name for name, value in mine.items() if held.values.get(name, value) != value]
    if other:
        print("  " + say("check.other", names=", ".join(other), file=path.name))
    return complete


def _show(title: str, names: Iterable[str], problems: dict[str, str]) -> bool:
    there = [name for name in known_names() if name in names and name not in problems]
    verdict = say("check.found", count=len(problems)) if problems else say("check.complete")
    print(f"{title}: {verdict}")
    for name in sorted(problems):
        print(f"  {name}: {problems[name]}")
    if there:
        print("  " + say("check.set", names=", ".join(there)))
    return not problems
