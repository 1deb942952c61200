"""Queries and documents, as rerankers are asked, for rewards that read conversations.

A reranker reads two texts side by side. A reward has learnt to read a conversation: so the query is what the user
said, the document what the assistant answered, and the reward's own template stands around them.
"""

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from tureen.errors import Unprocessable
from tureen_core.template import Cut
from tureen_serve.api.reward_items import read_answer, read_prompt
from tureen_serve.inference.engine import Group


def pair_texts(queries: Sequence[str], documents: Sequence[str], cut: Cut | None = None) -> list[Group]:
    """One query with one document or all of them, or each with its own; those of one query that stand together are
    one group, so that its prompt is read once.

    Raises:
        Unprocessable: there are none of one sort, or they cannot be paired.
    """
    if not queries or not documents:
        raise Unprocessable("at least one query and one document must be given")
    if len(queries) not in (1, len(documents)):
        raise Unprocessable(f"{len(queries)} queries and {len(documents)} documents: send 1 to 1, 1 to N or N to N")
    asked = [queries[0]] * len(documents) if len(queries) == 1 else queries
    runs = groupby(zip(asked, documents, strict=True), key=itemgetter(0))
    return [Group([read_answer(document) for _, document in run], read_prompt(query), cut) for query, run in runs]


def shorten_text(text: str, tokenizer: Any, most: int) -> str:
    """The longest beginning of a text that is ``most`` tokens by itself, as vLLM cuts it: between characters."""
    while text:
        offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        if len(offsets) <= most:
            break
        end = min(offsets[most - 1][1], offsets[most][0])
        text = text[: min(end, len(text) - 1)]
    return text
