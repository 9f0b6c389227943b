"""What deploy/docker/release.sh decides where starts fail, tags move and images lose their names.

The engine is a stand-in with its tags, registry and running image in files: these cases need no
container. What a real engine makes of a release is proved in test_docker_release.py.
"""

import json
import os
import sys
from pathlib import Path

import pytest

from tests.kit import TEMPLATE, run

pytestmark = pytest.mark.deploy

ENGINE = """import json, pathlib, sys
file = pathlib.Path(__file__).with_name("engine.json")
state = json.loads(file.read_text())
tags, words = state["tags"], sys.argv[1:]
state["calls"].append(words)

def found(name):
    image = tags.get(name if ":" in name else f"{name}:latest", name)
    return image if image in state["images"] else sys.exit(f"No such image: {name}")

def named(image):
    return sorted(name for name, of in tags.items() if of == image)

def tag(image, name):
    tags[name if ":" in name else f"{name}:latest"] = image

problem = None
match words:
    case ["compose", "config", "--services"]:
        print("app")
    case ["compose", "config"]:
        print("services:\\n  app:\\n    image: app")
    case ["compose", "ps", *_]:
        print("container" if state["runs"] else "", end="")
    case ["compose", "build", "app"]:
        tag(state["built"], "app")
        state["images"].append(state["built"])
    case ["compose", "up", *_]:
        state["runs"] = found("app")
        problem = "unhealthy" if state["runs"] in state["unhealthy"] else None
    case ["compose", "logs", *_]:
        print("a line of the log")
    case ["inspect", *_]:
        print(state["runs"])
    case ["image", "inspect", "--format", "{{.Id}}", name]:
        print(found(name))
    case ["image", "inspect", "--format", _, name]:
        print(*named(found(name)))
    case ["tag", image, name]:
        tag(found(image), name)
    case ["pull", "--quiet", name]:
        if name in state["registry"]:
            tag(state["registry"][name], name)
            state["images"].append(state["registry"][name])
        else:
            problem = "pull access denied"
    case ["image", "rm", *names] if names:
        for name in names:
            image = found(name)
            tags.pop(name, None)
            if not named(image):
                state["images"].remove(image)
    case _:
        problem = f"a command that the engine does not know: {words}"
file.write_text(json.dumps(state))
sys.exit(problem)
"""


class Server:
    """A folder with release.sh, and an engine on which A, that came after O, serves."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        docker = folder / "docker"
        docker.write_text(f"#!{sys.executable}\n{ENGINE}")
        docker.chmod(0o755)
        self.change(
            calls=[],
            images=["A", "O"],
            tags={"app:latest": "A", "app:previous": "O", "app:a": "A", "app:o": "O"},
            registry={},
            built="B",
            unhealthy=[],
            runs="A",
        )

    @property
    def state(self) -> dict[str, object]:
        found: dict[str, object] = json.loads((self.folder / "engine.json").read_text())
        return found

    def change(self, **state: object) -> None:
        file = self.folder / "engine.json"
        known = self.state if file.exists() else {}
        file.write_text(json.dumps(known | state))

    def release(self, *arguments: str) -> list[str]:
        path = os.pathsep.join([str(self.folder), os.environ["PATH"]])
        script = TEMPLATE / "deploy/docker/release.sh"
        outside = {"GIT_CEILING_DIRECTORIES": str(self.folder.parent)}
        return run(self.folder, script, *arguments, PATH=path, **outside).splitlines()

    def versions(self) -> list[object]:
        """What runs, what a start would bring, and what a rollback would."""
        tags = self.state["tags"]
        assert isinstance(tags, dict)
        return [self.state["runs"], tags["app:latest"], tags["app:previous"]]


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path)


def test_a_rollback_that_does_not_get_healthy_leaves_what_served(server: Server) -> None:
    server.change(unhealthy=["O"])
    with pytest.raises(AssertionError, match="the version before does not get healthy: this one"):
        server.release("rollback")
    assert server.versions() == ["A", "A", "O"]
    server.change(unhealthy=["A", "O"])
    with pytest.raises(AssertionError, match="neither the version before nor this one"):
        server.release("rollback")
    assert server.versions() == ["A", "A", "O"]
    server.change(unhealthy=[])
    server.release("rollback")
    assert server.versions() == ["O", "O", "A"]


def test_a_deploy_that_does_not_get_healthy_leaves_what_served(server: Server) -> None:
    server.change(unhealthy=["B"])
    with pytest.raises(AssertionError, match="it does not get healthy: the version before serves"):
        server.release("deploy")
    assert server.versions() == ["A", "A", "O"]


def test_a_tag_that_moved_is_pulled_anew(server: Server) -> None:
    for image in ("B", "C"):
        server.change(registry={"registry.example/app:main": image})
        assert "changed=true" in server.release("deploy", "registry.example/app:main")
        assert server.state["runs"] == image
    assert server.versions() == ["C", "C", "B"]


def test_an_image_of_this_server_needs_no_registry(server: Server) -> None:
    assert "changed=true" in server.release("deploy", "app:o")
    assert server.versions() == ["O", "O", "A"]
    with pytest.raises(AssertionError, match="there is no image app:x: neither in its registry"):
        server.release("deploy", "app:x")
    assert server.versions() == ["O", "O", "A"]


def test_it_says_when_the_same_image_served_before(server: Server) -> None:
    assert "changed=false" in server.release("deploy", "app:a")
    assert server.versions() == ["A", "A", "O"]


def test_an_image_without_a_name_is_forgotten_too(server: Server) -> None:
    server.change(tags={"app:latest": "A", "app:previous": "O"})
    printed = server.release("deploy")
    assert server.versions() == ["B", "B", "A"]
    assert server.state["images"] == ["A", "B"], printed
    assert ["image", "rm", "O"] in server.state["calls"]  # type: ignore[operator]
