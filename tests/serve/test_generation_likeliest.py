"""The likeliest of neighbouring texts, by the mean of their tokens."""

from dataclasses import dataclass

from tureen_serve.generation.likeliest import keep_likeliest
from tureen_serve.runtimes.contract import TokenLogprob


@dataclass(frozen=True)
class Text:
    name: str
    logprobs: tuple[TokenLogprob, ...]


def text(name: str, *logprobs: float) -> Text:
    return Text(name, tuple(TokenLogprob("t", 0, each) for each in logprobs))


def test_the_mean_decides_and_not_the_sum() -> None:
    texts = [text("short", -1.5), text("long", -1.0, -1.0, -1.0), text("last", -0.5, -3.0)]
    assert [each.name for each in keep_likeliest(texts, 3, 2)] == ["long", "short"]


def test_each_group_has_its_own_and_equals_keep_their_order() -> None:
    texts = [text("a", -1.0), text("b", -1.0), text("c", -9.0), text("d", -2.0)]
    assert [each.name for each in keep_likeliest(texts, 2, 1)] == ["a", "d"]
    assert [each.name for each in keep_likeliest(texts, 2, 2)] == ["a", "b", "d", "c"]
