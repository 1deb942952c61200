"""Property: however a conversation and its two answers are spelled, one record is read."""

import json
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tureen.records.forms import parse_record
from tureen.records.schema import BadRecord, Record

Turns = list[dict[str, Any]]
Spelling = Callable[[Turns, str, str], dict[str, Any]]

# no mark of a dialogue; a request is so long that an answer does not begin with it by chance
words = st.lists(st.text("abcdeßü猫", min_size=1, max_size=6), min_size=4, max_size=8).map(" ".join)
texts = words.filter(lambda text: unicodedata.is_normalized("NFC", text))
requests = st.builds(lambda count, text: [f"{text} {number}" for number in range(count)], st.integers(1, 3), texts)
SHAREGPT = {"system": "system", "user": "human", "assistant": "gpt"}


def said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def dialogue(turns: Turns) -> str:
    names = {"user": "Human", "assistant": "Assistant"}
    return "".join(f"\n\n{names[turn['role']]}: {turn['content']}" for turn in turns)


def parts(turns: Turns) -> Turns:
    return [{**turn, "content": [{"type": "text", "text": turn["content"]}], "name": None} for turn in turns]


def sharegpt(turns: Turns) -> list[dict[str, str]]:
    return [{"from": SHAREGPT[turn["role"]], "value": turn["content"]} for turn in turns]


def pairs(turns: Turns) -> list[list[str]]:
    return [[first["content"], second["content"]] for first, second in zip(turns[::2], turns[1::2], strict=False)]


SPELLINGS: dict[str, Spelling] = {
    "explicit": lambda turns, a, b: {"prompt": turns, "chosen": [said(a)], "rejected": [said(b)]},
    "implicit": lambda turns, a, b: {"chosen": [*turns, said(a)], "rejected": [*turns, said(b)]},
    "both": lambda turns, a, b: {"prompt": turns, "chosen": [*turns, said(a)], "rejected": [*turns, said(b)]},
    "last turn": lambda turns, a, b: {"prompt": turns[-1:], "chosen": [*turns, said(a)], "rejected": [*turns, said(b)]},
    "tail": lambda turns, a, b: {
        "prompt": turns,
        "chosen": [turns[-1], said(a)],
        "rejected": [turns[-1], said(b)],
    },
    "objects": lambda turns, a, b: {"messages": turns, "chosen": said(a), "rejected": said(b)},
    "texts": lambda turns, a, b: {"prompt": turns, "chosen": a, "rejected": b},
    "parts": lambda turns, a, b: {"prompt": parts(turns), "chosen": parts([said(a)]), "rejected": parts([said(b)])},
    "json": lambda turns, a, b: {
        "prompt": json.dumps(turns),
        "chosen": json.dumps([said(a)]),
        "rejected": json.dumps([said(b)]),
    },
    "python": lambda turns, a, b: {"chosen": repr([*turns, said(a)]), "rejected": repr([*turns, said(b)])},
    "sharegpt": lambda turns, a, b: {
        "conversations": sharegpt(turns),
        "chosen": sharegpt([said(a)])[0],
        "rejected": sharegpt([said(b)])[0],
    },
    "history": lambda turns, a, b: {
        "history": pairs(turns[:-1]),
        "question": turns[-1]["content"],
        "chosen": a,
        "rejected": b,
    },
    "hh": lambda turns, a, b: {"chosen": dialogue([*turns, said(a)]), "rejected": dialogue([*turns, said(b)])},
    "hh beside a prompt": lambda turns, a, b: {
        "prompt": turns,
        "chosen": dialogue([*turns, said(a)]),
        "rejected": dialogue([*turns, said(b)]),
    },
    "prompt in the text": lambda turns, a, b: {
        "prompt": turns,
        "chosen": f"{turns[-1]['content']} {a}",
        "rejected": f"{turns[-1]['content']}\r\n{b}",
    },
    "openai": lambda turns, a, b: {
        "input": {"messages": turns, "tools": [], "parallel_tool_calls": True},
        "preferred_output": [said(a)],
        "non_preferred_output": [said(b)],
    },
    "scored": lambda turns, a, b: {
        "prompt": turns,
        "chosen": a,
        "rejected": b,
        "chosen-rating": 1,
        "rejected-rating": 0,
    },
    "verdict": lambda turns, a, b: {"prompt": turns, "response_0": b, "response_1": a, "better_response_id": 1},
    "strength": lambda turns, a, b: {"context": turns, "response1": a, "response2": b, "overall_preference": -1},
    "list": lambda turns, a, b: {"prompt": turns, "responses": [a, b], "scores": [1, 0]},
    "objects with scores": lambda turns, a, b: {
        "prompt": turns,
        "completions": [{"response": a, "overall_score": 1}, {"response": b, "overall_score": 0}],
    },
}


def read(item: dict[str, Any]) -> tuple[Any, Any]:
    """The prompt, and the answers from the best to the worst."""
    record: Record = parse_record(item).finish("here")[0]
    order = sorted(range(len(record.scores)), key=lambda index: -record.scores[index])
    assert record.pairs
    return record.prompt, [record.answers[index] for index in order]


def conversation(user: list[str]) -> Turns:
    turns: Turns = []
    for place, text in enumerate(user):
        turns += [{"role": "user", "content": text}, said(f"yes {place}")]
    return turns[:-1]


@pytest.mark.parametrize("spelling", SPELLINGS)
@settings(max_examples=40, deadline=None)
@given(user=requests, chosen=texts, rejected=texts)
def test_every_spelling_is_one_record(spelling: str, user: list[str], chosen: str, rejected: str) -> None:
    turns, rejected = conversation(user), f"no {rejected}"
    assert read(SPELLINGS[spelling](turns, chosen, rejected)) == (
        tuple(turns),
        [(said(chosen),), (said(rejected),)],
    )


@pytest.mark.parametrize("spelling", [name for name in SPELLINGS if "hh" not in name and name != "last turn"])
@settings(max_examples=40, deadline=None)
@given(user=requests, system=texts, chosen=texts)
def test_a_system_column_is_a_system_turn(spelling: str, user: list[str], system: str, chosen: str) -> None:
    turns, opening = conversation(user), {"role": "system", "content": system}
    item = SPELLINGS[spelling](turns, chosen, "never")
    expected = ((opening, *turns), [(said(chosen),), (said("never"),)])
    assert read({**item, "system": system}) == expected
    assert read({**item, "system_prompt": [opening]}) == expected


@settings(max_examples=40, deadline=None)
@given(
    user=requests,
    chosen=texts,
    change=st.sampled_from([str.upper, lambda text: f" {text}\r\n", lambda text: unicodedata.normalize("NFD", text)]),
)
def test_a_prompt_is_recognised_in_another_spelling_or_the_record_is_refused(
    user: list[str], chosen: str, change: Callable[[str], str]
) -> None:
    """Never does a turn of the user stand inside an answer."""
    turns = conversation(user)
    other = [{**turn, "content": change(turn["content"])} for turn in turns]
    item = {"prompt": other, "chosen": [*turns, said(chosen)], "rejected": [*turns, said("never")]}
    if change is str.upper and "".join(user).upper() != "".join(user):
        with pytest.raises(BadRecord, match="another conversation than the prompt"):
            read(item)
        return
    prompt, answers = read(item)
    assert prompt == tuple(turns)
    assert answers == [(said(chosen),), (said("never"),)]
