"""The requests that a bench sends: items of a file, or built-in texts of all lengths."""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tureen.errors import TureenError, Unprocessable
from tureen.http_requests import build_body
from tureen.item_files import Row
from tureen.wire import ChatRequest, ScoreRequest

Purpose = Literal["score", "chat"]
SHORTEST = 6  # words
LEXICON = (
    "the a of in on under over and or but not with without because while leaves rain wind river stone city garden",
    "music number answer question morning winter autumn teacher engine paper bread letter window mountain colour",
    "silence falls grows turns keeps breaks opens closes carries follows explains quick slow bright quiet old new",
)
WORDS = [word for line in LEXICON for word in line.split()]


@dataclass(frozen=True)
class Workload:
    """Requests to one route.

    Attributes:
        path: the route's.
        build_body: builds the body of the request with a number from 0.
    """

    path: str
    build_body: Callable[[int], bytes]


class Texts:
    """Built-in items with a prompt and candidates. No two texts are equal, so no server can remember their scores.

    Args:
        longest: the most words of a text. Lengths are spread evenly over their logarithm.
        candidates: the number of answers to each prompt.
        seed: the same seed gives the same texts.
    """

    def __init__(self, longest: int, candidates: int, seed: int) -> None:
        self._longest = longest
        self._candidates = candidates
        self._seed = seed

    def write_item(self, number: int) -> dict[str, Any]:
        """Write the item with a number from 0."""
        draw = random.Random(f"{self._seed} {number}")
        candidates = [self._write(draw, f"{number}.{index}") for index in range(self._candidates)]
        return {"prompt": self._write(draw, str(number)), "candidates": candidates}

    def _write(self, draw: random.Random, name: str) -> str:
        count = math.exp(draw.uniform(math.log(min(SHORTEST, self._longest)), math.log(self._longest)))
        return " ".join([name, *draw.choices(WORDS, k=max(round(count) - 1, 1))])


def make_workload(to: Purpose, options: Mapping[str, Any], items: Texts | Sequence[Row]) -> Workload:
    """Make requests of one item each. The rows of a file come again when all have been.

    Args:
        options: the other fields of each request.

    Raises:
        Unprocessable: an item of the file cannot be sent; the message says which.
    """
    path, build = {"score": ("/v1/score", _build_score), "chat": ("/v1/chat/completions", _build_chat)}[to]
    if isinstance(items, Texts):
        return Workload(path, lambda number: build(items.write_item(number), options))
    bodies = [_build_row(row, build, options) for row in items]
    return Workload(path, lambda number: bodies[number % len(bodies)])


BuildItem = Callable[[dict[str, Any], Mapping[str, Any]], bytes]


def _build_row(row: Row, build: BuildItem, options: Mapping[str, Any]) -> bytes:
    try:
        return build(row.item, options)
    except TureenError as error:
        raise type(error)(f"{row.place}: {error.message}", param=error.param, code=error.code) from None


def _build_score(item: dict[str, Any], options: Mapping[str, Any]) -> bytes:
    return build_body(ScoreRequest, {"items": [item], **options})


def _build_chat(item: dict[str, Any], options: Mapping[str, Any]) -> bytes:
    prompt = item.get("prompt")
    if prompt is None:
        raise Unprocessable("the item has no prompt to be answered", param="prompt")
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return build_body(ChatRequest, {"messages": messages, **options})
