"""Who is asking: the authenticated caller, and the address that the request really came from."""

import hashlib
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network, ip_address

from starlette.datastructures import Headers

from app.foundation.errors import AppError
from app.foundation.fields import Network
from app.foundation.settings import Settings


@dataclass(frozen=True, slots=True)
class Caller:
    """`name` is the key's name, or `anonymous@<network>`; `network` is the client's address.

    IPv6 clients are told apart by /64: a household or a machine owns at least that many.
    """

    name: str
    network: str


class Identity:
    """Finds a request's caller. Raises `AppError` invalid_api_key without a valid key."""

    def __init__(self, settings: Settings) -> None:
        self._names = {
            _digest(key.get_secret_value()): name for name, key in settings.app_api_keys.items()
        }
        self._admin = settings.admin_token
        self._anonymous_allowed = settings.anonymous_allowed
        self._open_admin = not settings.production and settings.admin_token is None
        self._proxies = settings.trusted_proxies

    def caller(self, headers: Headers, peer: str | None) -> Caller:
        """The caller of a request. `peer` is the address at the other end of the connection."""
        network = self.network(headers, peer)
        token = _bearer(headers)
        # Looked up by digest: how long it takes tells nothing about a key.
        name = self._names.get(_digest(token)) if token else None
        if name is not None:
            return Caller(name, network)
        if self._anonymous_allowed and (token is None or not self._names):
            return Caller(f"anonymous@{network}", network)
        raise AppError("invalid_api_key", detail="missing" if token is None else None)

    def is_admin(self, headers: Headers) -> bool:
        """True with the admin token, or in development when none is set."""
        token = _bearer(headers)
        if self._admin is None:
            return self._open_admin
        return token is not None and _digest(token) == _digest(self._admin.get_secret_value())

    def network(self, headers: Headers, peer: str | None) -> str:
        """The client's address: X-Forwarded-For is believed only as far as trusted proxies say."""
        address = peer or "unknown"
        hops = [hop.strip() for hop in ",".join(headers.getlist("x-forwarded-for")).split(",")]
        for hop in reversed(hops):
            if not hop or not _is_in(address, self._proxies):
                break
            address = _without_port(hop)
        return _canonical(address)


def _without_port(hop: str) -> str:
    """`1.2.3.4:5678` and `[2001:db8::1]:5678`, as some proxies write an address."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop


def _bearer(headers: Headers) -> str | None:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _is_in(address: str, networks: tuple[Network, ...]) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped:
        parsed = parsed.ipv4_mapped
    return any(parsed in network for network in networks)


def _canonical(address: str) -> str:
    try:
        parsed = ip_address(address.split("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(IPv6Network((parsed, 64), strict=False))
    return str(parsed)
