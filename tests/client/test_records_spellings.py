"""Property: however a conversation and its two answers are spelled, one record is read."""

import json
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tureen.records.forms import FORMS, parse_record
from tureen.records.schema import BadRecord, Record
from tureen_core.pair_texts import write_pair_messages

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


def array(turns: Turns) -> str:
    """What pandas writes of an array of messages into a table."""
    return f"array([{', '.join(map(repr, turns))}], dtype=object)"


def last(turns: Turns, name: str) -> dict[str, Any]:
    """The last request in a column, and the turns before it in another."""
    return {name: turns[-1]["content"], "history": pairs(turns[:-1])}


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
    "prompt as a dialogue": lambda turns, a, b: {
        "prompt": dialogue(turns) + "\n\nAssistant:",
        "chosen": f" {a}",
        "rejected": f" {b}",
    },
    "answer beside": lambda turns, a, b: {"messages": [*turns, said(a)], "rejected_response": b},
    "messages beside": lambda turns, a, b: {
        "messages": [*turns, said(a)],
        "rejected_messages": [*turns, said(b)],
    },
    "numpy": lambda turns, a, b: {"prompt": turns, "chosen": array([said(a)]), "rejected": array([said(b)])},
    "named in capitals": lambda turns, a, b: {"Prompt": turns, "Chosen": a, "Rejected": b},
    "speakers": lambda turns, a, b: {
        "prompt": [{**turn, "role": SHAREGPT[turn["role"]].upper()} for turn in turns],
        "chosen": [{"role": "AI", "content": a}],
        "rejected": [{"role": "bot", "content": b}],
    },
    "scored dialogues": lambda turns, a, b: {
        "text": [dialogue([*turns, said(a)]), dialogue([*turns, said(b)])],
        "score": [1, 0],
    },
    "dialogues with scores": lambda turns, a, b: {
        "text": [dialogue([*turns, said(b)]), dialogue([*turns, said(a)])],
        "scores": [0, 1],
    },
    "domains": lambda turns, a, b: {"query": dialogue(turns), "responses": {"better": a, "worse": b}},
    "completions": lambda turns, a, b: {**last(turns, "user_input"), "completion_a": a, "completion_b": b},
    "alpaca pair": lambda turns, a, b: {
        **last(turns, "instruction"),
        "output_1": b,
        "output_2": a,
        "preference": 2,
    },
    "alpaca ranking": lambda turns, a, b: {**last(turns, "instruction"), "input": "", "output": [a, b]},
    "label studio": lambda turns, a, b: {
        "data": {"prompt": turns, "answer1": a, "answer2": b},
        "annotations": [{"result": [{"type": "pairwise", "from_name": "pw", "value": {"selected": "left"}}]}],
    },
    "argilla": lambda turns, a, b: {
        "fields": {"prompt": turns, "response_a": a, "response_b": b},
        "responses": {"preferred": [{"value": "response_a", "user_id": "u"}]},
    },
    "argilla table": lambda turns, a, b: {
        "prompt": turns,
        "response1": a,
        "response2": b,
        "preferred.responses": ["response1"],
        "preferred.responses.users": ["u"],
        "preferred.responses.status": ["submitted"],
    },
    "verdict in a text": lambda turns, a, b: {
        "messages": [*write_pair_messages(turns, [said(a)], [said(b)]), said("A")],
    },
}
# one answer with what people say of it
ALONE: dict[str, Callable[[Turns, str], dict[str, Any]]] = {
    "wanted": lambda turns, a: {"prompt": turns, "completion": a, "label": True},
    "wanted messages": lambda turns, a: {"messages": [*turns, said(a)], "label": False},
    "tagged": lambda turns, a: {"conversations": [*sharegpt(turns), *sharegpt([said(a)])], "kto_tag": True},
    "prompt repeated": lambda turns, a: {"prompt": turns, "completion": [*turns, said(a)], "label": 1},
    "rated messages": lambda turns, a: {"messages": [*turns, said(a)], "helpfulness": 3},
    "rated parts": lambda turns, a: {"messages": parts([*turns, said(a)]), "helpfulness": 3},
    "rated response": lambda turns, a: {"prompt": turns, "response": a, "helpfulness": 3},
    "joined response": lambda turns, a: {
        "prompt": dialogue(turns) + "\n\nAssistant:",
        "response": f" {a}",
        "helpfulness": 3,
    },
    "sample": lambda turns, a: {**last(turns, "instruction"), "output": a},
}
# whole dialogues, and exports whose columns lie deeper
WITHOUT_SYSTEM = {
    *("last turn", "hh", "hh beside a prompt", "scored dialogues", "dialogues with scores", "domains"),
    *("label studio", "argilla", "verdict in a text", "answer beside", "messages beside"),
}
# their records hold other texts than a conversation's, or steps; exact tests compare them
OTHERS = {"summaries", "summary-ratings", "stepwise", "math-answers", "math-steps", "math-shepherd"}


def read(item: dict[str, Any]) -> tuple[Any, Any]:
    """The prompt, and the answers from the best to the worst."""
    draft = parse_record(item)
    record: Record = (draft.prefer_name("better") if draft.names else draft).finish("here")[0]
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


@pytest.mark.parametrize("spelling", ALONE)
@settings(max_examples=40, deadline=None)
@given(user=requests, answer=texts)
def test_every_spelling_of_one_answer_is_one_record(spelling: str, user: list[str], answer: str) -> None:
    turns = conversation(user)
    record = parse_record(ALONE[spelling](turns, answer)).finish("here")[0]
    assert (record.prompt, record.answers) == (tuple(turns), ((said(answer),),))


def test_every_form_has_a_spelling_here() -> None:
    turns = conversation(["why do the leaves fall"])
    items = [make(turns, "yes", "no") for make in SPELLINGS.values()] + [make(turns, "yes") for make in ALONE.values()]
    assert {parse_record(item).form for item in items} == FORMS.keys() - OTHERS


@pytest.mark.parametrize("spelling", [name for name in SPELLINGS if name not in WITHOUT_SYSTEM])
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
