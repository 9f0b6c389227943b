"""Who may see the operations page: the admin's token opens a session, in a sealed cookie.

The key of the seal is derived from ADMIN_TOKEN: another token ends every session, in all processes.
Where development sets no token, everyone who reaches the app may look, and nobody may act.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import math
import secrets
from dataclasses import dataclass
from urllib.parse import urlsplit

from cryptography.fernet import Fernet, InvalidToken
from loguru import logger
from starlette.datastructures import Headers

from app.foundation.errors import AppError
from app.foundation.settings import Settings
from app.ops.tries import Tries
from app.standards.spending.identity import Identity
from app.stores.base import Store

SESSION_SECONDS = 8 * 3600
# A wrong token is answered late, wherever it is tried (`/metrics` too).
WRONG_SECONDS = 0.5
CSRF_HEADER = "X-CSRF-Token"


@dataclass(frozen=True, slots=True)
class Session:
    """A session: its number, and what each request that changes something must bring."""

    id: str
    csrf: str


class Door:
    """Opens, checks and ends sessions. Refusals are `AppError`s."""

    def __init__(self, settings: Settings, identity: Identity, store: Store, tries: Tries) -> None:
        self._admin = settings.admin_token
        self._identity = identity
        self._store = store
        self._tries = tries
        self._seal = None if self._admin is None else Fernet(_key(self._admin.get_secret_value()))
        self.secure = settings.production
        # The prefix makes browsers refuse a cookie of this name from a sibling domain.
        self.cookie = "__Host-ops" if self.secure else "ops"
        self.open = not settings.production and self._admin is None

    async def sign_in(self, token: str, headers: Headers, peer: str | None) -> str:
        """The cookie's value for the admin's token. Raises invalid_api_key, rate_limit_exceeded."""
        _same_origin(headers)
        if self._seal is None or self._admin is None:
            raise AppError("forbidden", detail="no_admin_token")
        network = self._identity.network(headers, peer)
        await self._judge(network, right=_equal(token, self._admin.get_secret_value()))
        session = Session(secrets.token_hex(16), secrets.token_urlsafe(32))
        logger.info("signed in to /ops", network=network, session=session.id[:8])
        return self._seal.encrypt(json.dumps([session.id, session.csrf]).encode()).decode()

    async def sign_out(self, session: Session) -> None:
        """End a session, for every process. Raises `StoreUnavailableError`."""
        await self._store.remember(_ended(session), b"1", SESSION_SECONDS)

    async def may_look(
        self, headers: Headers, cookie: str | None, peer: str | None
    ) -> Session | None:
        """Let the admin pass, with a session or a token. Raises invalid_api_key otherwise."""
        if self.open:
            return None
        if _brings_token(headers):
            await self._check_token(headers, peer)
            return None
        return await self._session(cookie)

    async def may_read(self, headers: Headers, peer: str | None) -> None:
        """Let the admin's token pass, and nothing else: for tools, which have no session."""
        if self.open:
            return
        if not _brings_token(headers):  # nothing was guessed
            raise AppError("invalid_api_key", detail="admin")
        await self._check_token(headers, peer)

    async def may_act(
        self, headers: Headers, cookie: str | None, peer: str | None
    ) -> Session | None:
        """The same for what changes something: only from the page itself, or with a token."""
        if self.open:
            raise AppError("forbidden", detail="no_admin_token")
        session = await self.may_look(headers, cookie, peer)
        if session is not None:
            _same_origin(headers)
            if not _equal(headers.get(CSRF_HEADER, ""), session.csrf):
                raise AppError("forbidden", detail="another_page")
        return session

    async def _session(self, cookie: str | None) -> Session:
        try:
            if cookie is None or self._seal is None:
                raise InvalidToken
            session = Session(*json.loads(self._seal.decrypt(cookie, SESSION_SECONDS)))
        except (InvalidToken, ValueError):  # not even ASCII
            raise AppError("invalid_api_key", detail="session") from None
        if await self._store.recall(_ended(session)) is not None:
            raise AppError("invalid_api_key", detail="session")
        return session

    async def _check_token(self, headers: Headers, peer: str | None) -> None:
        network = self._identity.network(headers, peer)
        await self._judge(network, right=self._identity.is_admin(headers))

    async def _judge(self, network: str, *, right: bool) -> None:
        """After too many wrong tokens a right one is refused as they are: a guesser learns nothing.

        Raises invalid_api_key, rate_limit_exceeded.
        """
        wait = await (self._tries.wait(network) if right else self._tries.count(network))
        if wait:
            raise AppError(
                "rate_limit_exceeded",
                retry_after=wait,
                detail="admin_token",
                seconds=math.ceil(wait),
            )
        if not right:
            logger.warning("wrong admin token", network=network)
            await asyncio.sleep(WRONG_SECONDS)
            raise AppError("invalid_api_key", detail="admin_token")


def _brings_token(headers: Headers) -> bool:
    return headers.get("authorization", "").lower().startswith("bearer ")


def _same_origin(headers: Headers) -> None:
    """Refuse what another site's page has sent: the browser says so, and pages cannot forge it.

    Behind a proxy that changes `Host` only Sec-Fetch-Site is right; without TLS browsers send only
    Origin.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    same = site == "same-origin"
    if site is None and origin is not None:
        same = urlsplit(origin).netloc == headers.get("host")
    if not same:
        raise AppError("forbidden", detail="another_page")


def _equal(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), wanted.encode())


def _key(admin_token: str) -> bytes:
    digest = hmac.new(admin_token.encode(), b"session of /ops", hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest)


def _ended(session: Session) -> str:
    return f"ops-session-ended:{session.id}"
