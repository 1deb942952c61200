"""Which answers are learnt: failures, empty and strange ones are counted, and the rules keep rows by all rewards."""

from collections.abc import Sequence
from typing import Any

from tureen_train.config import Cleaning, OnlineStage
from tureen_train.policies.ric.choices import draw_rows, find_rows, keep_rows
from tureen_train.policies.ric.tagged_rows import TaggedRow
from tureen_train.policies.rollouts.contract import Prompt, Reward, Sample
from tureen_train.policies.rollouts.rounds import Answered, Written

TABLE = [(3.0, 0.0), (2.9, -1.0), (1.0, 1.0), (0.0, 3.0), (0.5, 0.5)]


def answered(texts: list[str], rewards: list[tuple[float, ...] | None]) -> Answered:
    prompts = [Prompt(f"file:{at}", ({"role": "user", "content": "why?"},)) for at in range(len(texts))]
    written = [[Written(Sample(each.id, 0, text))] for each, text in zip(prompts, texts, strict=True)]
    made = [
        [Reward({}, None, "lost") if each is None else Reward(dict(zip("ab", each, strict=False)), sum(each))]
        for each in rewards
    ]
    return Answered(prompts, written, made)


def rows(table: Sequence[tuple[float, ...]]) -> list[TaggedRow]:
    return list(find_rows(answered(["text"] * len(table), list(table)), "data").rows)


def kept(**online: Any) -> list[int]:
    made = rows(TABLE)
    return [int(each.prompt.id.partition(":")[2]) for each in keep_rows(made, OnlineStage(**online))]


def test_failures_and_strange_answers_are_counted_by_reason() -> None:
    texts = ["good", "bad", " ", "....."]
    found = find_rows(answered(texts, [(1.0, 2.0), None, (1.0, 2.0), (1.0, 2.0)]), "round 1", Cleaning())
    assert [each.sample.text for each in found.rows] == ["good"]
    assert dict(found.left_out) == {"answers without a reward": 1, "empty answers": 1, "answers with '.....'": 1}
    of_data = find_rows(answered(["....."], [(1.0, 2.0)]), "data")
    assert len(of_data.rows) == 1  # the data's own answers are not cleaned


def test_the_rules_keep_by_any_quantile_or_by_dominance() -> None:
    """The .7-quantiles are 2.52 and .9."""
    assert kept(keep="quantile", quantile=0.7) == [0, 1, 2, 3]
    assert kept(keep="pareto") == [0, 2, 3]
    assert kept(keep="pareto", fronts=2) == [0, 1, 2, 3, 4]
    assert kept(keep="all") == [0, 1, 2, 3, 4]
    first, *_, last = keep_rows(rows(TABLE), OnlineStage())
    assert (first.why, last.why) == ("a at or above the quantile 0.7", "b at or above the quantile 0.7")
    assert keep_rows([], OnlineStage()) == []


def test_rows_are_drawn_without_replacement() -> None:
    made = rows(TABLE)
    drawn = draw_rows(made, 3, "7 original 1")
    assert len({each.prompt.id for each in drawn}) == 3
    assert drawn == [each for each in made if each in drawn]
    assert draw_rows(made, 9, "x") == made
    assert draw_rows(made, 0, "x") == []
