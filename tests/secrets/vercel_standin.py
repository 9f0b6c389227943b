"""Vercel's CLI, version 64, as far as `uv run secrets` calls it; a script without dependencies.

Recorded from the real one, which tests/deploy/test_vercel_secrets.py holds beside it: the same
configuration, the same requests, the same half second for standard input, the same words.
"""

import json
import os
import select
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, NoReturn

STDIN_SECONDS = 0.5
FLAGS = {"ls": {"--format"}, "add": {"--sensitive", "--no-sensitive", "--force", "--yes"}}


def fail(text: str, code: int = 1) -> NoReturn:
    print(f"Error: {text}", file=sys.stderr)
    raise SystemExit(code)


def main(arguments: list[str]) -> None:
    home = Path(os.environ["XDG_DATA_HOME"], "com.vercel.cli")
    with (home / "arguments").open("a") as log:
        log.write(json.dumps(arguments) + "\n")
    _, command, *rest = arguments
    words = [word for word in rest if not word.startswith("--") and word != "json"]
    for flag in set(rest) - set(words) - {"json"}:
        if flag not in FLAGS[command]:
            fail(f"unknown or unexpected option: {flag}", 2)
    value = read_standard_input() if command == "add" else ""
    if not (home / "auth.json").exists():
        fail('No existing credentials found. Please run `vercel login` or pass "--token"')
    link = Path(".vercel/project.json")
    if not link.exists():
        fail(
            "Your codebase isn’t linked to a project on Vercel. "
            "Pass --project <name>, or run `vercel link` to begin."
        )
    project = f"/v10/projects/{json.loads(link.read_text())['projectId']}/env"
    api = json.loads((home / "config.json").read_text())["api"]
    if command == "ls":
        envs = ask(f"{api}{project}?target={words[0]}")["envs"]
        shown = [
            {**env, "value": None if env["type"] == "sensitive" else env["value"]} for env in envs
        ]
        print(json.dumps({"envs": shown}, indent=2))
        return
    if not value:
        fail("no value")  # the real one asks, and there is nobody to answer
    kind = "sensitive" if "--sensitive" in rest else "encrypted"
    body = {"type": kind, "key": words[0], "value": value, "target": [words[1]]}
    ask(f"{api}{project}?upsert=true", body)
    print(f"✓ Added {words[0]}", file=sys.stderr)


def read_standard_input() -> str:
    """What is there within half a second, less the line's end; later is too late."""
    if not select.select([0], [], [], STDIN_SECONDS)[0]:
        return ""
    return os.read(0, 65536).decode().removesuffix("\n")


def ask(url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, data, headers)  # noqa: S310
    try:
        with urllib.request.urlopen(request) as answer:  # noqa: S310
            content: dict[str, Any] = json.load(answer)
            return content
    except urllib.error.HTTPError as error:
        fail(json.load(error)["error"]["message"])
    except urllib.error.URLError:
        raise SystemExit(1) from None


if __name__ == "__main__":
    main(sys.argv[1:])
