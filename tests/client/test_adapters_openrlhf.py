"""OpenRLHF's reward function, called as it calls it; OpenRLHF itself is run in ``journeys/test_loops.py``."""

from collections.abc import Iterator
from typing import Any

import pytest
import tiny
from client.rewarding import OBJECTIVES, POISON, rewarding
from client.standin import StandIn, free_url, refusal, reply

from tureen import Client, ConnectionFailed, InvalidRequest, NotFound, Retries, ServerFault, Unavailable
from tureen.adapters.openrlhf import reward_func

HASTY = Retries(limit=1, first=0.001, most=0.002)
QUESTION = "Why do leaves fall?"
ANSWERS = ["In autumn.", "The dog is lazy."]
END = "<|im_end|>"
WEIGHTS = {"helpful": 0.7, "harmless": 0.3}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with rewarding(tmp_path_factory.mktemp("rewarding")) as address:
        yield address


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[Client]:
    with Client(url) as client:
        yield client


def templated(*answers: str) -> tuple[list[str], list[str]]:
    """Finished texts and their prompts in the tiny models' template, as OpenRLHF decodes them."""
    asked = [{"role": "user", "content": QUESTION}]
    prompt = tiny.tokenizer().apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    return [f"{prompt}{answer}{END}" for answer in answers], [prompt] * len(answers)


def bare(*answers: str) -> tuple[list[str], list[str]]:
    """The same without a template."""
    return [f"{QUESTION}{answer}{END}" for answer in answers], [QUESTION] * len(answers)


def asked(texts: tuple[list[str], list[str]], **options: Any) -> dict[str, Any]:
    queries, prompts = texts
    return reward_func(queries, prompts, [""] * len(queries), **options)


def direct(client: Client, **options: Any) -> Any:
    return client.score([{"prompt": QUESTION, "candidates": ANSWERS}], **options).data[0].candidates


@pytest.mark.parametrize(("texts", "finished"), [(templated, True), (bare, False)])
def test_both_forms_give_the_reward_of_the_conversation(url: str, client: Client, texts: Any, finished: bool) -> None:
    options: dict[str, Any] = {"templated": finished, "base_url": url}
    weighed = asked(texts(*ANSWERS), preferences=WEIGHTS, **options)
    rewards = [row.reward for row in direct(client, preferences=WEIGHTS)]
    assert weighed["rewards"] == pytest.approx(rewards, abs=1e-4)
    assert set(OBJECTIVES) <= set(weighed["extra_logs"])
    less = {"preferences": {"helpful": 1.0, "harmless": -0.5}, "normalize": "none"}
    subtracted = asked(texts(*ANSWERS), **less, **options)
    assert subtracted["rewards"] == pytest.approx([row.reward for row in direct(client, **less)], abs=1e-4)
    raws = [[row.scores[name].calibrated for name in ("helpful", "harmless")] for row in direct(client)]
    assert subtracted["rewards"] == pytest.approx([one - 0.5 * other for one, other in raws], abs=1e-4)
    calibrated = asked(texts(*ANSWERS), objective="helpful", **options)
    assert calibrated["rewards"] == pytest.approx(
        [row.scores["helpful"].calibrated for row in direct(client)], abs=1e-4
    )
    raw = asked(texts(*ANSWERS), objective="helpful", calibrated=False, **options)
    assert raw["rewards"] == pytest.approx([row.scores["helpful"].raw for row in direct(client)], abs=1e-4)


@pytest.mark.parametrize(("texts", "finished"), [(templated, True), (bare, False)])
def test_what_openrlhf_reads_is_a_number_for_each_query(url: str, texts: Any, finished: bool) -> None:
    found = asked(texts(*ANSWERS), preferences=WEIGHTS, templated=finished, base_url=url)
    assert set(found) == {"rewards", "scores", "extra_logs"}
    columns = [found["rewards"], found["scores"], *found["extra_logs"].values()]
    assert {len(column) for column in columns} == {2}
    assert {type(value) for column in columns for value in column} == {float}
    assert all(0 < score < 1 for score in found["scores"])
    assert (found["scores"][0] < found["scores"][1]) == (found["rewards"][0] < found["rewards"][1])


@pytest.mark.parametrize("finished", [True, False])
def test_nothing_asked_is_nothing_answered(url: str, finished: bool) -> None:
    found = asked(([], []), preferences=WEIGHTS, templated=finished, base_url=url)
    assert (found["rewards"], found["scores"]) == ([], [])


def test_the_marks_after_an_answer_are_taken_off(standin: StandIn) -> None:
    queries = ["Q?Yes.<|im_end|><|endoftext|>", "Q?No.", "Q?<b></s>ok</s>", "Q?"]
    found = reward_func(
        queries, ["Q?"] * 4, [None] * 4, objective="length", calibrated=False, templated=False, base_url=standin.url
    )
    assert standin.seen[-1].json["items"] == [{"prompt": "Q?", "candidates": ["Yes.", "No.", "<b></s>ok", ""]}]
    assert found["rewards"] == [4.0, 3.0, 9.0, 0.0]
    reward_func(
        ["Q?Yes.[STOP]"], ["Q?"], [None], templated=False, ends=["[STOP]"], objective="length", base_url=standin.url
    )
    assert standin.seen[-1].json["items"][0]["candidates"] == ["Yes."]


def test_a_query_that_does_not_begin_with_its_prompt_is_refused(standin: StandIn) -> None:
    with pytest.raises(InvalidRequest, match="does not begin with its prompt 'Why': say templated=True"):
        reward_func(["<s>Why not"], ["Why"], [None], templated=False, objective="length", base_url=standin.url)
    assert not standin.seen


def test_the_environment_says_where_and_how_it_is_weighed(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUREEN_BASE_URL", url)
    monkeypatch.setenv("TUREEN_PREFERENCES", "helpful=0.7,harmless=0.3")
    assert asked(templated(*ANSWERS)) == asked(templated(*ANSWERS), preferences=WEIGHTS, base_url=url)


def test_where_several_are_loaded_one_must_be_meant(url: str) -> None:
    with pytest.raises(NotFound, match="`model` is missing"):
        asked(templated(*ANSWERS), base_url=url)
    with pytest.raises(InvalidRequest, match="several rewards are loaded"):
        asked(bare(*ANSWERS), templated=False, base_url=url)


@pytest.mark.parametrize("option", [{"soup": True}, {"truncate": True}, {"fingerprint": "f"}])
def test_what_finished_texts_cannot_be_scored_with_is_refused(url: str, option: Any) -> None:
    with pytest.raises(InvalidRequest, match="templated texts are scored without") as caught:
        asked(templated(*ANSWERS), preferences=WEIGHTS, base_url=url, **option)
    assert caught.value.param == next(iter(option))


@pytest.mark.parametrize(("texts", "finished"), [(templated, True), (bare, False)])
def test_a_text_that_fails_raises(url: str, texts: Any, finished: bool) -> None:
    with pytest.raises(ServerFault, match="not a finite number"):
        asked(
            texts(ANSWERS[0], f"It is {POISON}"), objective="helpful", templated=finished, base_url=url, retries=HASTY
        )


@pytest.mark.parametrize("finished", [True, False])
def test_a_server_that_fails_raises(standin: StandIn, finished: bool) -> None:
    options: dict[str, Any] = {"objective": "length", "templated": finished, "retries": HASTY}
    with pytest.raises(ConnectionFailed):
        asked(bare(*ANSWERS), base_url=free_url(), **options)
    standin.fail(*[refusal(503, "engine_dead", "the engine is dead")] * 2)
    with pytest.raises(Unavailable, match="the engine is dead"):
        asked(bare(*ANSWERS), base_url=standin.url, **options)


@pytest.mark.parametrize(
    "document",
    [
        {"rewards": [1.0], "scores": [0.7], "extra_logs": {}},
        {"rewards": [1.0, None], "scores": [0.7, 0.7], "extra_logs": {}},
        {"rewards": [1.0, 2.0]},
    ],
)
def test_an_answer_without_a_number_for_each_text_is_refused(standin: StandIn, document: Any) -> None:
    standin.fail(reply(document))
    with pytest.raises(ServerFault) as caught:
        asked(templated(*ANSWERS), objective="length", base_url=standin.url)
    assert caught.value.code == "unreadable_reply"
