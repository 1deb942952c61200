"""Split an answer into segments: tokens, words or sentences. Pure."""

import re
from itertools import pairwise
from typing import Any

from tureen.wire import SegmentUnit

# what a segment ends with, where another one follows
ENDINGS: dict[SegmentUnit, re.Pattern[str]] = {
    "words": re.compile(r"\S+(?=\s+\S)"),
    "sentences": re.compile(r"[.!?]+[\"'”’)\]]*\s+|[。！？]+\s*|\n+"),
}

Span = tuple[int, int]


def split_answer(answer: str, by: SegmentUnit, most: int, tokenizer: Any) -> list[Span]:
    """Split an answer into at most ``most`` segments ``[start, end)``, which are the whole answer.

    Args:
        tokenizer: a Hugging Face tokenizer. One that does not tell where its tokens stand gives words.
    """
    ends = _find_token_ends(answer, tokenizer) if by == "tokens" and tokenizer.is_fast else _find_ends(answer, by)
    if len(ends) > most:
        ends = [ends[(number + 1) * len(ends) // most - 1] for number in range(most)]
    return list(pairwise([0, *ends]))


def _find_ends(answer: str, by: SegmentUnit) -> list[int]:
    endings = ENDINGS["words" if by == "tokens" else by]
    return sorted({found.end() for found in endings.finditer(answer)} | {len(answer)})


def _find_token_ends(answer: str, tokenizer: Any) -> list[int]:
    """Find where tokens end. Several that share a character, as the bytes of an emoji, are one."""
    offsets = tokenizer(answer, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return sorted({end for _, end in offsets} - {0} | {len(answer)})
