"""Sealing what the store keeps, with a key that only the request that made it can derive.

AES-256-GCM over compressed bytes. Whoever reads the store sees neither prompts nor answers.
"""

import os
import zlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES = 12


def seal(content: bytes, key: bytes) -> bytes:
    """Encrypt `content` with a key of 32 bytes."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, zlib.compress(content, 1), None)


def unseal(sealed: bytes, key: bytes) -> bytes | None:
    """The content; None when the key is another one or the bytes were altered."""
    nonce, content = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
    try:
        return zlib.decompress(AESGCM(key).decrypt(nonce, content, None))
    except (InvalidTag, ValueError, zlib.error):
        return None
