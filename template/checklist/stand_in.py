"""A stand-in for the command of a platform: `docker`, `vercel` or `aws`, which nobody has to have.

It knows as much as a rollback asks of it, and what it is told to do it does: it stops the process
of one version of the app and starts that of another. Whatever else is asked fails.
"""

import socketserver
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

from tests.running import RunningApp

# Started a dozen times by one script, so it imports as little as it can.
_COMMAND = """#!/bin/sh
exec "{python}" -I -S -c '
import socket, sys
with socket.create_connection(("127.0.0.1", {port})) as platform:
    platform.sendall("\\0".join(sys.argv[1:]).encode())
    platform.shutdown(socket.SHUT_WR)
    told = b"".join(iter(lambda: platform.recv(4096), b""))
sys.stdout.buffer.write(told[1:])
sys.exit(told[0])
' "$@"
"""
OLD, NEW = "1", "2"


class NotUnderstoodError(Exception):
    """The platform knows no such command."""


class Platform:
    """Serves one version of the app at a time, `NEW` at first. `start` starts one, by its name.

    A context manager: inside it `command` is the stand-in's file, and `app` what serves now.
    """

    def __init__(
        self, tool: str, folder: Path, start: Mapping[str, Callable[[], RunningApp]]
    ) -> None:
        self.command = folder / tool
        self._start = start
        self._do = {"docker": self._docker, "vercel": self._vercel, "aws": self._aws}[tool]
        self._tags = {"app:latest": NEW, "app:previous": OLD}
        self._serves = NEW
        self.app = start[NEW]()
        platform = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                words = self.rfile.read().decode().split("\0")
                try:
                    code, said = 0, platform._do(words)
                except NotUnderstoodError:
                    code, said = 1, f"{tool}: not understood: {' '.join(words)}"
                self.wfile.write(bytes([code]) + f"{said}\n".encode() * bool(said))

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> Self:
        port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=[0.02], daemon=True).start()
        text = _COMMAND.format(python=sys.executable, port=port)
        self.command.write_text(text, encoding="utf-8")
        self.command.chmod(0o755)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, version: str) -> str:
        if version != self._serves:
            self.app.stop()
            self.app, self._serves = self._start[version](), version
        return ""

    def _image(self, name: str) -> str:
        named = self._tags.get(name if ":" in name else f"{name}:latest", name)
        if named not in self._start:
            raise NotUnderstoodError
        return named

    def _docker(self, words: list[str]) -> str:
        match words:
            case ["compose", "config", "--services"]:
                return "app"
            case ["compose", "config"]:
                return "services:\n  app:\n    image: app"
            case ["compose", "ps", *_]:
                return "container"
            case ["compose", "up", *_]:
                return self._serve(self._image("app"))
            case ["inspect", *_]:
                return self._serves
            case ["image", "inspect", "--format", "{{.Id}}", name]:
                return self._image(name)
            case ["image", "inspect", "--format", _, name]:
                return " ".join(tag for tag, of in self._tags.items() if of == self._image(name))
            case ["tag", image, name]:
                self._tags[name if ":" in name else f"{name}:latest"] = self._image(image)
                return ""
        raise NotUnderstoodError

    def _vercel(self, words: list[str]) -> str:
        if words != ["rollback"]:
            raise NotUnderstoodError
        return self._serve(OLD)

    def _aws(self, words: list[str]) -> str:
        given = dict(zip(words[2::2], words[3::2], strict=False))
        match words:
            case ["cloudformation", "describe-stacks", *_]:
                return "the-function"
            case ["lambda", "get-alias", *_] if given["--name"] == "live":
                return f"version={self._serves}"
            case ["lambda", "update-alias", *_] if given["--function-version"] in self._start:
                return self._serve(given["--function-version"]) or "serving again"
        raise NotUnderstoodError
