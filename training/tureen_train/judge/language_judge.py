"""A language model as a judge: which of two answers to a prompt is better by a criterion.

The judge is behind an OpenAI-compatible server. All that it says is kept in a file, so nothing is asked twice, also
not after a kill. A reply without a verdict is counted, and is never a number.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from tureen import Client
from tureen.errors import InvalidRequest, TureenError
from tureen.records.schema import Record
from tureen.wire import Usage
from tureen_train.judge.comparisons import Comparison, Done, Judgement, draw_order, make_comparison
from tureen_train.judge.configuration import Choice, JudgeConfiguration
from tureen_train.judge.costs import CountTokens, JudgeCost, Spent, count_by_characters, estimate_requests
from tureen_train.judge.kept_verdicts import JudgeReply, KeptVerdicts
from tureen_train.judge.prompts import digest_question, parse_verdicts, write_messages
from tureen_train.networks.reward_reader import spread_progress
from tureen_train.runs.server_calls import call_server

POINTS: Mapping[Choice, float] = {"A": 1.0, "B": 0.0, "tie": 0.5}
NO_VERDICT = "the judge's answer has no verdict"
EXAMPLE = 300  # characters of a reply that a message shows
CUT = "length"  # OpenAI's word for a reply that ended at max_tokens

Question = tuple[str, Comparison]  # its key and its order


class UnparsedReplies(ValueError):
    """Too many of a judge's replies have no verdict, so that the others would say little."""


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server, and the model there.

    Attributes:
        url: its address, with or without ``/v1``; ``TUREEN_API_KEY`` has its key.
        model: the name of the judge's model there.
        concurrency: the most requests at a time.
        timeout: seconds that one request may wait.
    """

    url: str
    model: str
    concurrency: int = 8
    timeout: float = 300.0


class LanguageJudge:
    """Compares answers by a language model.

        judge = LanguageJudge(read_configuration("pref2A"), Endpoint(url, "m"), Path("judgements.jsonl"))
        judge.compare([Comparison(prompt, "short", "a longer answer")], ignore_progress)[0].share

    Args:
        configuration: what it is asked, and how.
        endpoint: where.
        path: the file that keeps all that the judge says. One process writes it.
        most_unparsed: the largest share of the questions whose replies may have no verdict.

    Attributes:
        counts: what this process has judged, by a few words.
        spent: what this process has sent and got.
        example: the last reply without a verdict; empty if all had one.

    Raises:
        ValueError: the file is damaged.
    """

    reads_tools = False

    def __init__(
        self, configuration: JudgeConfiguration, endpoint: Endpoint, path: Path, most_unparsed: float = 1.0
    ) -> None:
        self.configuration = configuration
        self.endpoint = endpoint
        self.most_unparsed = most_unparsed
        self.counts: Counter[str] = Counter()
        self.spent = Spent()
        self.example = ""
        self._kept = KeptVerdicts(path)
        self._refused: set[str] = set()

    @property
    def name(self) -> str:
        """The model and its configuration."""
        return f"{self.endpoint.model}, {self.configuration.name}"

    def judge_pairs(self, records: Sequence[Record], done: Done) -> list[Judgement]:
        """See :class:`.comparisons.Judge` and :meth:`compare`."""
        return self.compare([make_comparison(record) for record in records], done)

    def estimate_cost(self, pairs: Sequence[Comparison], count: CountTokens = count_by_characters) -> JudgeCost:
        """Estimate what judging costs. Nothing is sent.

        Args:
            count: counts the tokens of messages.
        """
        asked = _merge_questions([self._ask_about(pair) for pair in pairs])
        new = [question for question in asked.items() if not self._kept.is_answered(question[0])]
        requests = [
            (write_messages(self.configuration, [each for _, each in batch]), len(batch)) for batch in self._divide(new)
        ]
        return estimate_requests(self.configuration, requests, len(asked) - len(new), count)

    def compare(self, pairs: Sequence[Comparison], done: Done) -> list[Judgement]:
        """Judge pairs. Equal answers tie without a request, and what was judged before is not asked again.

        A reply about several pairs with a wrong number of verdicts counts for none of them; they are asked about one
        by one.

        Args:
            done: called with the number of further pairs that are judged.

        Raises:
            ServerRefusal: the server refuses what every request asks for.
            UnparsedReplies: too many replies have no verdict. What was said is kept.
        """
        wanted = [self._ask_about(pair) for pair in pairs]
        asked = _merge_questions(wanted)
        new = [question for question in asked.items() if not self._kept.is_answered(question[0])]
        spread = spread_progress(done, len(pairs), len(new))
        unparsed = Unparsed(len(asked), self.most_unparsed)
        self._count_unparsed(unparsed, asked)
        failed: dict[str, str] = {}
        for _ in ("together", "alone"):  # what was asked together in vain is divided otherwise then
            left = [each for each in new if each[0] not in failed and not self._kept.is_answered(each[0])]
            for keys, error in self._call(self._divide(left)):
                failed |= dict.fromkeys(keys, error) if error else {}
                spread(sum(self._kept.is_answered(key) for key in keys))
                self._count_unparsed(unparsed, keys)
        spread(len(failed))
        if not new:
            done(len(pairs))
        return [self._conclude(pair, own, failed) for pair, own in zip(pairs, wanted, strict=True)]

    def _ask_about(self, pair: Comparison) -> list[Question]:
        """The questions that decide a pair: none for equal answers, else one for each order that is asked."""
        if pair.first == pair.second:
            return []
        orders = [pair, pair.turned] if self.configuration.orders == "both" else [draw_order(pair)]
        return [(digest_question(self.configuration, self.endpoint.model, each), each) for each in orders]

    def _divide(self, questions: Sequence[Question]) -> list[list[Question]]:
        """Divide questions into requests. Those that were asked in vain together are asked alone."""
        together = [each for each in questions if not self._is_split(each[0])]
        size = self.configuration.batch
        batches = [together[start : start + size] for start in range(0, len(together), size)]
        return batches + [[each] for each in questions if self._is_split(each[0])]

    def _is_split(self, key: str) -> bool:
        return key in self._refused or self._kept.is_split(key)

    def _call(self, batches: Sequence[list[Question]]) -> Iterator[tuple[list[str], str]]:
        """Send requests, a few at a time. Yields the keys of each, and why it failed."""
        target = self.endpoint
        return call_server(
            target.url, target.timeout, target.concurrency, self._ask, _lose, batches, forgiven=InvalidRequest
        )

    def _ask(self, client: Client, deadline: float, questions: list[Question]) -> tuple[list[str], str]:
        """Ask about some pairs and keep the reply. Returns the keys, and no error."""
        keys = [key for key, _ in questions]
        messages = write_messages(self.configuration, [each for _, each in questions])
        try:
            reply = client.chat(messages, model=self.endpoint.model, deadline=deadline, **self.configuration.settings)
        except InvalidRequest:
            if len(keys) == 1:
                raise
            self._refused.update(keys)  # as too long; each of them may be taken
            return keys, ""
        cut = bool(reply.choices) and reply.choices[0].finish_reason == CUT
        verdicts = parse_verdicts(self.configuration, reply.text, len(keys), cut)
        usage = reply.usage or Usage()
        told = JudgeReply(keys, verdicts, reply.text, usage.prompt_tokens, usage.completion_tokens)
        self._kept.add(told, self.endpoint.model, self.configuration.name)
        self.spent.add(told.read, told.written)
        return keys, ""

    def _count_unparsed(self, unparsed: "Unparsed", keys: Iterable[str]) -> None:
        for text in map(self._kept.find_unparsed, keys):
            if text is not None:
                self.example = text or "(an empty reply)"
                unparsed.add(text)

    def _conclude(self, pair: Comparison, questions: Sequence[Question], failed: Mapping[str, str]) -> Judgement:
        self.counts["pairs"] += 1
        if not questions:
            self.counts["equal answers"] += 1
            return Judgement(0.5)
        for key, _ in questions:
            if key in failed:
                self.counts["failed"] += 1
                return Judgement(None, failed[key])
        verdicts = [self._kept.find_verdict(key) for key, _ in questions]
        points = [
            POINTS[verdict] if order == pair else 1 - POINTS[verdict]
            for verdict, (_, order) in zip(verdicts, questions, strict=True)
            if verdict is not None
        ]
        if len(points) < len(verdicts):
            self.counts["without a verdict"] += 1
            return Judgement(None, NO_VERDICT)
        self.counts["turned with the order"] += len(points) == 2 and (points[0] - 0.5) * (points[1] - 0.5) < 0
        share = sum(points) / len(points)
        self.counts["ties"] += share == 0.5
        return Judgement(share)


class Unparsed:
    """Counts replies without a verdict, and ends what they would make worthless.

    Args:
        asked: the number of all questions.
        most: the largest share of them.
    """

    def __init__(self, asked: int, most: float) -> None:
        self.asked = asked
        self.most = most
        self.count = 0

    def add(self, reply: str) -> None:
        """Count a reply.

        Raises:
            UnparsedReplies: there are too many.
        """
        self.count += 1
        if self.count > self.most * self.asked:
            raise UnparsedReplies(
                f"{self.count} answers of the judge to {self.asked} questions have no verdict by now, and the most is a"
                f" share of {self.most:g} (--most-unparsed). The last one is {reply[:EXAMPLE]!r}. Name a model that can"
                " judge, or another configuration; what was said is kept"
            )


def _merge_questions(wanted: Iterable[Sequence[Question]]) -> dict[str, Comparison]:
    """Collect the questions about all pairs, first in one order and then in the other, so that no request has both."""
    return {key: order for turn in zip_longest(*wanted) for key, order in filter(None, turn)}


def _lose(questions: list[Question], error: TureenError) -> tuple[list[str], str]:
    return [key for key, _ in questions], error.message
