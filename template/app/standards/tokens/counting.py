"""Counting tokens offline, with the encoding's ranks that travel with the app.

The count is exact for OpenAI's o200k models and an estimate for the others; money is therefore
reserved by bytes (`byte_bound`), which no byte-level tokenizer can exceed.
"""

import asyncio
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import tiktoken

from app.providers.base import Message

ENCODING = "o200k_base"
RANKS = Path(__file__).parent / "ranks"
# tiktoken looks its ranks up under the SHA-1 of the address that it would download them from.
RANKS_FILE = RANKS / "fb374d419588a4632f3f557e76b4b70aebbca790"
# The SHA-256 that tiktoken pins in tiktoken_ext/openai_public.py.
RANKS_SHA256 = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"

# What the chat format adds around each message, and around the whole.
TOKENS_PER_MESSAGE = 4
TOKENS_PER_REQUEST = 3
# No text of more bytes than this per allowed token is given to the tokenizer: adversarial input
# can hold it for seconds, or make it panic.
MAX_BYTES_PER_TOKEN = 16
# Characters that are tokenized at once; a longer text may count a token more for each cut.
SLICE = 100_000
# Texts up to this size are counted on the event loop; a thread would cost more than the count.
INLINE_BYTES = 2_000


class RanksError(Exception):
    """The encoding's ranks are missing or damaged."""


class TokenCounter:
    """Counts tokens of texts that have at most `max_tokens` of them.

    Raises `RanksError` when the ranks that came with the app are missing or altered.
    """

    def __init__(self, max_tokens: int) -> None:
        self._max_bytes = max_tokens * MAX_BYTES_PER_TOKEN
        self._encoding = _load_encoding()

    async def count(self, text: str) -> int | None:
        """The number of tokens; None for a text that is too long to be counted safely."""
        size = len(text.encode("utf-8", "surrogatepass"))
        if size > self._max_bytes:
            return None
        if size <= INLINE_BYTES:
            return self._count(text)
        return await asyncio.to_thread(self._count, text)

    async def truncate(self, text: str, max_tokens: int) -> str:
        """The beginning of `text` that has at most `max_tokens` tokens."""
        text = text[: max_tokens * MAX_BYTES_PER_TOKEN]
        return await asyncio.to_thread(self._truncate, text, max_tokens)

    def _count(self, text: str) -> int | None:
        try:
            return len(self._encode(text))
        except BaseException as error:
            if type(error).__name__ == "PanicException":  # tiktoken's, and no Exception
                return None
            raise

    def _truncate(self, text: str, max_tokens: int) -> str:
        tokens = self._encode(text)
        if len(tokens) <= max_tokens:
            return text
        kept = self._encoding.decode(tokens[:max_tokens], errors="ignore")
        # Cutting can change how the rest is split into tokens: make sure of the bound.
        while kept and len(self._encode(kept)) > max_tokens:
            kept = kept[:-1]
        return kept

    def _encode(self, text: str) -> list[int]:
        # Text such as <|endoftext|> is text: encode_ordinary knows no special tokens.
        text = text.encode("utf-8", "replace").decode("utf-8")
        # In slices: the time of one piece can grow with the square of its length, and a million
        # spaces in one make the tokenizer panic.
        slices = (text[i : i + SLICE] for i in range(0, len(text), SLICE))
        return [token for part in slices for token in self._encoding.encode_ordinary(part)]


def byte_bound(texts: Iterable[str], messages: int) -> int:
    """An upper bound of the tokens that any byte-level tokenizer can make of the texts."""
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    return size + messages * 2 * TOKENS_PER_MESSAGE + 2 * TOKENS_PER_REQUEST


def prompt_bound(messages: Iterable[Message], extra: str = "") -> int:
    """`byte_bound` of a whole prompt; `extra` is what else is sent, such as a JSON schema."""
    texts = [message.text for message in messages]
    return byte_bound([*texts, extra], len(texts))


def _load_encoding() -> tiktoken.Encoding:
    try:
        digest = hashlib.sha256(RANKS_FILE.read_bytes()).hexdigest()
    except OSError as error:
        raise RanksError(f"cannot read {RANKS_FILE.name}: {error.strerror}") from error
    if digest != RANKS_SHA256:
        raise RanksError(f"{RANKS_FILE.name} is damaged: copy it again from the template")
    os.environ["TIKTOKEN_CACHE_DIR"] = str(RANKS)
    return tiktoken.get_encoding(ENCODING)
