"""Built-in texts, and items of files, as requests."""

import json

import pytest

from tureen.bench.workloads import Texts, make_workload
from tureen.errors import Unprocessable
from tureen.item_files import Row

PAIR = {"prompt": "Why?", "candidates": ["Because."]}


def test_no_two_texts_are_equal_and_a_seed_gives_the_same_ones() -> None:
    items = [Texts(20, 3, seed=1).write_item(number) for number in range(300)]
    texts = [text for item in items for text in (item["prompt"], *item["candidates"])]
    assert len(set(texts)) == len(texts) == 1200
    assert items == [Texts(20, 3, seed=1).write_item(number) for number in range(300)]
    lengths = [len(text.split()) for text in texts]
    assert (min(lengths) <= 7, 18 <= max(lengths) <= 20) == (True, True)


def test_bodies_of_both_routes() -> None:
    score = make_workload("score", {"rewards": ["length"]}, Texts(8, 2, 0))
    assert (score.path, set(json.loads(score.build_body(3)))) == ("/v1/score", {"items", "rewards"})
    chat = make_workload(
        "chat", {"max_tokens": 4}, [Row("a", PAIR), Row("b", {**PAIR, "prompt": [{"role": "user", "content": "So?"}]})]
    )
    asked = [json.loads(chat.build_body(number))["messages"] for number in range(3)]
    assert [each[0]["content"] for each in asked] == ["Why?", "So?", "Why?"]


@pytest.mark.parametrize(
    ("to", "item", "message"),
    [
        ("score", {"prompt": "Why?"}, "in.jsonl, line 2: .*with `candidates`"),
        ("chat", {"messages": [{"role": "user", "content": "Hi"}]}, "in.jsonl, line 2: the item has no prompt"),
    ],
)
def test_an_item_that_cannot_be_sent_is_named(to: str, item: object, message: str) -> None:
    with pytest.raises(Unprocessable, match=message):
        make_workload(to, {}, [Row("in.jsonl, line 1", PAIR), Row("in.jsonl, line 2", item)])  # type: ignore[arg-type]
