"""A reward function for OpenRLHF's ``--reward.remote_url``, written for OpenRLHF 0.11: give it the path of a file with

    from tureen.adapters.openrlhf import reward_func

OpenRLHF hands over finished texts, prompt and answer in one with special tokens kept, and what stands in them says how
they must be read:

* With ``--data.apply_chat_template`` they stand in the policy's chat template, and must not be put into one again. They
  go to the server's ``/get_reward``, which reads them as they are; that is right where the reward model was trained on
  the policy's template. ``--reward.remote_url http://host:8900/get_reward`` does the same without this function, which
  adds that a server that is away is waited for, two minutes instead of five seconds.
* Without it a prompt is bare text: say ``templated=False``. Prompt and answer are taken apart and go to the server as
  messages, which it puts into its reward model's own template.

A row that fails raises. OpenRLHF logs that, and stops where it then finds no reward; it never trains on a 0.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Unpack
from urllib.parse import quote

from tureen.adapters.connections import share_client
from tureen.adapters.grouped_rows import group_by_prompt
from tureen.adapters.options import Options, RewardQuery, Server, parse_options_with_environment
from tureen.errors import InvalidRequest, ServerFault
from tureen.mixes import AS_WRITTEN
from tureen.wire import CandidateScore, Reply, Weight

ENDS = ("<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|endoftext|>", "<end_of_turn>", "<eos>", "</s>")
NATIVE = ("soup", "truncate", "fingerprint")


class Rewards(Reply):
    """The answer of ``/get_reward``, and of :func:`reward_func`: a number for each query."""

    rewards: list[Weight]
    scores: list[Weight]
    extra_logs: dict[str, list[Weight]]


def reward_func(
    queries: Sequence[str],
    prompts: Sequence[str],
    labels: Sequence[object],  # noqa: ARG001  OpenRLHF gives it third
    *,
    objective: str | None = None,
    templated: bool = True,
    ends: Sequence[str] = ENDS,
    **options: Unpack[Options],
) -> dict[str, Any]:
    """The rewards of finished texts.

    Args:
        queries: prompts with their answers.
        prompts: each the beginning of its query.
        labels: not read.
        objective: whose score is the reward. Without it and ``preferences`` it is as ``TUREEN_PREFERENCES`` weighs, or
            else the server's default, raw where the texts are templated.
        templated: the texts stand in a chat template already.
        ends: the policy's marks for the end of an answer, which are taken off it where the texts are not templated.
        options: the fields of :class:`tureen.adapters.options.Ask`, such as ``preferences`` in place of an objective,
            and of :class:`tureen.adapters.options.Server`.

    Returns:
        ``rewards``; ``scores``, the same brought to (0, 1) for dynamic filtering; and ``extra_logs`` by name. All are
        lists, which OpenRLHF makes tensors of, as it does with what a server answers.

    Raises:
        InvalidRequest: a query does not begin with its prompt, or the options contradict each other.
        TureenError: a text has no reward.
    """
    server, ask = parse_options_with_environment(objective, options)
    if templated:
        return _finished(server, ask, queries).model_dump()
    answers = [_answer(query, prompt, ends) for query, prompt in zip(queries, prompts, strict=True)]
    batch = group_by_prompt(prompts, answers)
    with share_client(server) as client:
        rows = batch.read_reply(client.score(batch.items, **ask.options()) if batch.items else None)
    return _rewards(ask, rows).model_dump()


def _finished(server: Server, ask: RewardQuery, texts: Sequence[str]) -> Rewards:
    unread = [name for name in NATIVE if getattr(ask, name)]
    if unread:
        raise InvalidRequest(f"templated texts are scored without `{unread[0]}`: leave it out", param=unread[0])
    with share_client(server) as client:
        reply = client.post(f"/get_reward{_model(ask)}", {"query": list(texts)}, Rewards, ask.deadline)
    if len(reply.rewards) != len(texts):
        raise ServerFault(f"the answer does not hold {len(texts)} rewards", code="unreadable_reply")
    return reply


def _model(ask: RewardQuery) -> str:
    weights: Mapping[str, float] = ask.preferences or dict.fromkeys(ask.objectives, 1.0)
    if not weights:
        return ""
    # A lone name is its raw reward to the server, and a weight makes it calibrated.
    names = [f"{name}={weight!r}" if ask.calibrated else name for name, weight in weights.items()]
    mark = "" if ask.normalize == "simplex" else AS_WRITTEN
    return f"?model={quote(mark + ','.join(names), safe='')}"


def _rewards(ask: RewardQuery, rows: Sequence[CandidateScore]) -> Rewards:
    rewards = [ask.require_reward(row) for row in rows]
    components = [ask.objective_scores(row) for row in rows]
    logs = {name: [each[name] for each in components] for name in (components[0] if components else ())}
    return Rewards(rewards=rewards, scores=[_squashed(reward) for reward in rewards], extra_logs=logs)


def _squashed(reward: float) -> float:
    return 0.5 * (1 + math.tanh(reward / 2))


def _answer(query: str, prompt: str, ends: Sequence[str]) -> str:
    if not query.startswith(prompt):
        said = f"the query {query[:40]!r} does not begin with its prompt {prompt[:40]!r}"
        raise InvalidRequest(f"{said}: say templated=True to score it as it is", param="queries")
    answer = query.removeprefix(prompt)
    while end := next((each for each in ends if answer.endswith(each)), None):
        answer = answer.removesuffix(end).rstrip()  # as the server removes the marks of its own
    return answer
