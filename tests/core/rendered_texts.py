"""A short conversation with two answers, and a renderer to read them with."""

from typing import Any

import tiny

from tureen_core.reading import Reading
from tureen_core.template import Renderer

PROMPT = [
    {"role": "user", "content": "why do leaves fall?"},
    {"role": "assistant", "content": "the days grow short"},
    {"role": "user", "content": "and in autumn?"},
]
FOX, DOG = ([{"role": "assistant", "content": text}] for text in ("the quick brown fox", "the lazy dog"))


def renderer(**reading: Any) -> Renderer:
    return Renderer(tiny.tokenizer(), Reading(**{"max_length": 512, "eos": "none", **reading}))


def text(render: Renderer, ids: list[int]) -> str:
    decoded: str = render.tokenizer.decode(ids)
    return decoded
