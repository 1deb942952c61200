"""Write a method's answers by its server: ours, or another one with OpenAI's ``/v1/chat/completions``."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tureen import Client
from tureen.adapters.options import PATIENT
from tureen.errors import ServerFault
from tureen_train.config.fronts import FrontSampling, MethodPart
from tureen_train.front.answers import WrittenAnswer
from tureen_train.front.grids import EVERYWHERE, Weights
from tureen_train.policies.rollouts.contract import Prompt
from tureen_train.policies.rollouts.server_sampler import make_seed


def list_points(method: MethodPart, grid: Mapping[str, Weights]) -> list[str]:
    """The names of the points at which a method is measured.

    Raises:
        ValueError: ``models`` names a point that the grid does not have.
    """
    if method.steering == "models":
        if unknown := [name for name in method.models if name not in grid]:
            raise ValueError(f"methods: {method.name}: the grid has no point {unknown[0]!r}; it has {', '.join(grid)}")
        return [name for name in grid if name in method.models]
    return list(grid) if method.steering == "preferences" or method.candidates else [EVERYWHERE]


def build_fields(method: MethodPart, point: str, weights: Weights, sampling: FrontSampling) -> dict[str, Any]:
    """Build the fields of a request beside its messages and its seed."""
    fields: dict[str, Any] = {
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
    }
    model = method.models.get(point, method.model)
    if model is not None:
        fields["model"] = model
    if method.steering == "preferences":
        fields["preferences"] = {method.names.get(name, name): weight for name, weight in weights.items()}
    if method.soup is not None:
        fields["soup"] = method.soup.model_dump(exclude_unset=True)
    if method.candidates:
        fields["candidates"] = {"n": method.candidates, "select": "best", "preferences": dict(weights)}
    return fields


def write_answers(
    method: MethodPart,
    url: str,
    tasks: Sequence[tuple[str, Prompt]],
    grid: Mapping[str, Weights],
    sampling: FrontSampling,
    keep: Callable[[WrittenAnswer], object],
) -> None:
    """Write a method's answers, a few requests at a time. The seed of a prompt is the same for all methods and points.

    Args:
        url: of the method's server.
        tasks: points and prompts.
        grid: the weights of each point.
        keep: called with each answer as soon as it is there, by several threads.

    Raises:
        TureenError: the server cannot be reached for two minutes, or refuses a request.
    """

    def ask(client: Client, point: str, prompt: Prompt) -> None:
        began = time.perf_counter()
        reply = client.chat(
            [dict(turn) for turn in prompt.messages],
            seed=make_seed(sampling.seed, prompt.id, 0),
            **build_fields(method, point, grid.get(point, {}), sampling),
        )
        if len(reply.choices) != 1:
            raise ServerFault(
                f"{url} gave {len(reply.choices)} answers where one was asked for", code="unreadable_reply"
            )
        tokens = reply.usage.completion_tokens if reply.usage else None
        finished = reply.choices[0].finish_reason != "length"
        seconds = round(time.perf_counter() - began, 4)
        keep(WrittenAnswer(method.name, point, prompt.id, reply.text, finished, tokens or None, seconds))

    with (
        Client(url, timeout=sampling.timeout, retries=PATIENT) as client,
        ThreadPoolExecutor(sampling.concurrency) as pool,
    ):
        try:
            for _ in pool.map(lambda task: ask(client, *task), tasks):
                pass
        finally:
            pool.shutdown(cancel_futures=True)
