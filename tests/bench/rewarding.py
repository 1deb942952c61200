"""A reward checkpoint with random weights, and conversations of wanted lengths for it."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import tiny
import torch
from bench.shapes import SHAPES, mixed_lengths, precision
from transformers import AutoModelForSequenceClassification

from tureen_core.artifact import Artifact, Manifest, Objective, seal_artifact
from tureen_core.base import PACKAGED, BaseError, load_tokenizer, locate_base

NAME = "reward"


@dataclass(frozen=True)
class Sample:
    """A prompt with one answer or several."""

    prompt: str
    answers: tuple[str, ...]


Requests = list[list[Sample]]


def tokenizer(folder: Path | None) -> Any:
    """The folder's tokenizer; else a packaged model's, or a tiny one where its package is not installed."""
    if folder is not None:
        return load_tokenizer(folder)
    try:
        return load_tokenizer(locate_base(next(iter(PACKAGED))))
    except BaseError:
        return tiny.tokenizer()


def checkpoint(shape: str, tokens: Any, on: torch.device, context: int, folder: Path) -> Artifact:
    """A sealed full checkpoint in the device's precision, with one label."""
    config = SHAPES[shape]()
    config.num_labels, config.vocab_size = 1, max(config.vocab_size, len(tokens))
    config.pad_token_id, config.eos_token_id = tokens.pad_token_id, tokens.eos_token_id
    torch.manual_seed(0)
    with torch.device(on):
        model = AutoModelForSequenceClassification.from_config(config, dtype=precision(on))
    model.save_pretrained(folder)
    tokens.save_pretrained(folder)
    objectives, reading = [Objective(name=NAME)], tiny.reading(folder, max_length=context)
    return seal_artifact(
        folder, Manifest(kind="reward", name=NAME, weights="full", objectives=objectives, reading=reading)
    )


class Speech:
    """Makes conversations of words that are one token each; no two calls make the same.

    Args:
        tokens: the tokenizer, with its chat template.
    """

    def __init__(self, tokens: Any) -> None:
        self._tokens = tokens
        words = (tokens.convert_tokens_to_string([piece]) for piece in sorted(tokens.get_vocab()) if piece[0] == "Ġ")
        self._words = [word for word in words if word.strip().isalpha() and word.isascii()]
        self._seeds = count()

    def singles(self, number: int, mean: int, a_request: int) -> Requests:
        """Conversations that share nothing, half prompt, half answer, of mixed lengths."""
        rng = random.Random(next(self._seeds))
        frame = len(self.ids(Sample("", ("",)))[0])
        lengths = (max(2, length - frame) for length in mixed_lengths(rng, number, mean))
        samples = [Sample(self._say(rng, each // 2), (self._say(rng, each - each // 2),)) for each in lengths]
        return [samples[start : start + a_request] for start in range(0, number, a_request)]

    def groups(self, number: int, prompt: int, answers: int, answer: int) -> Requests:
        """Prompts with several answers each, one group a request."""
        rng = random.Random(next(self._seeds))
        said = (
            Sample(self._say(rng, prompt), tuple(self._say(rng, answer) for _ in range(answers))) for _ in range(number)
        )
        return [[sample] for sample in said]

    def loop(self, prompts: int, prompt: int, answers: int, answer: tuple[int, int], scattered: bool) -> Requests:
        """Prompts with several answers each, of lengths in a range, one answer a request; a prompt's own in a row,
        or all scattered.
        """
        rng = random.Random(next(self._seeds))
        asked = [self._say(rng, prompt) for _ in range(prompts)]
        samples = [Sample(each, (self._say(rng, rng.randint(*answer)),)) for each in asked for _ in range(answers)]
        if scattered:
            rng.shuffle(samples)
        return [[sample] for sample in samples]

    def parts(self, sample: Sample) -> tuple[str, list[str]]:
        """The rendered prompt, opened for an answer, and what follows it in each conversation."""
        asked = [{"role": "user", "content": sample.prompt}]
        opened: str = self._tokens.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        return opened, [text.removeprefix(opened) for text in self.texts(sample)]

    def texts(self, sample: Sample) -> list[str]:
        """The rendered conversations, each to the mark that ends its answer."""
        turns = [
            [{"role": "user", "content": sample.prompt}, {"role": "assistant", "content": answer}]
            for answer in sample.answers
        ]
        return [self._tokens.apply_chat_template(each, tokenize=False).rstrip() for each in turns]

    def ids(self, sample: Sample) -> list[list[int]]:
        """Token ids of the conversations."""
        found: list[list[int]] = self._tokens(self.texts(sample), add_special_tokens=False)["input_ids"]
        return found

    def _say(self, rng: random.Random, length: int) -> str:
        return "".join(rng.choices(self._words, k=length)).strip()


def sizes(speech: Speech, requests: Requests) -> tuple[int, int, int]:
    """Texts, their tokens, and their tokens if what a group's texts begin with alike is computed once."""
    texts = whole = once = 0
    for sample in (each for request in requests for each in request):
        found = speech.ids(sample)
        lengths = [len(ids) for ids in found]
        texts, whole = texts + len(lengths), whole + sum(lengths)
        once += sum(lengths) - (len(lengths) - 1) * _alike(found)
    return texts, whole, once


def _alike(texts: Sequence[Sequence[int]]) -> int:
    columns = enumerate(zip(*texts, strict=False))
    return next((place for place, column in columns if len(set(column)) > 1), min(map(len, texts)))
