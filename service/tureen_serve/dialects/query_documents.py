"""Read a reranker's queries and documents as conversations.

A reranker reads two texts side by side. A reward model was trained on conversations. So the query becomes the user's
turn, the document becomes the assistant's answer, and the reward's own template renders them.
"""

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from tureen.errors import Unprocessable
from tureen_core.reading import Cut
from tureen_serve.api.reward_items import read_answer, read_prompt
from tureen_serve.inference.engine import Group

NO_INSTRUCTION = "is not supported: the template has no place for an instruction; write it into the query"


def pair_texts(queries: Sequence[str], documents: Sequence[str], cut: Cut | None = None) -> list[Group]:
    """Pair one query with all documents, or each query with its own document.

    Neighbours with the same query become one group, so that the query is read once.

    Raises:
        Unprocessable: there is no query or no document, or their numbers do not match.
    """
    if not queries or not documents:
        raise Unprocessable("send at least one query and one document")
    if len(queries) not in (1, len(documents)):
        message = f"{len(queries)} queries and {len(documents)} documents cannot be paired"
        raise Unprocessable(f"{message}; send one query, or as many queries as documents")
    asked = [queries[0]] * len(documents) if len(queries) == 1 else queries
    runs = groupby(zip(asked, documents, strict=True), key=itemgetter(0))
    return [Group([read_answer(document) for _, document in run], read_prompt(query), cut) for query, run in runs]


def shorten_text(text: str, tokenizer: Any, most: int) -> str:
    """Cut a text to its longest beginning of ``most`` tokens, as vLLM does. It is never cut within a character."""
    while text:
        offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        if len(offsets) <= most:
            break
        end = min(offsets[most - 1][1], offsets[most][0])
        text = text[: min(end, len(text) - 1)]
    return text
