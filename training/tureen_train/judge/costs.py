"""What judging costs: tokens and money, estimated before it begins and counted while it goes on."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tureen.records.schema import BadOption
from tureen_core.base import load_tokenizer, locate_base
from tureen_train.judge.configuration import JudgeConfiguration, Price
from tureen_train.judge.prompts import Messages

CHARACTERS = 4  # of a token, roughly
FRAME = 4  # tokens around a message where no chat template is known

CountTokens = Callable[[Messages], int]


@dataclass(frozen=True)
class JudgeCost:
    """What judging costs.

    Attributes:
        requests: the number of requests.
        known: the number of questions whose replies are kept, so that they cost nothing.
        read: tokens of all messages that are sent.
        written: tokens that the judge usually writes, or has written.
        most_written: the most tokens that it may write; None without a limit.
    """

    requests: int
    known: int
    read: int
    written: int
    most_written: int | None = None

    def describe(self, price: Price | None = None) -> str:
        """Say what judging will cost."""
        most = "without a limit" if self.most_written is None else f"at most {self.most_written:,}"
        told = (
            f"requests: {self.requests:,} (verdicts that are known already: {self.known:,});"
            f" tokens read: about {self.read:,}, written: about {self.written:,}, {most}"
        )
        if price is None:
            return told
        told = f"{told}; cost: about {compute_money(price, self.read, self.written):.4g}"
        if self.most_written is None:
            return told
        return f"{told}, at most about {compute_money(price, self.read, self.most_written):.4g}"


@dataclass
class Spent:
    """What a judge has cost so far, as its server counted.

    Attributes:
        requests: those that were answered.
        read: tokens of their messages.
        written: tokens of the replies.
        uncounted: requests whose tokens the server did not tell.
    """

    requests: int = 0
    read: int = 0
    written: int = 0
    uncounted: int = 0

    def add(self, read: int, written: int) -> None:
        """Count an answered request."""
        self.requests += 1
        self.read += read
        self.written += written
        self.uncounted += not read

    def describe(self, price: Price | None = None) -> str:
        """Say what it has cost."""
        told = f"requests answered: {self.requests:,}; tokens read: {self.read:,}, written: {self.written:,}"
        if price is not None:
            told = f"{told}; cost: {compute_money(price, self.read, self.written):.4g}"
        return f"{told}; the server did not count the tokens of {self.uncounted:,}" if self.uncounted else told


def estimate_requests(
    configuration: JudgeConfiguration, requests: Sequence[tuple[Messages, int]], known: int, count: CountTokens
) -> JudgeCost:
    """Estimate what requests cost, if no reply has a wrong number of verdicts, after which it is asked one by one.

    Args:
        requests: the messages of each request, and the number of pairs in it.
        known: the number of questions that are not asked.
    """
    pairs, limit = sum(each for _, each in requests), configuration.max_tokens
    usual = pairs * configuration.usual_tokens
    most = None if limit is None else limit * len(requests)
    read = sum(count(messages) for messages, _ in requests)
    return JudgeCost(len(requests), known, read, usual if most is None else min(usual, most), most)


def sum_costs(costs: Sequence[JudgeCost]) -> JudgeCost:
    """Sum estimates. Without a limit on one, the sum has none."""
    limits = [each.most_written for each in costs if each.most_written is not None]
    return JudgeCost(
        sum(each.requests for each in costs),
        sum(each.known for each in costs),
        sum(each.read for each in costs),
        sum(each.written for each in costs),
        sum(limits) if len(limits) == len(costs) else None,
    )


def sum_spent(spent: Sequence[Spent]) -> Spent:
    """Sum what several judges have cost."""
    total = Spent()
    for each in spent:
        total.requests += each.requests
        total.read += each.read
        total.written += each.written
        total.uncounted += each.uncounted
    return total


def compute_money(price: Price, read: int, written: int) -> float:
    """Compute what tokens cost, in the price's currency."""
    return (read * price.read + written * price.written) / 1e6


def parse_price(text: str) -> Price:
    """Parse the prices of a million tokens read and written, as ``2.5/10``.

    Raises:
        BadOption: it is not written so.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)/(\d+(?:\.\d+)?)", text)
    if found is None:
        raise BadOption(f"--price: write the prices of a million tokens read and written, as 2.5/10, not {text!r}")
    return Price(read=float(found[1]), written=float(found[2]))


def count_by_characters(messages: Messages) -> int:
    """Estimate the tokens of messages: four characters each, and four tokens around a message."""
    return sum(-(-len(turn["content"]) // CHARACTERS) + FRAME for turn in messages)


def open_token_counter(tokenizer: str | None) -> CountTokens:
    """Open what counts tokens: a tokenizer with its chat template, or characters where none is named.

    Args:
        tokenizer: the folder of a tokenizer, or the name of a base.

    Raises:
        BaseError: there is no such folder.
    """
    if tokenizer is None:
        return count_by_characters
    folder = Path(tokenizer).expanduser()
    loaded = load_tokenizer(folder if folder.is_dir() else locate_base(tokenizer))

    def count_tokens(messages: Messages) -> int:
        if not loaded.chat_template:
            return sum(len(loaded.encode(turn["content"], add_special_tokens=False)) + FRAME for turn in messages)
        text = loaded.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return len(loaded.encode(text, add_special_tokens=False))

    return count_tokens
