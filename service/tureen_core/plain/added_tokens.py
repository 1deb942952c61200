"""The special tokens that a tokenizer adds to a text by itself, as published code often lets it do."""

from typing import Any

LETTER = "a"


def finds_bos(tokenizer: Any) -> bool:
    """Tell whether a tokenizer puts BOS before a text."""
    return tokenizer.bos_token_id is not None and tokenizer(LETTER)["input_ids"][0] == tokenizer.bos_token_id


def finds_eos(tokenizer: Any) -> bool:
    """Tell whether a tokenizer puts EOS after a text."""
    return tokenizer.eos_token_id is not None and tokenizer(LETTER)["input_ids"][-1] == tokenizer.eos_token_id
