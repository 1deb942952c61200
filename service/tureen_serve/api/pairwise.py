"""Label items with rewards that compare two answers. Each pair is read in both orders; a round is one engine call."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from tureen.errors import TureenError, Unprocessable
from tureen.wire import Usage
from tureen_core.pair_texts import check_pair_inputs
from tureen_serve.api.reward_items import PreferencesBody, build_group, check_matrices, read_inputs
from tureen_serve.api.reward_plan import score_groups
from tureen_serve.api.reward_query import RewardQuery, read_query
from tureen_serve.generation.pairwise import (
    OrderProbabilities,
    Pair,
    PairwiseVerdict,
    Rounds,
    average_orders,
    compute_order_probabilities,
    play_knockout,
    play_round_robin,
)
from tureen_serve.inference.engine import AnswerPair, Engine, Group, Outcome, Reward
from tureen_serve.inference.pieces import GoOn, run_pieces
from tureen_serve.inference.text_limits import take_inputs
from tureen_serve.telemetry import Metrics

MOST_TEXTS = 8192


def asks_pair_rewards(body: PreferencesBody, rewards: Mapping[str, Reward]) -> bool:
    """Whether the body asks for rewards that compare answers: it names one, or no reward that scores is loaded."""
    named = [*(body.rewards or ()), *(body.preferences or ())]
    if named:
        return any(name in rewards and rewards[name].input == "pair" for name in named)
    inputs = {reward.input for reward in rewards.values()}
    return "pair" in inputs and "conversation" not in inputs


@dataclass
class Tournament:
    """The comparisons of one item.

    Attributes:
        group: the prompt and the answers; None if the item is an error.
        rounds: takes the results of one round and yields the pairs of the next.
        asked: the pairs of the next round.
        met: the results of all comparisons so far.
        judged: the verdict, once all comparisons are done.
        error: the item's error, instead of a verdict.
        tokens: the number of tokens of all texts that were read.
        truncated: whether a text was cut.
        normalised: what was not read as it was sent.
    """

    group: Group | None
    rounds: Rounds | None = None
    asked: list[Pair] = field(default_factory=list)
    met: dict[Pair, OrderProbabilities] = field(default_factory=dict)
    judged: PairwiseVerdict | None = None
    error: TureenError | None = None
    tokens: int = 0
    truncated: bool = False
    normalised: set[str] = field(default_factory=set)

    def list_next(self) -> list[AnswerPair]:
        """List the texts of the next round: each pair in both orders."""
        if self.group is None or self.judged or self.error:
            return []
        answers, prompt = self.group.answers, self.group.prompt
        return [
            AnswerPair(prompt, answers[i], answers[j], (i, j)) for pair in self.asked for i, j in (pair, pair[::-1])
        ]

    def take_outcomes(self, outcomes: Sequence[Outcome], query: RewardQuery) -> None:
        """Take the outcomes of :meth:`list_next`, and set the next round or the verdict."""
        failed = next((outcome.error for outcome in outcomes if outcome.error), None)
        self.tokens += sum(outcome.tokens for outcome in outcomes)
        self.truncated |= any(outcome.truncated for outcome in outcomes)
        self.normalised |= {name for outcome in outcomes for name in outcome.normalised}
        if failed or self.rounds is None:
            self.error = failed
            return
        twice = zip(self.asked, outcomes[::2], outcomes[1::2], strict=True)
        found = {
            pair: compute_order_probabilities(there.raw, back.raw, query.weights or {}, query.scales)
            for pair, there, back in twice
        }
        self.met |= found
        try:
            self.asked = self.rounds.send([average_orders(each) for each in found.values()])
        except StopIteration as end:
            self.judged = end.value

    def orders(self) -> OrderProbabilities | None:
        """Return P(chosen over rejected) with the chosen answer shown first, then with it shown second."""
        if self.judged is None:
            return None
        chosen, rejected = self.judged.verdict.chosen, self.judged.verdict.rejected
        if (chosen, rejected) in self.met:
            return self.met[chosen, rejected]
        there, back = self.met[rejected, chosen]
        return 1 - back, 1 - there


@dataclass(frozen=True)
class ComparisonPlan:
    """One body: the rewards that it asks for, and a tournament for each item."""

    body: PreferencesBody
    query: RewardQuery
    tournaments: Sequence[Tournament]

    @property
    def usage(self) -> Usage:
        """The number of tokens of all texts that were read, cached ones included."""
        read = sum(each.tokens for each in self.tournaments)
        return Usage(prompt_tokens=read, total_tokens=read)


def plan_comparisons(body: PreferencesBody, rewards: Mapping[str, Reward]) -> ComparisonPlan:
    """Plan a tournament for each item of a body.

    Raises:
        TureenError: the body cannot be answered by the loaded rewards, or an item cannot be read and the body says
            ``on_error: fail``.
    """
    check_matrices(body)
    if body.soup:
        raise Unprocessable("rewards that compare answers cannot be souped; send `soup: false`", param="soup")
    if body.matrix and body.comparisons == "knockout":
        message = "a knockout makes too few comparisons for a matrix; send `comparisons: all`"
        raise Unprocessable(message, param="matrix")
    query = read_query(body, rewards, "pair", weigh_all=True)
    _check_size(body)
    return ComparisonPlan(body, query, [_open_tournament(body, index) for index in range(len(body.items))])


async def run_comparisons(engine: Engine, metrics: Metrics, plan: ComparisonPlan) -> ComparisonPlan:
    """Run all tournaments. One round of all items is one call of the engine.

    Returns:
        The plan with finished tournaments. The ``param`` of an error starts at the body.

    Raises:
        TureenError: a whole call failed, or a text did and the body says ``on_error: fail``.
    """
    body = plan.body
    while asked := [(each, texts) for each in plan.tournaments if (texts := each.list_next())]:
        texts = take_inputs((text for _, next_texts in asked for text in next_texts), engine.limits)
        found = await score_groups(engine, texts, plan.query, metrics, truncate=body.truncate, priority=body.priority)
        outcomes = [outcome for (outcome,) in found]
        await run_pieces(partial(_settle_round, asked, outcomes, plan.query), large=True)
        _raise_failure(plan)
    return replace(plan, tournaments=[_locate_error(each, index) for index, each in enumerate(plan.tournaments)])


def _settle_round(
    asked: Sequence[tuple[Tournament, list[AnswerPair]]], outcomes: Sequence[Outcome], query: RewardQuery, go_on: GoOn
) -> None:
    following = iter(outcomes)
    for tournament, texts in asked:
        go_on()
        tournament.take_outcomes([next(following) for _ in texts], query)


def _check_size(body: PreferencesBody) -> None:
    """Refuse too many comparisons: their number grows with the square of the candidates."""
    counts = [len(item.candidates or ()) for item in body.items]
    asked = sum(n * (n - 1) for n in counts) if body.comparisons == "all" else 2 * sum(counts)
    if asked > MOST_TEXTS:
        message = f"this request needs {asked} texts and the limit is {MOST_TEXTS}"
        raise Unprocessable(f"{message}; send fewer items, or `comparisons: knockout`", param="items")


def _open_tournament(body: PreferencesBody, index: int) -> Tournament:
    try:
        check_pair_inputs(read_inputs(body.items[index]))
        group = build_group(body.items[index], least=2)
    except TureenError as error:
        located = error.at(f"items[{index}]")
        if body.on_error == "fail":
            raise located from None
        return Tournament(None, error=located)
    assert isinstance(group, Group)  # steps have no second candidate
    rounds = (play_round_robin if body.comparisons == "all" else play_knockout)(len(group), body.tie_margin)
    return Tournament(group, rounds, next(rounds))


def _raise_failure(plan: ComparisonPlan) -> None:
    """Raise the first error of a round under ``on_error: fail``."""
    for index, each in enumerate(plan.tournaments):
        if each.error and each.group and plan.body.on_error == "fail":
            raise each.error.at(f"items[{index}]")


def _locate_error(tournament: Tournament, index: int) -> Tournament:
    """Return the tournament with its error's ``param`` starting at the body."""
    if tournament.error is None or tournament.group is None:
        return tournament
    return replace(tournament, error=tournament.error.at(f"items[{index}]"))
