"""Steering by words: RLPHF's eight sentences, chosen and ordered by weights."""

from typing import Any

import pytest

from tureen.errors import Unprocessable
from tureen_core.prompt_steering import choose_sentences, say_in_messages, say_in_text
from tureen_core.steering import PromptSteering

RLPHF = {
    "P1A": "Generate a response that can be easily understood by an elementary school student.",
    "P1B": "Generate a response that only a PhD Student in that specific field could understand.",
    "P2A": "Generate a response that is concise and to the point, without being verbose.",
    "P2B": "Generate a response that is very informative, without missing any background information.",
    "P3A": "Generate a response that is friendly, witty, funny, and humorous, like a close friend.",
    "P3B": "Generate a response in an unfriendly manner.",
    "P3C": "Generate a response in a sassy manner.",
    "P3D": "Generate a response in a sarcastic manner.",
}


def steering(**changes: Any) -> PromptSteering:
    return PromptSteering.model_validate({"family": "said", "sentences": RLPHF, **changes})


def poles(weights: dict[str, float], **changes: Any) -> list[str]:
    names = {text: name for name, text in RLPHF.items()}
    return [names[text] for text in choose_sentences(weights, steering(**changes))]


def test_weights_choose_the_sentences_and_order_them() -> None:
    assert poles({"P3A": 0.5, "P1A": 0.2, "P2B": 0.3}) == ["P3A", "P2B", "P1A"]
    assert poles({"P3A": 1.0}) == ["P3A"]


def test_a_combination_has_the_order_of_its_dimensions() -> None:
    """Its weights are equal, and RLPHF's training prompts have this order."""
    assert poles({"P3B": 0.333333, "P2A": 0.333333, "P1B": 0.333333}) == ["P1B", "P2A", "P3B"]


def test_a_weight_under_the_threshold_names_no_sentence() -> None:
    weights = {"P1A": 0.6, "P2A": 0.3, "P3A": 0.1}
    assert poles(weights) == ["P1A", "P2A", "P3A"]
    assert poles(weights, threshold=0.101) == ["P1A", "P2A"]
    assert poles(weights, threshold=1 / 3) == ["P1A"]
    assert poles({"P1A": 0.333333, "P2A": 0.333333, "P3A": 0.333334}, threshold=1 / 3) == ["P3A", "P1A", "P2A"]
    assert poles({"P1A": 1.0, "P2A": 0.0}, threshold=0) == ["P1A"]


def test_weights_that_say_nothing_are_refused() -> None:
    with pytest.raises(Unprocessable, match=r"no weight reaches 0\.2, so no sentence would be said") as found:
        poles(dict.fromkeys(RLPHF, 0.125), threshold=0.2)
    assert found.value.param == "preferences"


def test_sentences_follow_the_users_last_message() -> None:
    talk = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes?"}]
    asked = {"role": "user", "content": "Explain tides.\n"}
    made = say_in_messages([*talk, asked], [RLPHF["P2A"], RLPHF["P3C"]], steering())
    assert made == [*talk, {"role": "user", "content": f"Explain tides. {RLPHF['P2A']} {RLPHF['P3C']}"}]
    assert asked["content"] == "Explain tides.\n"
    assert say_in_messages([{"role": "user", "content": " "}], ["Be brief."], steering())[0]["content"] == "Be brief."
    assert say_in_messages([asked], [], steering()) == [asked]


def test_the_template_joins_sentences_and_message() -> None:
    own = steering(template="Rules: {sentences}\n\n{message}!", joiner=" / ")
    made = say_in_messages([{"role": "user", "content": "Say {sentences} and {message}"}], ["A.", "B."], own)
    assert made[0]["content"] == "Rules: A. / B.\n\nSay {sentences} and {message}!"


def test_sentences_may_stand_in_the_systems_message() -> None:
    own, asked = steering(place="system", template="{message}\n{sentences}"), {"role": "user", "content": "Hi"}
    assert say_in_messages([asked], ["A."], own) == [{"role": "system", "content": "A."}, asked]
    told = {"role": "system", "content": "You are a cook."}
    assert say_in_messages([told, asked], ["A."], own)[0]["content"] == "You are a cook.\nA."
    with pytest.raises(Unprocessable, match="send messages to /v1/chat/completions"):
        say_in_text("Hi", ["A."], own)


def test_a_bare_prompt_gets_its_sentences_before_the_answers_marker() -> None:
    marker = "\n<|assistant|>\n"
    made = say_in_text(f"<|user|>\nExplain tides{marker}", ["A.", "B."], steering(), marker)
    assert made == f"<|user|>\nExplain tides A. B.{marker}"
    assert say_in_text("\n\nExplain tides", ["A."], steering()) == "\n\nExplain tides A."
    assert say_in_text("Explain tides", [], steering()) == "Explain tides"
