"""Write a method's answers by its server: ours, or another one with OpenAI's ``/v1/chat/completions``."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tureen import Client
from tureen.adapters.options import PATIENT
from tureen.errors import ServerFault
from tureen.openai_wire import ChatChoice
from tureen.wire import Score
from tureen_core.prompt_steering import choose_sentences, say_in_messages
from tureen_core.steering import PromptSteering
from tureen_train.config.fronts import FrontSampling, MethodPart
from tureen_train.front.answers import WrittenAnswer
from tureen_train.front.divergence import add_told
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
    return list(grid) if method.is_steered or method.candidates else [EVERYWHERE]


def say_sentences(method: MethodPart, prompt: Prompt, weights: Weights) -> list[dict[str, Any]]:
    """The prompt's messages with the sentences that the weights choose; unchanged for a method without sentences."""
    turns = [dict(turn) for turn in prompt.messages]
    if not method.sentences:
        return turns
    steering = PromptSteering.model_validate({"family": method.name, "sentences": method.sentences})
    return say_in_messages(turns, choose_sentences(weights, steering), steering)


def build_fields(
    method: MethodPart, point: str, weights: Weights, sampling: FrontSampling, logprobs: bool = False
) -> dict[str, Any]:
    """Build the fields of a request beside its messages and its seed.

    Args:
        logprobs: whether to ask for the log-probabilities of the tokens. Those of a chosen candidate are not its
            probability of being answered, so they are never asked for.
    """
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
    if logprobs and not method.candidates:
        fields["logprobs"] = True
    if method.candidates:
        fields["candidates"] = {"n": method.candidates, "select": "best", "preferences": dict(weights)}
    return fields


def group_tasks(method: MethodPart, tasks: Sequence[tuple[str, Prompt]]) -> list[tuple[list[str], Prompt]]:
    """The points that one request answers, with its prompt.

    Candidates that no preference changes are the same at all points, since the seed is the prompt's. They are written
    once, and each point takes its own best one.
    """
    if method.is_steered or not method.candidates:
        return [([point], prompt) for point, prompt in tasks]
    prompts = {prompt.id: prompt for _, prompt in tasks}
    return [([point for point, each in tasks if each.id == name], prompt) for name, prompt in prompts.items()]


def choose_candidate(candidates: Sequence[ChatChoice], weights: Weights) -> ChatChoice:
    """The candidate with the largest weighted reward, the first of equals, as the server chooses it.

    Raises:
        ServerFault: no candidate has rewards.
    """
    rewarded = [(each, each.rewards) for each in candidates if each.rewards]
    if not rewarded:
        raise ServerFault("no candidate has a reward", code="unreadable_reply")

    def weigh(rewards: Mapping[str, Score]) -> float:
        return math.fsum(weight * rewards[name].scaled for name, weight in weights.items() if weight)

    return max(rewarded, key=lambda each: weigh(each[1]))[0]


def take_only(choices: Sequence[ChatChoice], url: str) -> ChatChoice:
    """The one choice of a reply.

    Raises:
        ServerFault: there are more, or none.
    """
    if len(choices) != 1:
        raise ServerFault(f"{url} gave {len(choices)} answers where one was asked for", code="unreadable_reply")
    return choices[0]


def write_answers(
    method: MethodPart,
    url: str,
    tasks: Sequence[tuple[str, Prompt]],
    grid: Mapping[str, Weights],
    sampling: FrontSampling,
    logprobs: bool,
    keep: Callable[[WrittenAnswer], object],
) -> None:
    """Write a method's answers, a few requests at a time. The seed of a prompt is the same for all methods and points.

    Args:
        url: of the method's server.
        tasks: points and prompts.
        grid: the weights of each point.
        logprobs: whether to keep what a method itself says of its answers, as far as its server tells.
        keep: called with each answer as soon as it is there, by several threads.

    Raises:
        TureenError: the server cannot be reached for two minutes, or refuses a request.
    """

    def write(client: Client, points: Sequence[str], prompt: Prompt) -> None:
        began = time.perf_counter()
        point = points[0]
        fields = build_fields(method, point, grid.get(point, {}), sampling, logprobs)
        if len(points) > 1:
            names = {name for each in points for name in grid[each]}
            fields["candidates"] |= {"select": "all", "preferences": dict.fromkeys(sorted(names), 1.0)}
        messages = say_sentences(method, prompt, grid.get(point, {}))
        reply = client.chat(messages, seed=make_seed(sampling.seed, prompt.id, 0), **fields)
        tokens = reply.usage.completion_tokens if reply.usage else None
        seconds = round(time.perf_counter() - began, 4)
        for each in points:
            choice = choose_candidate(reply.choices, grid[each]) if len(points) > 1 else take_only(reply.choices, url)
            finished = choice.finish_reason != "length"
            told = add_told(choice.logprobs)
            place = method.name, each, prompt.id
            keep(WrittenAnswer(*place, choice.text, finished, tokens or None, seconds, *told))

    with (
        Client(url, timeout=sampling.timeout, retries=PATIENT) as client,
        ThreadPoolExecutor(sampling.concurrency) as pool,
    ):
        try:
            for _ in pool.map(lambda task: write(client, *task), group_tasks(method, tasks)):
                pass
        finally:
            pool.shutdown(cancel_futures=True)
