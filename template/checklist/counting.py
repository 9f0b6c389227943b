"""A tokenizer of the checklist's own, so that the app's count is not believed."""

import os
from functools import cache

import tiktoken

from tests.running import ROOT


@cache
def _encoding() -> tiktoken.Encoding:
    # The ranks travel with the app; nothing is downloaded.
    os.environ["TIKTOKEN_CACHE_DIR"] = str(ROOT / "app" / "standards" / "tokens" / "ranks")
    return tiktoken.get_encoding("o200k_base")


def tokens_of(messages: list[tuple[str, str]]) -> int:
    """The tokens in the texts of a prompt's messages."""
    return sum(len(_encoding().encode_ordinary(text)) for _, text in messages)
