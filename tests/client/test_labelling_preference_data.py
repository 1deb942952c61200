"""From labels to rows: which pairs, what becomes of ties, and what each form holds."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tureen.errors import InvalidRequest, ServerFault, Unprocessable
from tureen.labelling.items import Item
from tureen.labelling.pairs import Pair, choose_pairs
from tureen.labelling.preference_data import make_rows
from tureen.labelling.recipe import FORMS, PAIRED, Recipe
from tureen.wire import CandidateScore, Label, Score

TURNS = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "Why?"},
]

THOUGHT = {"role": "assistant", "content": "Because.", "reasoning_content": "Leaves fall."}
TEXTS = ("trl-text", "text-score", "rewardbench")


def item(*answers: str, prompt: Any = "Why?", **fields: Any) -> Item:
    return Item.model_validate({"prompt": prompt, "candidates": list(answers), **fields})


def label(*rewards: float) -> Label:
    """As a server labels answers of these rewards; an answer that is d better is preferred with 1 − 1 / (2 + 2d)."""
    order = sorted(range(len(rewards)), key=lambda place: -rewards[place])

    def sure(one: int, other: int) -> float:
        gap = rewards[one] - rewards[other]
        return 1 - 1 / (2 + 2 * gap) if gap >= 0 else 1 / (2 - 2 * gap)

    return Label(
        index=0,
        ranking=order,
        chosen=order[0],
        rejected=order[-1],
        margin=rewards[order[0]] - rewards[order[-1]],
        probability=sure(order[0], order[-1]),
        tie=False,
        matrix=[[sure(one, other) for other in range(len(rewards))] for one in range(len(rewards))],
        candidates=[
            CandidateScore(index=place, scores={"kind": Score(raw=reward * 10, calibrated=reward)}, reward=reward)
            for place, reward in enumerate(rewards)
        ],
    )


def rows(how: Recipe, *rewards: float, given: Item | None = None) -> list[dict[str, Any]]:
    return make_rows(
        "7", given or item(*(f"answer {place}" for place in range(len(rewards)))), label(*rewards), how
    ).rows


# --------------------------------------------------------------------------- pairs


@pytest.mark.parametrize(
    ("pairing", "expected"),
    [
        ("best-worst", [(2, 1)]),
        ("best-each", [(2, 3), (2, 0), (2, 1)]),
        ("all", [(2, 3), (2, 0), (2, 1), (3, 0), (3, 1), (0, 1)]),
    ],
)
def test_which_pairs_are_taken(pairing: Any, expected: list[tuple[int, int]]) -> None:
    found = choose_pairs("7", label(1, 0, 3, 2), Recipe("trl", pairing))
    assert [(pair.chosen, pair.rejected) for pair in found] == expected
    assert [pair.margin for pair in found] == [(1, 0, 3, 2)[one] - (1, 0, 3, 2)[other] for one, other in expected]
    assert all(pair.probability == pytest.approx(1 - 1 / (2 + 2 * pair.margin)) for pair in found)


def test_the_random_other_is_the_same_whenever_it_is_asked_and_depends_on_seed_and_item() -> None:
    judged = label(5, 4, 3, 2, 1, 0)

    def other(identifier: str, seed: int) -> int:
        (pair,) = choose_pairs(identifier, judged, Recipe("trl", "best-random", seed=seed))
        assert pair.chosen == 0
        return pair.rejected

    drawn = {(name, seed): other(name, seed) for name in map(str, range(20)) for seed in (0, 1)}
    assert drawn == {(name, seed): other(name, seed) for name, seed in drawn}
    assert {place for (_, seed), place in drawn.items() if seed == 0} == {1, 2, 3, 4, 5}
    assert any(drawn[name, 0] != drawn[name, 1] for name in map(str, range(20)))


def test_rows_of_one_item_have_ids_of_their_own() -> None:
    assert [row["id"] for row in rows(Recipe("trl", "all"), 1, 0, 2)] == ["7/2-0", "7/2-1", "7/0-1"]
    assert [row["id"] for row in rows(Recipe("trl"), 1, 0, 2)] == ["7"]
    assert [row["id"] for row in rows(Recipe("trl", "best-random"), 1, 0, 2)] == ["7"]


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=6), st.sampled_from(["best-worst", "best-each", "all"]))
def test_the_chosen_one_is_never_the_lesser(rewards: list[float], pairing: Any) -> None:
    made = rows(Recipe("trl", pairing), *rewards)
    assert all(row["chosen_score"] >= row["rejected_score"] for row in made)
    assert all(row["margin"] == row["chosen_score"] - row["rejected_score"] for row in made)
    count = len(rewards)
    assert len(made) == {"best-worst": 1, "best-each": count - 1, "all": count * (count - 1) // 2}[pairing]


# --------------------------------------------------------------------------- ties and thresholds


def test_ties_are_kept_dropped_or_marked_and_always_counted() -> None:
    def done(ties: Any) -> Any:
        return make_rows("7", item("a", "b", "c"), label(1, 1, 0), Recipe("trl", "all", ties, tie_margin=0.5))

    kept, dropped, marked = done("keep"), done("drop"), done("mark")
    assert [each.ties for each in (kept, dropped, marked)] == [1, 1, 1]
    assert [len(each.rows) for each in (kept, dropped, marked)] == [3, 2, 3]
    assert dict(dropped.dropped) == {"tie": 1}
    assert [row["tie"] for row in marked.rows] == [True, False, False]
    assert "tie" not in kept.rows[0]


def test_a_margin_of_exactly_the_tie_margin_is_a_tie() -> None:
    assert [row["tie"] for row in rows(Recipe("trl", ties="mark", tie_margin=1), 1, 0)] == [True]
    assert [row["tie"] for row in rows(Recipe("trl", ties="mark", tie_margin=0.999), 1, 0)] == [False]


@pytest.mark.parametrize(
    ("how", "left", "reason"),
    [
        (Recipe("trl", "all", min_margin=1.5), 1, "margin below the least"),
        (Recipe("trl", "all", min_margin=1.0), 3, None),
        (Recipe("trl", "all", min_probability=0.8), 1, "probability below the least"),
        (Recipe("trl", "all", min_probability=0.75), 3, None),
        (Recipe("text-score", min_margin=3), 0, "margin below the least"),
        (Recipe("full", min_probability=1), 0, "probability below the least"),
    ],
)
def test_what_is_left_out_is_counted_by_reason(how: Recipe, left: int, reason: str | None) -> None:
    done = make_rows("7", item("a", "b", "c"), label(2, 1, 0), how)
    taken = len(choose_pairs("7", label(2, 1, 0), how))
    assert len(done.rows) == left
    assert dict(done.dropped) == ({reason: taken - left} if reason else {})


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=5), st.floats(0, 2), st.floats(0, 1), st.floats(0, 2))
def test_nothing_vanishes(rewards: list[float], least: float, sure: float, tie: float) -> None:
    for pairing, ties in itertools.product(("best-each", "all"), ("keep", "drop", "mark")):
        how = Recipe("trl", pairing, ties, tie, least, sure)  # type: ignore[arg-type]
        done = make_rows("7", item(*map(str, range(len(rewards)))), label(*rewards), how)
        assert len(done.rows) + done.dropped.total() == len(choose_pairs("7", label(*rewards), how))


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"min_margin": -1.0}, "min_margin"),
        ({"min_margin": float("nan")}, "min_margin"),
        ({"tie_margin": float("inf")}, "tie_margin"),
        ({"min_probability": 1.1}, "min_probability"),
        ({"form": "full", "pairs": "all"}, "pairs"),
        ({"form": "text-score", "pairs": "best-each"}, "pairs"),
    ],
)
def test_recipes_that_mean_nothing_are_refused(options: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Recipe(**options)
    assert caught.value.param == param


def test_a_pair_that_its_order_decided_is_a_tie() -> None:
    sure = Pair(0, 1, margin=2.0, probability=0.8, orders=(0.9, 0.7))
    swayed = Pair(0, 1, margin=2.0, probability=0.6, orders=(0.9, 0.3))
    assert (sure.undecided, sure.tied(0.0)) == (False, False)
    assert (swayed.undecided, swayed.tied(0.0)) == (True, True)
    assert not Pair(0, 1, margin=2.0, probability=0.6).tied(0.0)


# --------------------------------------------------------------------------- forms


JUDGED = {"chosen_score": 2.0, "rejected_score": -1.0, "margin": 3.0, "probability": 0.875}


def test_trl_conversational() -> None:
    assert rows(Recipe("trl"), -1.0, 2.0, given=item("No.", "Yes.", prompt=TURNS)) == [
        {
            "id": "7",
            "prompt": TURNS,
            "chosen": [{"role": "assistant", "content": "Yes."}],
            "rejected": [{"role": "assistant", "content": "No."}],
            **JUDGED,
        }
    ]


def test_trl_with_the_prompt_inside() -> None:
    (row,) = rows(Recipe("trl-implicit"), -1.0, 2.0, given=item("No.", "Yes.", prompt=TURNS))
    assert row == {
        "id": "7",
        "chosen": [*TURNS, {"role": "assistant", "content": "Yes."}],
        "rejected": [*TURNS, {"role": "assistant", "content": "No."}],
        **JUDGED,
    }


def test_trl_as_text() -> None:
    (row,) = rows(Recipe("trl-text"), -1.0, 2.0, given=item("No.", "Yes.", prompt=TURNS))
    prompt = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Why?\n\nAssistant:"
    assert row == {"id": "7", "prompt": prompt, "chosen": " Yes.", "rejected": " No.", **JUDGED}


def test_text_and_score_are_best_first_and_never_below_zero() -> None:
    (row,) = rows(Recipe("text-score"), -1.0, 2.0, 0.5)
    head = "## Human:\nWhy?\n\n## Assistant:\n"
    assert row == {
        "id": "7",
        "text": [f"{head}answer 1", f"{head}answer 2", f"{head}answer 0"],
        "score": [3.0, 1.5, 0.0],
        "reward": [2.0, 0.5, -1.0],
        "calibrated": {"kind": [2.0, 0.5, -1.0]},
        "raw": {"kind": [20.0, 5.0, -10.0]},
        "margin": 3.0,
        "probability": 0.875,
    }


def test_rewardbench_has_the_published_columns() -> None:
    named = item("No.", "Yes.", subset="chat", models=["small", "large"])
    assert rows(Recipe("rewardbench"), -1.0, 2.0, given=named) == [
        {
            "id": "7",
            "prompt": "Why?",
            "chosen": "Yes.",
            "chosen_model": "large",
            "rejected": "No.",
            "rejected_model": "small",
            "subset": "chat",
            **JUDGED,
        }
    ]
    (unnamed,) = rows(Recipe("rewardbench"), -1.0, 2.0)
    assert (unnamed["chosen_model"], unnamed["rejected_model"], unnamed["subset"]) == (
        "candidate-1",
        "candidate-0",
        "all",
    )


def test_ranking_and_full() -> None:
    assert rows(Recipe("ranking"), 1, 3, 2) == [{"id": "7", "ranking": [1, 2, 0]}]
    (row,) = rows(Recipe("full"), 1, 3, 2)
    assert (row["chosen"], row["rejected"], row["margin"], row["tie"]) == (1, 0, 2, False)
    assert row["candidates"][1]["scores"] == {"kind": {"raw": 30.0, "calibrated": 3.0}}
    assert "index" not in row


@pytest.mark.parametrize("form", FORMS)
def test_rows_of_a_form_have_the_same_columns_and_are_json(form: Any) -> None:
    first, second = (rows(Recipe(form, ties="mark"), *rewards)[0] for rewards in ((1.0, 0.0), (0.0, 0.0, 3.0)))
    assert list(first) == list(second)
    assert json.loads(json.dumps(first, allow_nan=False)) == first


@pytest.mark.parametrize(
    ("form", "given", "says"),
    [
        ("trl-text", item("a", "b", prompt=[{"role": "system", "content": "s"}, *TURNS]), "no system turn"),
        ("text-score", item("a", "b", prompt=[*TURNS, {"role": "tool", "content": "t"}]), "no tool turn"),
        ("text-score", item("a\n\n## Human:\nb", "b"), "begins a turn"),
        ("trl-text", item("a", "b\n\nAssistant: c"), "begins a turn"),
        ("rewardbench", item("a", "b", prompt=TURNS), "one user turn"),
        ("rewardbench", Item.model_validate({"prompt": "x", "candidates": [[THOUGHT], "b"]}), "only text"),
        ("text-score", Item.model_validate({"prompt": "x", "candidates": [[THOUGHT], "b"]}), "reasoning_content"),
        *((form, item("a", "b", tools=[{"name": "f"}]), "no place for `tools`") for form in TEXTS),
        *((form, item("a", "b", chat_template_kwargs={"x": 1}), "`chat_template_kwargs`") for form in TEXTS),
        ("trl-text", Item.model_validate({"prompt": "x", "candidates": [[*TURNS, *TURNS[1:2]], "b"]}), "several"),
    ],
)
def test_what_a_form_cannot_say_is_refused(form: Any, given: Item, says: str) -> None:
    with pytest.raises(Unprocessable, match=says):
        rows(Recipe(form), 1.0, 0.0, given=given)
    if form in PAIRED:
        assert len(rows(Recipe("trl"), 1.0, 0.0, given=given)) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"ranking": None},
        {"ranking": [0, 0]},
        {"ranking": [0]},
        {"probability": None},
        {"candidates": [CandidateScore(index=0), CandidateScore(index=1)]},
    ],
)
def test_a_label_that_lacks_something_is_the_servers_fault(changes: dict[str, Any]) -> None:
    with pytest.raises(ServerFault):
        make_rows("7", item("a", "b"), label(1, 0).model_copy(update=changes), Recipe("trl"))


def test_all_pairs_need_the_matrix() -> None:
    with pytest.raises(ServerFault, match="probability of a pair"):
        make_rows("7", item("a", "b", "c"), label(2, 1, 0).model_copy(update={"matrix": None}), Recipe("trl", "all"))
    assert Recipe("trl", "all").matrix
    assert not Recipe("trl").matrix


@pytest.mark.parametrize("form", FORMS)
def test_rewards_without_a_calibration_stand_raw_in_every_form(form: Any) -> None:
    scaled = label(1.0, 2.0)
    raw = [
        CandidateScore(index=place, scores={"kind": Score(raw=reward)}, reward=reward)
        for place, reward in enumerate((1.0, 2.0))
    ]
    bare = scaled.model_copy(update={"calibrated": False, "candidates": raw})
    given = item("answer 0", "answer 1")
    (row,) = make_rows("7", given, bare, Recipe(form, min_probability=0.5)).rows
    (like,) = make_rows("7", given, scaled, Recipe(form)).rows
    json.dumps(row, allow_nan=False)
    if form == "text-score":
        assert row["calibrated"] == {"kind": [None, None]}
        assert row["raw"] == {"kind": [2.0, 1.0]}
    elif form == "full":
        assert (row["calibrated"], [each["scores"]["kind"]["raw"] for each in row["candidates"]]) == (False, [1.0, 2.0])
    else:
        assert row == like


@pytest.mark.parametrize(
    ("name", "asked"), [("tie_margin", Recipe("trl", tie_margin=0.1)), ("min_margin", Recipe("trl", min_margin=0.1))]
)
def test_margins_of_rewards_without_a_calibration_have_no_unit(name: str, asked: Recipe) -> None:
    bare = label(1.0, 2.0).model_copy(update={"calibrated": False})
    bare.candidates[0] = CandidateScore(index=0, scores={"kind": Score(raw=1.0)}, reward=1.0)
    with pytest.raises(Unprocessable, match="kind has no calibration") as caught:
        make_rows("7", item("answer 0", "answer 1"), bare, asked)
    assert caught.value.param == name
    assert len(make_rows("7", item("answer 0", "answer 1"), label(1.0, 2.0), asked).rows) == 1
    compared = bare.model_copy(update={"candidates": [], "margin": 1.0, "orders": (0.8, 0.7)})
    assert len(make_rows("7", item("answer 0", "answer 1"), compared, asked).rows) == 1
