"""Token counts by the base model's own tokenizer, from a file: nothing is fetched."""

import functools
from collections.abc import Callable
from pathlib import Path

DEFAULT_CONTEXT_TOKENS = 8192
"""Assumed where neither the settings nor the endpoint tell the student's context."""


class TokenizerError(ValueError):
    """The tokenizer file cannot be read."""


def token_counter(tokenizer: Path | None) -> Callable[[str], int]:
    """Return a function that counts a text's tokens.

    Args:
        tokenizer: a `tokenizer.json`; without one the count is the text's UTF-8 bytes, which no byte-level
            tokenizer exceeds: requests get smaller, never too long.

    Raises:
        TokenizerError: when the first long text is counted and the file is not a tokenizer.
    """
    if tokenizer is None:
        return lambda text: len(text.encode("utf-8", "replace"))

    @functools.cache
    def load() -> Callable[[str], int]:
        from tokenizers import Tokenizer  # noqa: PLC0415 -- imported late: most prompts are short, none is counted

        try:
            loaded = Tokenizer.from_file(str(tokenizer))
        except Exception as error:  # noqa: BLE001 -- the library raises bare Exception
            raise TokenizerError(f"{tokenizer} is not a tokenizer.json that can be read: {error}") from None
        return lambda text: len(loaded.encode(text, add_special_tokens=False).ids)

    return lambda text: load()(text.encode("utf-8", "replace").decode())
