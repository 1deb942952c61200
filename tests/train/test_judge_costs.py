"""What judging costs: tokens and money by hand."""

from pathlib import Path

import pytest

from tureen.records.schema import BadOption
from tureen_core.base import load_tokenizer
from tureen_train.judge.configuration import Price, read_configuration
from tureen_train.judge.costs import (
    JudgeCost,
    Spent,
    count_by_characters,
    estimate_requests,
    open_token_counter,
    parse_price,
    sum_costs,
    sum_spent,
)

MESSAGES = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "why do leaves fall?"}]


def test_an_estimate_by_hand() -> None:
    """Two requests with 5 and 1 pairs at 30 tokens each; 6 pairs · 7 tokens are usual, 2 · 250 the most."""
    annotate = read_configuration("annotate/pref2A")
    found = estimate_requests(annotate, [(MESSAGES, 5), (MESSAGES, 1)], 3, lambda messages: 30)
    assert found == JudgeCost(requests=2, known=3, read=60, written=42, most_written=500)
    short = annotate.model_copy(update={"max_tokens": 5})
    assert estimate_requests(short, [(MESSAGES, 5)], 0, len).written == 5
    free = annotate.model_copy(update={"max_tokens": None})
    assert estimate_requests(free, [(MESSAGES, 5)], 0, len).most_written is None


def test_money_is_told_with_a_price() -> None:
    price = parse_price("2.5/10")
    assert price == Price(read=2.5, written=10)
    cost = JudgeCost(requests=10, known=2, read=200_000, written=1_000, most_written=5_000)
    assert "requests: 10 (verdicts that are known already: 2)" in cost.describe()
    assert "cost" not in cost.describe()
    assert cost.describe(price).endswith("cost: about 0.51, at most about 0.55")
    spent = Spent(requests=10, read=200_000, written=1_000)
    assert spent.describe(price).endswith("tokens read: 200,000, written: 1,000; cost: 0.51")
    with pytest.raises(BadOption, match="--price: write the prices .* not 'cheap'"):
        parse_price("cheap")


def test_sums() -> None:
    one, free = JudgeCost(1, 2, 3, 4, 5), JudgeCost(1, 0, 1, 1, None)
    assert sum_costs([one, one]) == JudgeCost(2, 4, 6, 8, 10)
    assert sum_costs([one, free]).most_written is None
    total = sum_spent([Spent(1, 2, 3, 4), Spent(1, 1, 1, 1)])
    assert total == Spent(2, 3, 4, 5)


def test_tokens_are_counted_by_a_tokenizer_with_its_template_or_by_characters(base: Path) -> None:
    tokenizer = load_tokenizer(base)
    wanted = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert open_token_counter(str(base))(MESSAGES) == len(wanted)
    assert open_token_counter(None) is count_by_characters
    assert count_by_characters(MESSAGES) == (2 + 4) + (5 + 4)
