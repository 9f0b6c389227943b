"""Which providers are loaded, and what they may load and take from the machine."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fake_provider.conftest import APP
from tests.providers.conftest import KEY, REAL, Lab, base, module, prompt

PROVIDERS = APP / "app" / "providers"
SDKS = {"openai", "anthropic", "google.genai", "genai_prices"}
SETTINGS = {
    "openai": {"openai_api_key": KEY, "openai_model": "gpt-4o"},
    "anthropic": {"anthropic_api_key": KEY, "anthropic_model": "claude-sonnet-5"},
    "gemini": {"gemini_api_key": KEY, "gemini_model": "gemini-2.5-flash"},
    "compatible": {"compatible_base_url": "http://localhost:1/v1", "compatible_model": "llama3"},
    "demo": {},
}
STATED = {"input_usd_per_mtok": "1", "output_usd_per_mtok": "2"}


class Settings:
    """What the registry reads of the app's settings."""

    def __init__(self, *names: str, **values: Any) -> None:
        self.providers = names
        self.connect_timeout_seconds = self.read_timeout_seconds = 5
        self.write_timeout_seconds = self.pool_timeout_seconds = 5
        for name in names:
            self.__dict__.update(SETTINGS[name])
        self.__dict__.update(values)


SCRIPT = """
import sys
from decimal import Decimal
from pydantic import SecretStr
from app.providers.registry import connect_providers

class Settings:
    providers = ({name!r},)
    connect_timeout_seconds = read_timeout_seconds = 5
    write_timeout_seconds = pool_timeout_seconds = 5

for key, value in {values!r}.items():
    setattr(Settings, key, SecretStr(value) if key.endswith("key") else value)
for side in {stated!r}:
    setattr(Settings, "{name}_" + side, Decimal(1))
assert not {sdks!r} & set(sys.modules)
(target,) = connect_providers(Settings())
assert target.provider.name == {name!r}
print(*sorted({sdks!r} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("name", "loaded"),
    [
        ("openai", "openai"),
        ("anthropic", "anthropic"),
        ("gemini", "google.genai"),
        ("compatible", "openai"),
        ("demo", ""),
    ],
)
def test_only_the_chosen_sdk_is_loaded(name: str, loaded: str) -> None:
    """And with stated prices, or for the demo, genai-prices is not either."""
    stated = [] if name == "demo" else list(STATED)
    script = SCRIPT.format(name=name, values=SETTINGS[name], stated=stated, sdks=SDKS)
    done = subprocess.run([sys.executable, "-c", script], cwd=APP, capture_output=True, text=True)
    assert done.stdout.strip() == loaded, done.stderr


def test_an_unknown_price_stops_before_anything_is_connected() -> None:
    registry, prices = module("registry"), module("prices")
    with pytest.raises(prices.UnknownPriceError, match="COMPATIBLE_INPUT_USD_PER_MTOK"):
        registry.connect_providers(Settings("openai", "compatible"))


def test_the_order_is_that_of_the_settings() -> None:
    targets = module("registry").connect_providers(Settings("demo"))
    assert [target.provider.model for target in targets] == ["demo"]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("path", sorted(PROVIDERS.glob("*.py")), ids=lambda path: path.name)
def test_floors(path: Path) -> None:
    """Providers stand on the ground floor alone, and each knows its own SDK alone."""
    found = imports(path)
    own = {name for name in found if name.startswith("app")}
    assert all(name.startswith(("app.foundation.", "app.providers.")) for name in own)
    assert not {"fastapi", "starlette"} & {name.split(".")[0] for name in found}
    sdks = {name for name in found if name.split(".")[0] in ("openai", "anthropic", "google")}
    allowed = {"openai_wire.py": "openai", "anthropic.py": "anthropic", "gemini.py": "google"}
    assert all(name.split(".")[0] == allowed.get(path.name) for name in sdks)
    chosen = {f"app.providers.{name}" for name in (*REAL, "openai_wire")}
    if path.name not in ("openai.py", "compatible.py"):
        assert not own & chosen
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 250


def test_a_compatible_server_needs_a_url_and_may_want_no_key(lab: Lab) -> None:
    timeouts = base.Timeouts(1, 1, 1, 1)
    with pytest.raises(ValueError, match="COMPATIBLE_BASE_URL"):
        module("compatible").connect(base.Connection("", "m", None, timeouts))
    url = lab.fake.openai_base_url
    provider = module("compatible").connect(base.Connection("", "m", url, timeouts))
    assert lab.ask(provider, prompt("hello")).text.startswith("You said: hello")
    lab.run(provider.close())


def test_a_compatible_server_does_not_learn_whose_customer_we_are(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-1")
    connection = base.Connection(KEY, "m", lab.fake.openai_base_url, base.Timeouts(1, 1, 1, 1))
    provider = module("compatible").connect(connection)
    headers = {}

    async def note(request: Any) -> None:
        headers.update(request.headers)

    provider._client.event_hooks = {"request": [note]}
    lab.ask(provider)
    assert headers
    assert not any(name.startswith("openai-") for name in headers)
    lab.run(provider.close())


def test_the_keys_of_other_clients_on_this_machine_are_not_used(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for variable in ("OPENAI_ADMIN_KEY", "ANTHROPIC_AUTH_TOKEN", "GOOGLE_API_KEY"):
        monkeypatch.setenv(variable, "another-key-of-this-machine")
    monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")
    url = lab.fake.url if name in ("anthropic", "gemini") else lab.fake.openai_base_url
    provider = module(name).connect(base.Connection(KEY, "m", url, base.Timeouts(1, 1, 1, 1)))
    lab.ask(provider)
    lab.ask(lab.provider(name))
    assert len({call.key for call in lab.fake.ledger.calls}) == 1
    lab.run(provider.close())


def test_no_redirect_is_followed(lab: Lab) -> None:
    for name in REAL:
        assert lab.provider(name)._client.follow_redirects is False
