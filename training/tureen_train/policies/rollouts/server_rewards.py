"""Rewards of a running Tureen server, through the client. A reward that fails there is never a number."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from tureen import Client
from tureen.adapters.grouped_rows import GroupedRows, group_by_prompt
from tureen.records.dialogue import assistant_turn
from tureen.wire import CandidateScore, ModelCard
from tureen_core.calibration import CALIBRATE
from tureen_train.config import RecipeError, ServerSource
from tureen_train.policies.rollouts.contract import Done, Prompt
from tureen_train.policies.rollouts.valuing import (
    Samples,
    Value,
    Valued,
    Valuer,
    count_normalised,
    make_value,
    shape_like,
)
from tureen_train.runs.server_calls import call_server

REQUESTS = 4  # at a time


@dataclass(frozen=True)
class ServedReward:
    """A reward of a server, and whether it is given calibrated."""

    name: str
    reward: str
    calibrated: bool


class ServerValuer:
    """Values answers by rewards of one server.

    A request that fails is sent again for about two minutes. If it fails still, its answers have no value. An error
    that every request would have, such as an unknown reward, another model than at the start, or a wrong key, ends the
    run.

    Args:
        url: the server's address.
        timeout: seconds that one request may wait.
        rewards: those that are asked for.
        fingerprints: of the rewards' models, which must stay loaded.
        batch: the number of prompts in one request.
    """

    def __init__(
        self,
        url: str,
        timeout: float,
        rewards: Sequence[ServedReward],
        fingerprints: Mapping[str, str],
        batch: int,
    ) -> None:
        self.url = url
        self.timeout = timeout
        self.rewards = rewards
        self.fingerprints = fingerprints
        self.batch = batch

    @property
    def names(self) -> Sequence[str]:
        """The names of the rewards."""
        return [each.name for each in self.rewards]

    def value_samples(self, prompts: Sequence[Prompt], samples: Samples, done: Done) -> Valued:
        """See :class:`.valuing.Valuer`. A few requests run at a time.

        Raises:
            ServerRefusal: the server refuses what every request asks for.
        """
        parts = [
            (prompts[at : at + self.batch], samples[at : at + self.batch]) for at in range(0, len(prompts), self.batch)
        ]
        grouped = [_group(*part) for part in parts]
        rows: list[CandidateScore] = []
        for found in call_server(self.url, self.timeout, REQUESTS, self._ask, GroupedRows.fail_rows, grouped):
            rows += found
            done(len(found))
        return Valued(
            {each.name: shape_like(samples, [_read(row, each) for row in rows]) for each in self.rewards},
            count_normalised(self.names, [row.normalised for row in rows]),
        )

    def _ask(self, client: Client, deadline: float, rows: GroupedRows) -> list[CandidateScore]:
        """Return the scores or errors of all answers of some prompts."""
        if not rows.items:
            return rows.read_reply(None)
        reply = client.score(
            rows.items,
            rewards=[each.reward for each in self.rewards],
            fingerprint=self.fingerprints,
            truncate=True,
            on_error="item",
            priority="batch",
            deadline=deadline,
        )
        return rows.read_reply(reply)


def _group(prompts: Sequence[Prompt], samples: Samples) -> GroupedRows:
    """Make the items of some prompts with their answers."""
    asked = [prompt for prompt, answers in zip(prompts, samples, strict=True) for _ in answers]
    return group_by_prompt(
        [list(prompt.messages) for prompt in asked],
        [[assistant_turn(answer.text)] for answer in chain.from_iterable(samples)],
        {name: [prompt.template_arguments.get(name) for prompt in asked] for name in ("tools", "chat_template_kwargs")},
    )


def _read(row: CandidateScore, wanted: ServedReward) -> Value:
    if row.error is not None:
        return Value(None, row.error.message)
    score = (row.scores or {}).get(wanted.reward)
    number = None if score is None else score.calibrated if wanted.calibrated else score.raw
    if number is None:
        return Value(None, f"the server's reply has no {'calibrated' if wanted.calibrated else 'raw'} {wanted.reward}")
    return make_value(number, row.truncated)


def open_servers(sources: Sequence[ServerSource], batch: int) -> list[Valuer]:
    """Open the rewards of servers. Those of one server are asked for together, if they read preferences alike.

    Raises:
        RecipeError: a server has no such reward, or it has no calibration.
        TureenError: a server cannot be reached.
    """
    asked: dict[tuple[str, float, str], list[ServerSource]] = {}
    for source in sources:
        asked.setdefault((source.url, source.timeout, source.preferences), []).append(source)
    return [_open(url, timeout, some, batch) for (url, timeout, _), some in asked.items()]


def _open(url: str, timeout: float, sources: Sequence[ServerSource], batch: int) -> Valuer:
    with Client(url, timeout=timeout) as client:
        cards = {card.id: card for card in client.models().data if card.kind == "reward"}
    rewards = [_choose(source, cards) for source in sources]
    fingerprints = {each.reward: str(cards[each.reward].fingerprint) for each in rewards}
    return ServerValuer(url, timeout, rewards, fingerprints, batch)


def _choose(source: ServerSource, cards: Mapping[str, ModelCard]) -> ServedReward:
    if source.reward not in cards:
        raise RecipeError(
            f"rewards: {source.url} has no reward {source.reward!r}; it has {', '.join(cards) or 'no reward'}"
        )
    if source.scale == "calibrated" and not cards[source.reward].calibrated:
        raise RecipeError(
            f"rewards: {source.reward} of {source.url} has no calibration; set scale: raw if it is the only reward,"
            f" or calibrate its artifact with {CALIBRATE}"
        )
    return ServedReward(source.name, source.reward, source.scale == "calibrated")
