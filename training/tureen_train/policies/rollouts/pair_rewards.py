"""Rewards by a pairwise model in this process: the mean probability of winning against the other answers."""

import math
from collections.abc import Iterator, Sequence
from itertools import combinations, islice

from tureen.errors import Unprocessable
from tureen.records.dialogue import assistant_turn
from tureen_core.chat_template import make_template_inputs
from tureen_core.pair_texts import render_pair
from tureen_core.reading import Rendered
from tureen_core.tournament import compute_preference
from tureen_train.judge.comparisons import Judgement
from tureen_train.networks.objective_reader import ReadObjective
from tureen_train.networks.reward_reader import spread_progress
from tureen_train.policies.rollouts.contract import Done, Prompt, Sample
from tureen_train.policies.rollouts.objective_valuer import ObjectiveValuer
from tureen_train.policies.rollouts.valuing import Samples, Value, Valued, count_normalised
from tureen_train.policies.rollouts.wins import share_wins


class PairValuer(ObjectiveValuer):
    """Values answers by a pairwise model, which compares all pairs of the answers to a prompt in both orders.

    The probability of a pair is the mean over both orders (RLHFlow, arXiv 2405.07863).
    """

    def value_samples(self, prompts: Sequence[Prompt], samples: Samples, done: Done) -> Valued:
        """See :class:`.valuing.Valuer`. Answers that the model's text has no place for have no value."""
        told = [
            self._render(prompt, *two)
            for prompt, answers in zip(prompts, samples, strict=True)
            for two in combinations(answers, 2)
        ]
        texts = [text for both in told if not isinstance(both, str) for text in both]
        count = sum(map(len, samples))
        rows = self.model.score(texts, self.batch, spread_progress(done, count, len(texts)))
        if not texts:
            done(count)
        return Valued(
            {each.name: self._share(samples, told, rows, each) for each in self.objectives},
            count_normalised(self.names, [each.normalised for each in texts]),
        )

    def _render(self, prompt: Prompt, one: Sample, other: Sample) -> tuple[Rendered, Rendered] | str:
        """Render two answers in both orders, or say why that is not possible."""
        first, second = [assistant_turn(one.text)], [assistant_turn(other.text)]
        inputs, renderer = make_template_inputs(prompt.template_arguments), self.model.reader.renderer
        try:
            forward = render_pair(renderer, prompt.messages, first, second, inputs=inputs)
            return forward, render_pair(renderer, prompt.messages, second, first, inputs=inputs)
        except Unprocessable as error:
            return error.message

    @staticmethod
    def _share(
        samples: Samples,
        told: Sequence[tuple[Rendered, Rendered] | str],
        rows: Sequence[dict[str, float]],
        wanted: ReadObjective,
    ) -> list[list[Value]]:
        logits = iter([row[wanted.objective] for row in rows])
        judged = iter([_judge(each, logits, wanted.scale.temperature) for each in told])
        return [share_wins(len(own), list(islice(judged, len(own) * (len(own) - 1) // 2))) for own in samples]


def _judge(told: tuple[Rendered, Rendered] | str, logits: Iterator[float], temperature: float) -> Judgement:
    if isinstance(told, str):
        return Judgement(None, told)
    forward, backward = next(logits), next(logits)
    if not (math.isfinite(forward) and math.isfinite(backward)):
        return Judgement(None, f"the log-odds are {forward} and {backward}, not finite numbers")
    return Judgement(compute_preference(forward, backward, temperature), truncated=any(each.truncated for each in told))
