"""Jobs for a generator, and the log-probabilities that an explicitly merged checkpoint gives for what it wrote."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from serve.experts import logprobs, merged
from torch import Tensor

from tureen_core.soup import Semantics
from tureen_serve.runtimes.contract import GenerationJob, TextDelta, Weights
from tureen_serve.runtimes.sampling_fields import Sampling

ENDLESS = ((2, -100.0),)
EIGHT: list[Weights] = [
    (("academy", 1.0),),
    (("business", 1.0),),
    (("poetry", 1.0),),
    (("academy", 0.25), ("business", 0.75)),
    (("academy", 0.2), ("business", 0.3), ("poetry", 0.5)),
    (("academy", 1.5), ("poetry", -0.5)),
    (("business", -1.0),),
    (),
]


def job(ids: Sequence[int], weights: Weights, semantics: Semantics = "delta", **sampling: Any) -> GenerationJob:
    given = {"max_tokens": 10, "temperature": 0.0, "logprobs": 0, "logit_bias": ENDLESS, **sampling}
    return GenerationJob(tuple(ids), Sampling(**given), weights, semantics)


async def write(generator: Any, jobs: Sequence[GenerationJob]) -> list[list[TextDelta]]:
    """All at once."""

    async def one(asked: GenerationJob) -> list[TextDelta]:
        return [delta async for delta in generator.stream(asked)]

    return await asyncio.gather(*(one(asked) for asked in jobs))


def told(deltas: Sequence[TextDelta]) -> tuple[list[int], Tensor]:
    """The tokens of a text and their log-probabilities."""
    tokens = [each for delta in deltas for each in delta.logprobs]
    return [each.id for each in tokens], torch.tensor([each.logprob for each in tokens])


def expected(base: Path, asked: GenerationJob, tokens: Sequence[int]) -> Tensor:
    """What the soup, merged into a checkpoint on disk and loaded by transformers, says of a text."""
    ids = [*asked.ids, *tokens]
    model = merged(base, dict(asked.weights), asked.semantics)
    rows = logprobs(model, ids)[len(asked.ids) - 1 : -1]
    return rows.gather(1, torch.tensor(tokens)[:, None]).flatten()
