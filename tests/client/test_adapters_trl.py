"""TRL's reward functions, called as TRL calls them; its trainer is run in ``journeys/test_grpo.py``."""

import asyncio
import copy
import logging
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from client.rewarding import OBJECTIVES, POISON, rewarding
from client.standin import StandIn, free_url, refusal, reply

from tureen import Chunks, Client, Conflict, InvalidRequest, Retries, Unauthorized, Unprocessable
from tureen.adapters.trl import (
    AsyncRewardFunction,
    RewardFunction,
    async_reward_functions,
    reward_functions,
)

HASTY = Retries(limit=1, first=0.001, most=0.002)
PLAIN = ["Why do leaves fall?", "What is a fox?", "Why do leaves fall?"]
ANSWERS = ["In autumn.", "A quick brown animal.", "The dog is lazy."]
TALKS = [[{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}] for text in PLAIN]
TURNS = [[{"role": "assistant", "content": text}] for text in ANSWERS]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with rewarding(tmp_path_factory.mktemp("rewarding")) as address:
        yield address


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[Client]:
    with Client(url) as client:
        yield client


def direct(client: Client, prompts: Sequence[Any], answers: Sequence[Any], **options: Any) -> list[Any]:
    """The scored candidates of one item a row."""
    items = [{"prompt": prompt, "candidates": [answer]} for prompt, answer in zip(prompts, answers, strict=True)]
    return [row.candidates[0] for row in client.score(items, on_error="item", **options).data]


def awaited(function: AsyncRewardFunction, *args: Any, **kwargs: Any) -> list[float | None]:
    return asyncio.run(function(*args, **kwargs))


CALLS: list[tuple[type, Callable[..., list[float | None]]]] = [
    (RewardFunction, lambda function, *args, **kwargs: function(*args, **kwargs)),
    (AsyncRewardFunction, awaited),
]
both = pytest.mark.parametrize(("kind", "call"), CALLS)


@both
@pytest.mark.parametrize(("prompts", "answers"), [(PLAIN, ANSWERS), (TALKS, TURNS)], ids=["text", "messages"])
def test_rewards_are_those_of_a_direct_call(
    url: str, client: Client, kind: Any, call: Any, prompts: Any, answers: Any
) -> None:
    rewards = call(kind("helpful", base_url=url), prompts, answers, completion_ids=[[1]] * 3, label=["x"] * 3)
    expected = [row.scores["helpful"].calibrated for row in direct(client, prompts, answers)]
    assert rewards == pytest.approx(expected, abs=1e-4)
    assert len(set(rewards)) == 3


def test_raw_rewards_weights_and_soups(url: str, client: Client) -> None:
    weights = {"helpful": 0.7, "harmless": 0.3}
    raw = RewardFunction("harmless", calibrated=False, base_url=url)(PLAIN, ANSWERS)
    assert raw == pytest.approx([row.scores["harmless"].raw for row in direct(client, PLAIN, ANSWERS)], abs=1e-4)
    for soup in (False, True):
        expected = [row.reward for row in direct(client, PLAIN, ANSWERS, preferences=weights, soup=soup)]
        weighed = RewardFunction(preferences=weights, soup=soup, base_url=url)
        assert weighed(PLAIN, ANSWERS) == pytest.approx(expected, abs=1e-4)


def test_rows_with_equal_prompts_go_out_as_one_item(standin: StandIn) -> None:
    rewards = RewardFunction("length", base_url=standin.url, calibrated=False)(PLAIN, ANSWERS)
    assert rewards == [len(answer) for answer in ANSWERS]
    [seen] = standin.seen
    assert [(item["prompt"], item["candidates"]) for item in seen.json["items"]] == [
        (PLAIN[0], [ANSWERS[0], ANSWERS[2]]),
        (PLAIN[1], [ANSWERS[1]]),
    ]


def test_thousands_of_rows_go_out_in_several_requests(standin: StandIn) -> None:
    prompts = [f"Question {number % 600}?" for number in range(3000)]
    answers = ["x" * (number % 97) for number in range(3000)]
    rewards = RewardFunction("length", base_url=standin.url, calibrated=False)(prompts, answers)
    assert rewards == [len(answer) for answer in answers]
    assert [len(seen.json["items"]) for seen in standin.seen] == [256, 256, 88]


@both
def test_rows_that_fail_are_none_and_the_others_are_not(
    url: str, caplog: pytest.LogCaptureFixture, kind: Any, call: Any
) -> None:
    answers = [ANSWERS[0], f"It is {POISON}", "far too long " * 200, ANSWERS[2], ANSWERS[1]]
    function = kind("helpful", base_url=url)
    with caplog.at_level(logging.WARNING, "tureen"):
        rewards = call(function, ["Why?"] * 4 + [[{"role": "tool"}]], answers)
    assert [reward is None for reward in rewards] == [False, True, True, False, True]
    assert "no reward for 3 of 5 rows, the first because: " in caplog.text
    assert "not a finite number" in caplog.text
    alone = call(function, ["Why?"] * 2, [ANSWERS[0], ANSWERS[2]])
    assert [rewards[0], rewards[3]] == pytest.approx(alone, abs=1e-4)


@both
def test_rows_that_are_all_bad_ask_nobody(standin: StandIn, kind: Any, call: Any) -> None:
    picture = [[{"role": "user", "content": [{"type": "image", "image": "..."}]}]]
    assert call(kind("length", base_url=standin.url), picture, ["A cat."]) == [None]
    assert not standin.seen


def test_what_is_too_long_is_cut_where_that_is_wished(url: str) -> None:
    answers = ["far too long " * 200, ANSWERS[0]]
    assert None not in RewardFunction("helpful", truncate=True, base_url=url)(PLAIN[:2], answers)


def test_messages_may_carry_fields_that_are_empty_and_none_that_say_something(standin: StandIn) -> None:
    function = RewardFunction("length", base_url=standin.url, calibrated=False)
    called: list[dict[str, Any]] = [{"role": "assistant", "content": "", "tool_calls": [{"name": "search"}]}]
    said: list[dict[str, Any]] = [
        {"role": "assistant", "content": "Autumn.", "tool_calls": [], "reasoning_content": None}
    ]
    weighed = [{"role": "assistant", "content": "Autumn.", "weight": 1}]
    assert function(["Why?"] * 3, [called, said, weighed]) == [0.0, 7.0, None]


@both
def test_rows_with_tools_calls_and_thoughts_have_a_reward(standin: StandIn, kind: Any, call: Any) -> None:
    """The dataset's columns go with the rows; a row that cannot be read is None, and the log counts and names why."""
    function = kind("length", base_url=standin.url, calibrated=False)
    asked = [{"role": "user", "content": "How cold is it?"}]
    turns = [
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": {}}}]},
        {"role": "tool", "tool_call_id": "c", "content": "-3"},
        {"role": "assistant", "content": "Cold.", "reasoning": "Below zero."},
    ]
    tools = [[{"name": "f"}], '[{"name": "f"}]', None]
    answers = [turns, turns, [{"role": "assistant", "content": "Cold."}]]
    if kind is RewardFunction:
        assert function([asked] * 3, answers, tools=tools, chat_template_kwargs=[{}] * 3) == [5.0] * 3
    else:
        assert asyncio.run(function([asked] * 3, answers, tools=tools)) == [5.0] * 3
    items = list(standin.seen)[-1].json["items"]
    assert [len(item["candidates"]) for item in items] == [2, 1]
    assert items[0]["tools"] == [{"type": "function", "function": {"name": "f"}}]


def test_the_log_counts_and_names_the_rows_that_cannot_be_read(
    standin: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    function = RewardFunction("length", base_url=standin.url, calibrated=False)
    bad = [{"role": "assistant", "content": "x", "audio": {"id": "a"}}]
    with caplog.at_level(logging.ERROR, "tureen"):
        assert function(["a", "b", "c"], [bad, bad, "x"]) == [None, None, 1.0]
    assert "no reward for 2 of 3 rows" in caplog.text
    assert "candidates[0][0].audio: only text is read" in caplog.text
    assert "(2 rows)" in caplog.text


@both
@pytest.mark.parametrize("where", ["dead", "failing"])
def test_a_server_that_fails_gives_none_for_all_or_the_error(
    standin: StandIn, caplog: pytest.LogCaptureFixture, kind: Any, call: Any, where: str
) -> None:
    standin.fail(*[refusal(503, "engine_dead", "the engine is dead")] * 4)
    address = standin.url if where == "failing" else free_url()
    with caplog.at_level(logging.WARNING, "tureen"):
        rewards = call(kind("length", base_url=address, retries=HASTY), PLAIN, ANSWERS)
    assert rewards == [None, None, None]
    assert "no reward for any of 3 rows: " in caplog.text
    with pytest.raises(Exception, match="no server answers" if where == "dead" else "the engine is dead"):
        call(kind("length", base_url=address, retries=HASTY, on_failure="raise"), PLAIN, ANSWERS)


@both
def test_what_no_later_batch_would_be_spared_is_raised(standin: StandIn, kind: Any, call: Any) -> None:
    standin.fail(refusal(401, "invalid_api_key"), refusal(422, "unknown_reward"))
    for error in (Unauthorized, Unprocessable):
        with pytest.raises(error):
            call(kind("length", base_url=standin.url), PLAIN, ANSWERS)


def test_a_model_that_is_replaced_within_a_batch_loses_the_batch_unless_it_is_pinned(standin: StandIn) -> None:
    options: dict[str, Any] = {"base_url": standin.url, "chunks": Chunks(items=1)}
    row = {"index": 0, "candidates": [{"index": 0, "scores": None}]}
    newer = {"object": "list", "fingerprint": {"length": "newer"}, "data": [row], "usage": {}}
    for pinned in (None, "f-length"):
        standin.fail(reply(newer))
        function = RewardFunction("length", fingerprint=pinned, **options)
        if pinned is None:
            assert function(PLAIN, ANSWERS) == [None] * 3
        else:
            with pytest.raises(Conflict):
                function(PLAIN, ANSWERS)


def test_several_rewards_and_no_choice_is_an_error_that_names_them(standin: StandIn) -> None:
    with pytest.raises(InvalidRequest, match=r"several rewards are loaded \(length, vowels\)"):
        RewardFunction(base_url=standin.url)(PLAIN, ANSWERS)


def test_options_that_contradict_each_other_are_refused_at_once() -> None:
    for options in (
        {"objective": "helpful", "preferences": {"helpful": 1.0}},
        {"soup": True},
        {"preferences": {"helpful": 1.0}, "calibrated": False},
        {"on_failure": "zero"},
        {"base_url": "rewards:8900"},
    ):
        with pytest.raises(InvalidRequest):
            RewardFunction(**options)
    for objectives in ([], ["helpful", "helpful"]):
        with pytest.raises(InvalidRequest, match="each once"):
            reward_functions(objectives)


def test_names_are_those_of_trls_logs() -> None:
    assert RewardFunction("helpful").__name__ == "helpful"
    assert RewardFunction(preferences={"helpful": 1, "brief": 1}).__name__ == "brief+helpful"
    assert RewardFunction(name="ours").__name__ == "ours"
    assert RewardFunction().__name__ == "reward"
    assert [each.__name__ for each in reward_functions(OBJECTIVES)] == list(OBJECTIVES)


def test_functions_of_one_panel_ask_once_and_each_batch_anew(standin: StandIn) -> None:
    length, vowels = reward_functions(["length", "vowels"], base_url=standin.url, calibrated=False)
    for _ in range(2):
        assert length(PLAIN, ANSWERS) == [10, 21, 16]
        assert vowels(PLAIN, ANSWERS) == [3, 6, 4]
    assert [seen.json["rewards"] for seen in standin.seen] == [["length", "vowels"]] * 2
    assert vowels(PLAIN[:1], ANSWERS[:1]) == [3]
    assert len(standin.seen) == 3


def test_asynchronous_functions_of_one_panel_ask_once(standin: StandIn) -> None:
    functions = async_reward_functions(["length", "vowels"], base_url=standin.url, calibrated=False)

    async def both() -> list[list[float | None]]:
        return await asyncio.gather(*(each(PLAIN, ANSWERS) for each in functions))

    for _ in range(2):
        assert asyncio.run(both()) == [[10, 21, 16], [3, 6, 4]]
    assert len(standin.seen) == 2


def test_functions_of_one_panel_fail_together(url: str) -> None:
    answers = ["In autumn.", f"It is {POISON}"]
    columns = [each(PLAIN[:2], answers) for each in reward_functions(OBJECTIVES, base_url=url)]
    assert [[reward is None for reward in column] for column in columns] == [[False, True]] * 2


@pytest.mark.parametrize("move", [copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
def test_functions_can_be_copied_and_pickled_also_after_use(standin: StandIn, move: Callable[[Any], Any]) -> None:
    functions = reward_functions(["length", "vowels"], base_url=standin.url, calibrated=False)
    assert functions[0](PLAIN, ANSWERS) == [10, 21, 16]
    moved = move(functions)
    assert [each(PLAIN, ANSWERS) for each in moved] == [[10, 21, 16], [3, 6, 4]]
    assert len(standin.seen) == 2
    single = move(AsyncRewardFunction("length", base_url=standin.url, calibrated=False))
    assert awaited(single, PLAIN, ANSWERS) == [10, 21, 16]
    assert single.__name__ == "length"


class Notes:
    """What a reward function gives to TRL's logs."""

    def __init__(self) -> None:
        self.columns: dict[str, list[Any]] = {}
        self.metrics: dict[str, float] = {}

    def __call__(self, function: Any, *args: Any) -> Any:
        return function(*args, log_extra=self.columns.__setitem__, log_metric=self.metrics.__setitem__)


def test_logs_get_each_weighed_objective_and_the_share_that_failed(url: str, client: Client) -> None:
    notes = Notes()
    answers = [*ANSWERS[:2], f"It is {POISON}"]
    notes(RewardFunction(preferences={"helpful": 0.5, "harmless": 0.5}, name="mix", base_url=url), PLAIN, answers)
    assert notes.metrics == {"mix/failed": pytest.approx(1 / 3)}
    assert set(notes.columns) == {"mix/helpful", "mix/harmless"}
    expected = direct(client, PLAIN[:2], ANSWERS[:2])
    assert notes.columns["mix/helpful"][:2] == pytest.approx(
        [row.scores["helpful"].calibrated for row in expected], abs=1e-4
    )
    assert notes.columns["mix/helpful"][2] is None
