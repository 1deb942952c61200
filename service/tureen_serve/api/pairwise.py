"""Labels by rewards that compare answers: both orders of every comparison, in as few calls of the engine as rounds."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tureen.errors import TureenError, Unprocessable
from tureen.wire import Usage
from tureen_serve.api.reward_items import PreferencesBody, build_group
from tureen_serve.api.scoring import Ask, ask, run
from tureen_serve.generation.duels import Judged, Orders, Pair, Rounds, all_pairs, both, knockout, orders
from tureen_serve.inference.engine import Duel, Engine, Group, Outcome, Reward
from tureen_serve.telemetry import Metrics

MOST = 8192


def asks_pair_rewards(body: PreferencesBody, rewards: Mapping[str, Reward]) -> bool:
    """Whether a body asks rewards that compare answers: it names one, or nothing else is loaded."""
    named = [*(body.rewards or ()), *(body.preferences or ())]
    if named:
        return any(name in rewards and rewards[name].input == "pair" for name in named)
    inputs = {reward.input for reward in rewards.values()}
    return "pair" in inputs and "conversation" not in inputs


@dataclass
class Contest:
    """One item's tournament: its answers, what is to be compared next, and its verdict or what went wrong."""

    group: Group | None
    rounds: Rounds | None = None
    asked: list[Pair] = field(default_factory=list)
    met: dict[Pair, Orders] = field(default_factory=dict)
    judged: Judged | None = None
    error: TureenError | None = None
    tokens: int = 0
    truncated: bool = False

    def duels(self) -> list[Duel]:
        """Both orders of what is to be compared next."""
        if self.group is None or self.judged or self.error:
            return []
        answers, prompt = self.group.answers, self.group.prompt
        return [Duel(prompt, answers[i], answers[j], (i, j)) for pair in self.asked for i, j in (pair, pair[::-1])]

    def orders(self) -> Orders | None:
        """P(chosen over rejected) with the chosen one shown first, and with it shown second."""
        if self.judged is None:
            return None
        chosen, rejected = self.judged.verdict.chosen, self.judged.verdict.rejected
        if (chosen, rejected) in self.met:
            return self.met[chosen, rejected]
        there, back = self.met[rejected, chosen]
        return 1 - back, 1 - there

    def settle(self, outcomes: Sequence[Outcome], wanted: Ask) -> None:
        """Take in the outcomes of :meth:`duels`, and find what comes next."""
        failed = next((outcome.error for outcome in outcomes if outcome.error), None)
        self.tokens += sum(outcome.tokens for outcome in outcomes)
        self.truncated |= any(outcome.truncated for outcome in outcomes)
        if failed or self.rounds is None:
            self.error = failed
            return
        twice = zip(self.asked, outcomes[::2], outcomes[1::2], strict=True)
        found = {pair: orders(there.raw, back.raw, wanted.weights or {}, wanted.scales) for pair, there, back in twice}
        self.met |= found
        try:
            self.asked = self.rounds.send([both(each) for each in found.values()])
        except StopIteration as end:
            self.judged = end.value


@dataclass(frozen=True)
class Compared:
    """One body's contests."""

    wanted: Ask
    contests: Sequence[Contest]

    @property
    def usage(self) -> Usage:
        """Tokens read, whoever computed them."""
        read = sum(contest.tokens for contest in self.contests)
        return Usage(prompt_tokens=read, total_tokens=read)


async def compare_items(engine: Engine, metrics: Metrics, body: PreferencesBody) -> Compared:
    """A verdict on each item, or what is wrong with it; a round of all items is one call of the engine.

    Raises:
        TureenError: it concerns the whole body, or an item where ``on_error`` is ``fail``.
    """
    if body.soup:
        raise Unprocessable("rewards that compare answers cannot be souped; send soup: false", param="soup")
    if body.matrix and body.comparisons == "knockout":
        raise Unprocessable("a knockout compares too few for a matrix; send comparisons: all", param="matrix")
    wanted = ask(body, engine.rewards, "pair", weigh_all=True)
    _bound(body)
    contests = [_open(body, index) for index in range(len(body.items))]
    while asked := [(contest, duels) for contest in contests if (duels := contest.duels())]:
        together = [duel for _, duels in asked for duel in duels]
        found = await run(engine, together, wanted, metrics, truncate=body.truncate, priority=body.priority)
        await asyncio.to_thread(_settle, asked, [outcome for (outcome,) in found], wanted)
        _fail(body, contests)
    return Compared(wanted, [_located(contest, index) for index, contest in enumerate(contests)])


def _settle(asked: Sequence[tuple[Contest, list[Duel]]], outcomes: Sequence[Outcome], wanted: Ask) -> None:
    """Hand every contest the outcomes of its duels."""
    following = iter(outcomes)
    for contest, duels in asked:
        contest.settle([next(following) for _ in duels], wanted)


def _bound(body: PreferencesBody) -> None:
    """Refuse more comparisons than one request should wait for: they grow with the square of the candidates."""
    counts = [len(item.candidates or ()) for item in body.items]
    asked = sum(n * (n - 1) for n in counts) if body.comparisons == "all" else 2 * sum(counts)
    if asked > MOST:
        message = f"{asked} texts would be compared and the limit is {MOST}; send fewer items, or comparisons: knockout"
        raise Unprocessable(message, param="items")


def _open(body: PreferencesBody, index: int) -> Contest:
    try:
        found = build_group(body.items[index], least=2)
        if not isinstance(found, Group):
            raise Unprocessable("a preference is between candidates; send `candidates`", param="steps")
    except TureenError as error:
        located = error.at(f"items[{index}]")
        if body.on_error == "fail":
            raise located from None
        return Contest(None, error=located)
    rounds = (all_pairs if body.comparisons == "all" else knockout)(len(found), body.tie_margin)
    return Contest(found, rounds, next(rounds))


def _fail(body: PreferencesBody, contests: Sequence[Contest]) -> None:
    for index, contest in enumerate(contests):
        if contest.error and contest.group and body.on_error == "fail":
            raise contest.error.at(f"items[{index}]")


def _located(contest: Contest, index: int) -> Contest:
    """With its error's field told from the body on."""
    if contest.error is None or contest.group is None:
        return contest
    return replace(contest, error=contest.error.at(f"items[{index}]"))
