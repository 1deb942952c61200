"""A language model as a judge: which of two answers to a prompt is better by a criterion.

The judge is behind an OpenAI-compatible server. All that it says is kept in a file, so nothing is judged twice,
also not after a kill. An answer of the judge without a verdict is counted, and is never a number.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tureen import Client
from tureen.errors import InvalidRequest
from tureen_train.config import JudgeSource
from tureen_train.networks.reward_reader import spread_progress
from tureen_train.policies.rollouts.comparison_prompts import (
    Choice,
    Comparison,
    digest_request,
    find_criterion,
    parse_verdict,
    starts_turned,
    write_messages,
)
from tureen_train.policies.rollouts.contract import Done
from tureen_train.policies.rollouts.server_calls import call_server
from tureen_train.policies.rollouts.wins import Judgement
from tureen_train.runs.line_file import LineFile

POINTS: Mapping[Choice, float] = {"A": 1.0, "B": 0.0, "tie": 0.5}
NO_VERDICT = "the judge's answer has no verdict"
CHARACTERS = 4  # of a token, roughly

Question = tuple[str, list[dict[str, Any]]]  # its key and its messages


@dataclass(frozen=True)
class JudgeCost:
    """What judging costs at most.

    Attributes:
        calls: the number of requests that are still to be made.
        known: the number of requests whose verdict is kept.
        tokens_in: of all messages to be sent, at four characters a token.
        tokens_out: the most that the judge may write; None without a limit.
    """

    calls: int
    known: int
    tokens_in: int
    tokens_out: int | None


class LanguageJudge:
    """Compares answers by a language model.

        judge = LanguageJudge(source, Path("runs/concise/judgements.jsonl"))
        judge.compare([Comparison(prompt, "short", "a longer answer")], ignore_progress)[0].share

    Args:
        source: the judge and its criterion.
        path: the file that keeps all that the judge says. One process writes it.

    Attributes:
        counts: what this process has judged, by a few words.

    Raises:
        RecipeError: there is no such criterion.
        ValueError: the file is damaged.
    """

    def __init__(self, source: JudgeSource, path: Path) -> None:
        self.source = source
        self.criterion = find_criterion(source.criterion)
        self.counts: Counter[str] = Counter()
        self._file = LineFile(path)
        self._verdicts: dict[str, Choice | None] = {row["key"]: row["verdict"] for row in self._file.rows}

    def estimate_cost(self, pairs: Sequence[Comparison]) -> JudgeCost:
        """Count the requests that judging needs, and their size. Nothing is sent."""
        asked = {key: messages for pair in pairs for key, messages in self._ask_about(pair)}
        new = [messages for key, messages in asked.items() if key not in self._verdicts]
        characters = sum(len(turn["content"]) for messages in new for turn in messages)
        limit = self.source.max_tokens
        return JudgeCost(
            len(new), len(asked) - len(new), characters // CHARACTERS, None if limit is None else limit * len(new)
        )

    def compare(self, pairs: Sequence[Comparison], done: Done) -> list[Judgement]:
        """Judge pairs. Equal answers tie without a request, and what was judged before is not asked again.

        Args:
            done: called with the number of further pairs that are judged.

        Raises:
            RewardError: the server refuses what every request asks for.
        """
        wanted = [self._ask_about(pair) for pair in pairs]
        new = {key: messages for own in wanted for key, messages in own if key not in self._verdicts}
        spread = spread_progress(done, len(pairs), len(new))
        failed: dict[str, str] = {}
        for key, error in call_server(
            self.source.url,
            self.source.timeout,
            self.source.concurrency,
            self._ask,
            lambda question, error: (question[0], error.message),
            list(new.items()),
            forgiven=InvalidRequest,
        ):
            failed |= {key: error} if error else {}
            spread(1)
        if not new:
            done(len(pairs))
        return [self._conclude(pair, own, failed) for pair, own in zip(pairs, wanted, strict=True)]

    @property
    def _settings(self) -> dict[str, Any]:
        given = {"temperature": self.source.temperature, "max_tokens": self.source.max_tokens}
        return {name: value for name, value in given.items() if value is not None}

    def _ask_about(self, pair: Comparison) -> list[Question]:
        """The questions that decide a pair: none for equal answers, else one for each order that is asked."""
        if pair.first == pair.second:
            return []
        orders = [pair, pair.turned] if self.source.orders == "both" else [_draw_order(pair)]
        written = [write_messages(self.criterion, each) for each in orders]
        return [(digest_request(self.source.model, each, self._settings), each) for each in written]

    def _ask(self, client: Client, deadline: float, question: Question) -> tuple[str, str]:
        """Ask one question and keep the answer. Returns the key, and no error."""
        key, messages = question
        reply = client.chat(messages, model=self.source.model, deadline=deadline, **self._settings)
        verdict = parse_verdict(reply.text)
        about = {"model": self.source.model, "criterion": self.criterion}
        self._file.append({"key": key, "verdict": verdict, "text": reply.text, **about})
        self._verdicts[key] = verdict
        return key, ""

    def _conclude(self, pair: Comparison, questions: Sequence[Question], failed: Mapping[str, str]) -> Judgement:
        self.counts["pairs"] += 1
        if not questions:
            self.counts["equal answers"] += 1
            return Judgement(0.5)
        for key, _ in questions:
            if key in failed:
                self.counts["failed"] += 1
                return Judgement(None, failed[key])
        verdicts = [self._verdicts[key] for key, _ in questions]
        points = [POINTS[each] for each in verdicts if each is not None]
        if len(points) < len(verdicts):
            self.counts["without a verdict"] += 1
            return Judgement(None, NO_VERDICT)
        if self.source.orders == "both":
            points[1] = 1 - points[1]
            self.counts["turned with the order"] += (points[0] - 0.5) * (points[1] - 0.5) < 0
        elif _draw_order(pair) != pair:
            points = [1 - points[0]]
        share = sum(points) / len(points)
        self.counts["ties"] += share == 0.5
        return Judgement(share)


def _draw_order(pair: Comparison) -> Comparison:
    return pair.turned if starts_turned(pair) else pair
