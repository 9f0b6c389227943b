"""An app with several replicas behind the proxy of compose.proxy.yaml, called over TLS."""

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from tests.deploy.project import KEY, Project
from tests.deploy.stage import question

FILES = ("compose.yaml", "compose.override.yaml", "compose.proxy.yaml")
ROOT_CERTIFICATE = "/data/caddy/pki/authorities/local/root.crt"
NAME = "localhost"
CHAT = "/v1/chat/completions"


@dataclass
class Proxied(Project):
    """The replicas and the proxy, which has made a certificate for `localhost` of its own."""

    variables: dict[str, str] = field(
        default_factory=lambda: {
            "COMPOSE_FILE": ":".join(FILES),
            "HTTP_PORT": "0",
            "HTTPS_PORT": "0",
            "REPLICAS": "3",
        }
    )
    trust: ssl.SSLContext = field(default_factory=ssl.create_default_context)

    def find(self) -> None:
        """Look up the published port, and trust the proxy's own authority."""
        port = self.compose("port", "proxy", "443").strip().rpartition(":")[2]
        self.url = f"https://{NAME}:{port}"
        self.trust = ssl.create_default_context(cafile=self.authority())

    def authority(self) -> Path:
        """The certificate of the proxy's own authority, as a file."""
        found = self.folder / "authority.crt"
        found.write_text(self.compose("exec", "--no-TTY", "proxy", "cat", ROOT_CERTIFICATE))
        return found

    def http(self, key: str | None = None) -> httpx2.Client:
        """An HTTP client of the proxy's published port."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx2.Client(
            base_url=self.url, headers=headers, timeout=30, trust_env=False, verify=self.trust
        )

    def replicas(self) -> list[dict[str, Any]]:
        """What the engine knows of the app's containers that run."""
        found = self.compose("ps", "--quiet", "app").split()
        return list(json.loads(self.engine.docker("inspect", *found)))

    def address(self, container: dict[str, Any], network: str) -> str:
        """A container's address in a network of the project."""
        networks = container["NetworkSettings"]["Networks"]
        return str(networks[f"{self.name}_{network}"]["IPAddress"])

    def gateway(self, network: str) -> str:
        """This machine's own address in a network."""
        (found,) = json.loads(self.engine.docker("network", "inspect", network))
        return str(found["IPAM"]["Config"][0]["Gateway"])

    def client_from(self, source: str) -> "Client":
        """A client that reaches the proxy from one of this machine's addresses."""
        (proxy,) = json.loads(
            self.engine.docker("inspect", self.compose("ps", "--quiet", "proxy").strip())
        )
        return Client(self.address(proxy, "proxy"), source, self.trust)


class Client:
    """Calls the proxy at its own address, from a chosen one: a published port may hide both."""

    def __init__(self, target: str, source: str, trust: ssl.SSLContext) -> None:
        transport = httpx2.HTTPTransport(verify=trust, local_address=source)
        headers = {"Authorization": f"Bearer {KEY}", "Host": NAME}
        self._http = httpx2.Client(
            base_url=f"https://{target}", headers=headers, timeout=30, transport=transport
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def ask(self, claimed: str) -> int:
        """The status of a question from one who claims another address."""
        extensions = {"sni_hostname": NAME}
        headers = {"X-Forwarded-For": claimed, "X-Real-IP": claimed, "Forwarded": f"for={claimed}"}
        return self._http.post(
            CHAT, json=question("Hello"), headers=headers, extensions=extensions
        ).status_code


@contextmanager
def asked_all_along(project: Project, pause: float = 0.4) -> Iterator[list[int]]:
    """Two clients ask all the time, `pause` seconds between two questions; the statuses."""
    over = threading.Event()
    statuses: list[int] = []

    def asks() -> None:
        with project.http(KEY) as client:
            while not over.is_set():
                statuses.append(client.post(CHAT, json=question("Hello")).status_code)
                over.wait(pause)

    threads = [threading.Thread(target=asks) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield statuses
    finally:
        over.set()
        for thread in threads:
            thread.join()
