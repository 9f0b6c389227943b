"""Write `template/.survival-kit/files.toml`: which files an app has, depending on its answers.

    python tests/manifest.py

An app notices by this list that a safeguard was deleted. It is made from `_exclude` in copier.yml,
which decides what is copied, and lists template-owned files alone.
"""

import itertools
import json
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import pathspec
from jinja2 import Template
from jinja2.sandbox import SandboxedEnvironment

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.kit import CONFIG, PROVIDERS, TEMPLATE, owner, ownership
from tests.releases.snapshot import ROOT, git

TARGET = TEMPLATE / ".survival-kit/files.toml"
# The answers that decide which files there are; of the providers, any number is chosen.
CHOICES: dict[str, tuple[Any, ...]] = {
    "providers": PROVIDERS,
    "store": ("sqlite", "redis", "postgres"),
    "deploy": ("docker", "vercel", "aws"),
    "web_page": (True, False),
    "knowledge": (True, False),
}
HEAD = """\
# Which files of the template an app of this release has. The checklist and update previews read it:
# one that is missing was deleted, and no update brings it back. `make files` writes it.
#
# A group with answers is for the apps that gave one of them.
"""


def names() -> list[str]:
    """The template's own files, as they are called in an app."""
    listed = git(
        ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "template"
    )
    paths = {Path(name) for name in listed.decode().split("\0") if name and (ROOT / name).is_file()}
    found = {path.relative_to("template").as_posix().removesuffix(".jinja") for path in paths}
    found.add(TARGET.relative_to(TEMPLATE).as_posix())
    found = {CONFIG["_answers_file"] if "answers_file" in name else name for name in found}
    kinds = ownership(TEMPLATE)
    return sorted(name for name in found if owner(name, kinds) == "template")


@cache
def excluding() -> list[Template]:
    """The lines of `_exclude`, compiled once for all the answers there are."""
    environment = SandboxedEnvironment()
    return [environment.from_string(line) for line in CONFIG["_exclude"]]


def present(all_names: list[str], given: dict[str, Any]) -> set[str]:
    """Those that an app with these answers has."""
    context = {"_copier_operation": "copy"} | given
    lines = [line.render(context) for line in excluding()]
    excluded = pathspec.PathSpec.from_lines("gitignore", filter(None, lines))
    return {name for name in all_names if not excluded.match_file(name)}


def combinations() -> list[dict[str, Any]]:
    """All answers that decide which files there are."""
    chosen = [
        list(some)
        for count in range(1, len(PROVIDERS) + 1)
        for some in itertools.combinations(PROVIDERS, count)
    ]
    rest = {name: values for name, values in CHOICES.items() if name != "providers"}
    return [
        {"providers": providers, **dict(zip(rest, values, strict=True))}
        for providers in chosen
        for values in itertools.product(*rest.values())
    ]


def groups(all_names: list[str]) -> dict[str, list[str]]:
    """Files by the answers that they need, as TOML. Raises where that cannot be said this way."""
    cases = [(given, present(all_names, given)) for given in combinations()]
    found: dict[str, list[str]] = defaultdict(list)
    for name in all_names:
        having = [given for given, there in cases if name in there]
        needs: dict[str, list[Any]] = {}
        for question, values in CHOICES.items():
            # A provider counts by itself: with others beside it, it is not known which one matters.
            wanted = [
                value
                for value in values
                if any(given[question] in (value, [value]) for given in having)
            ]
            if len(wanted) < len(values):
                needs[question] = wanted
        for given, there in cases:
            said = all(
                set(given[question]) & set(wanted)
                if question == "providers"
                else given[question] in wanted
                for question, wanted in needs.items()
            )
            assert said == (name in there), f"{name}: its condition in _exclude is too clever"
        lines = [f"{question} = {json.dumps(wanted)}\n" for question, wanted in needs.items()]
        found["".join(lines)].append(name)
    return found


def text() -> str:
    """The list as it must be."""
    parts = [HEAD]
    for needs, paths in sorted(groups(names()).items()):
        listed = "".join(f'    "{path}",\n' for path in paths)
        parts.append(f"\n[[files]]\n{needs}paths = [\n{listed}]\n")
    return "".join(parts)


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
    print(f"Written: {TARGET.relative_to(ROOT)}")
