"""Each public form: how it is made out, what it says, and what is refused."""

import math
import re
from pathlib import Path
from typing import Any

import pytest

from tureen.records.column_names import SIDES
from tureen.records.dialogue import assistant_turn, user_turn
from tureen.records.draft import Draft
from tureen.records.forms import FORMS, check_form, detect_form, parse_record
from tureen.records.schema import BadOption, BadRecord, Record

HH = {"chosen": "\n\nHuman: hi\n\nAssistant: hello", "rejected": "\n\nHuman: hi\n\nAssistant: go away"}
CHAT = {
    "chosen": [{"role": "user", "content": "Name a prime."}, {"role": "assistant", "content": "7"}],
    "rejected": [{"role": "user", "content": "Name a prime."}, {"role": "assistant", "content": "9"}],
}
DSP: dict[str, Any] = {
    "query": "Why do leaves fall?",
    "responses": {"academy": "Abscission.", "business": "Cost cutting.", "normal": "To save water."},
}
TEXT: dict[str, Any] = {"text": [HH["chosen"], HH["rejected"]], "score": [1.0, 0.0]}
ALPACA = {"instruction": "List two fruits.", "input": "", "output_1": "Apple, pear.", "output_2": "Fruit."}
ITEMS: dict[str, dict[str, Any]] = {
    "dsp": DSP,
    "text-score": TEXT,
    "text-scores": {"text": [HH["chosen"], HH["rejected"]], "scores": [1.0, 0.0]},
    "pair": {"question": "Name a prime.", "chosen": "7", "rejected": "9"},
    "summaries": {
        "info": {"post": "The shop closed.", "title": "A shop", "subreddit": "town"},
        "summaries": [{"text": " A shop."}, {"text": " It closed."}],
        "choice": 1,
    },
    "summary-ratings": {
        "info": {"article": "The shop closed."},
        "summary": {"text": " It closed.", "axes": {"overall": 6, "coverage": None}},
    },
    "label-studio": {
        "data": {"prompt": "Name a prime.", "answer1": "7", "answer2": "9"},
        "annotations": [{"result": [{"type": "pairwise", "from_name": "pw", "value": {"selected": "left"}}]}],
    },
    "argilla": {
        "fields": {"prompt": "Name a prime.", "response1": "7", "response2": "9"},
        "responses": {"better": [{"value": "response1", "user_id": "u"}]},
    },
    "argilla-table": {
        "prompt": "Name a prime.",
        "response-1": "7",
        "response-2": "9",
        "better": [{"user_id": "u", "value": "1", "status": "submitted"}],
    },
    "two-answers": {"prompt": "Name a prime.", "response_a": "7", "response_b": "9", "winner": "model_a"},
    "answer-list": {"prompt": "Name a prime.", "answers": [{"text": "7", "score": 2}, {"text": "9", "score": 1}]},
    "unpaired": {"prompt": "Name a prime.", "completion": "7", "label": True},
    "completions": {"user_input": "Explain tides.", "completion_a": "The Moon pulls.", "completion_b": "Tides are."},
    "alpaca-pair": {**ALPACA, "preference": 1},
    "alpaca-ranking": {"instruction": "List two fruits.", "input": "", "output": ["Apple, pear.", "Fruit."]},
    "alpaca-samples": {"instruction": "List two fruits.", "output": ["Apple, pear.", "Fig, plum."], "generator": "sft"},
    "chat": CHAT,
    "prompt-pair": {"prompt": "Name a prime.", "chosen": "7", "rejected": "9"},
    "hh": HH,
    "pair-verdict": {
        "messages": [
            {"role": "user", "content": "[CONTEXT] \n\n<turn> user\n hi\n [RESPONSE A] x [RESPONSE B] y \n"},
            {"role": "assistant", "content": "B"},
        ]
    },
    "stepwise": {"prompt": "2 + 2 + 2?", "completions": ["2 + 2 = 4.", "4 + 2 = 7."], "labels": [True, False]},
    "math-answers": {"prompt": "2 + 2?", "answers": ["It is 4.", "5"], "label": [1, 0]},
    "math-steps": {
        "conversations": [
            {"role": "user", "content": "2 + 2? Step 1: It is 4."},
            {"role": "assistant", "content": "+"},
        ]
    },
    "math-shepherd": {"input": "2 + 2? Step 1: It is 4. ки", "label": "2 + 2? Step 1: It is 4. +"},
    "rated": {"messages": CHAT["chosen"], "correctness": 4, "verbosity": 1.5},
    "rated-response": {"prompt": "Name a prime.", "response": "7", "correctness": 4, "verbosity": 1.5},
}


def finished(item: object, form: str = "auto") -> Record:
    return parse_record(item, form).finish("here")[0]


def test_every_form_has_an_item_here() -> None:
    assert ITEMS.keys() == FORMS.keys()


def test_the_readme_tells_of_every_form() -> None:
    readme = (Path(__file__).parents[2] / "training/README.md").read_text(encoding="utf-8")
    table = readme.partition("| form | known by |")[2].partition("In every form:")[0]
    told = [name for row in table.splitlines() for name in re.findall(r"`([\w-]+)`", row.split(" | ")[0])]
    assert sorted(told) == sorted(FORMS)


@pytest.mark.parametrize("form", ITEMS)
def test_a_form_is_known_by_its_fields(form: str) -> None:
    assert detect_form(ITEMS[form]) == form
    assert finished(ITEMS[form]) == finished(ITEMS[form], form)


@pytest.mark.parametrize("form", ITEMS)
def test_every_missing_field_is_named(form: str) -> None:
    for name in FORMS[form].required:
        item = {field: value for field, value in ITEMS[form].items() if field != name}
        for absent in (item, {**item, name: None}, {**item, name: math.nan}):
            with pytest.raises(BadRecord, match=f"`{name}` is not there") as caught:
                parse_record(absent, form)
            assert caught.value.reason == "missing field"


@pytest.mark.parametrize("form", ITEMS)
def test_every_field_of_another_type_is_named(form: str) -> None:
    for name in FORMS[form].required:
        if isinstance(7, FORMS[form].required[name]):
            continue
        with pytest.raises(BadRecord, match=f"`{name}` must be a.*, is a number") as caught:
            parse_record({**ITEMS[form], name: 7}, form)
        assert caught.value.reason == "wrong type"


@pytest.mark.parametrize("item", [None, 3, "text", [], [HH]])
def test_what_is_no_object_is_no_record(item: object) -> None:
    with pytest.raises(BadRecord, match="a record is an object"):
        parse_record(item)


@pytest.mark.parametrize("item", [{}, {"prompt": "x"}, {"chosen": "x"}, {"prompt_inputs": "a", "prompt_noinputs": "b"}])
def test_fields_of_no_form_are_named_beside_the_known_forms(item: dict[str, Any]) -> None:
    with pytest.raises(BadRecord, match="text-score: text, score") as caught:
        parse_record(item)
    assert caught.value.reason == "unknown form"


def test_a_field_of_the_wrong_type_is_named_when_the_form_is_found_by_itself() -> None:
    with pytest.raises(BadRecord, match="`responses` must be an object, is a list"):
        parse_record({"query": "x", "responses": []})


def test_a_form_that_does_not_exist_is_refused_with_the_known() -> None:
    check_form("auto")
    with pytest.raises(BadOption, match="'tldr'; use auto, dsp, text-score"):
        check_form("tldr")


def test_fields_that_a_form_does_not_read_are_kept() -> None:
    assert finished({**HH, "subset": "chat", "id": 3, "empty": None}).meta == {"subset": "chat", "id": 3}
    assert finished({**HH, "meta": {"a": 1, "id": 2}, "id": 3}).meta == {"a": 1, "id": 3}
    assert finished({**HH, "meta": "text"}).meta == {"meta": "text"}


# --------------------------------------------------------------------------- dsp


def test_dsp_gives_every_domain_an_answer_and_no_label() -> None:
    record = finished(DSP)
    assert record.prompt == (user_turn("Why do leaves fall?"),)
    assert record.answers[0] == (assistant_turn("Abscission."),)
    assert record.meta == {"names": ["academy", "business", "normal"]}
    assert record.pairs == []


def test_the_domain_that_is_favoured_beats_all_others() -> None:
    record = parse_record(DSP).prefer_name("business").finish("here")[0]
    assert record.scores == (0.0, 1.0, 0.0)
    assert record.pairs == [(1, 0), (1, 2)]


def test_an_excluded_domain_is_gone() -> None:
    record = parse_record(DSP).drop_names(["normal"]).prefer_name("academy").finish("here")[0]
    assert record.meta["names"] == ["academy", "business"]
    assert record.scores == (1.0, 0.0)


@pytest.mark.parametrize("blank", ["", "  \n", None])
def test_a_blank_answer_is_left_out_and_counted(blank: str | None) -> None:
    item = {"query": "q", "responses": {**DSP["responses"], "normal": blank}}
    record, left_out = parse_record(item).drop_names(["business"]).prefer_name("academy").finish("here")
    assert (record.meta["names"], record.scores) == (["academy"], (1.0,))
    assert left_out == {"blank": 1, "padding": 0}


def test_a_blank_answer_of_the_favoured_domain_leaves_nothing_to_prefer() -> None:
    item = {"query": "q", "responses": {"academy": " ", "normal": "x"}}
    with pytest.raises(BadRecord, match="'academy' is blank"):
        parse_record(item).prefer_name("academy")


def test_a_blank_domain_is_still_known_by_name() -> None:
    draft = parse_record({"query": "q", "responses": {"academy": "x", "normal": ""}})
    assert draft.drop_names(["normal"]).names == ("academy",)


@pytest.mark.parametrize("responses", [{}, {"academy": ""}])
def test_no_response_at_all_is_a_bad_record(responses: dict[str, str]) -> None:
    with pytest.raises(BadRecord, match="every answer is blank"):
        finished({"query": "q", "responses": responses})


def test_an_unknown_domain_is_refused_with_the_known() -> None:
    with pytest.raises(BadOption, match="'humor'; known: academy, business, normal"):
        parse_record(DSP).prefer_name("humor")
    with pytest.raises(BadOption, match="'humor'; known: academy, business, normal"):
        parse_record(DSP).drop_names(["humor"])


def test_a_form_without_domains_cannot_favour_one() -> None:
    with pytest.raises(BadOption, match="only records of the form 'dsp' have domains"):
        parse_record(HH).prefer_name("academy")


def test_a_response_that_is_no_string_is_named() -> None:
    with pytest.raises(BadRecord, match="`responses.academy` must be a string, is a list"):
        parse_record({"query": "q", "responses": {"academy": ["x"]}})


# --------------------------------------------------------------------------- text and score


def test_whole_dialogues_share_their_prompt() -> None:
    record = finished(TEXT)
    assert record.prompt == (user_turn("hi"),)
    assert record.answers == ((assistant_turn("hello"),), (assistant_turn("go away"),))
    assert record.scores == (1.0, 0.0)


def test_dialogues_that_differ_before_the_answer_stay_whole() -> None:
    longer = "\n\nHuman: hi\n\nAssistant: yo\n\nHuman: what?\n\nAssistant: nothing"
    record = finished({"text": [longer, HH["chosen"]], "score": [1, 0]})
    assert record.prompt == ()
    assert [len(answer) for answer in record.answers] == [4, 2]


def test_padding_is_left_out_unread_and_ties_are_kept() -> None:
    record, left_out = parse_record({"text": [*TEXT["text"], " ", " "], "score": [1, 1, -1, -0.5]}).finish("here")
    assert (record.scores, record.pairs) == ((1.0, 1.0), [])
    assert left_out == {"blank": 0, "padding": 2}


def test_a_null_score_is_unlabelled() -> None:
    record = finished({**TEXT, "score": [None, 0]})
    assert math.isnan(record.scores[0])
    assert record.pairs == []


@pytest.mark.parametrize(
    ("text", "score", "reason"),
    [
        ([HH["chosen"]], [1, 0], "lengths differ"),
        ([], [], "no answer"),
        ([" "], [-1], "no answer"),
        ([3, HH["chosen"]], [1, 0], "wrong type"),
        (["hello", HH["chosen"]], [1, 0], "not a dialogue"),
        (["\n\nHuman: hi", "\n\nHuman: hi"], [1, 0], "no answer"),
        (TEXT["text"], ["1", 0], "bad score"),
        (TEXT["text"], [True, False], "bad score"),
        (TEXT["text"], [math.inf, 0], "bad score"),
        (TEXT["text"], [10**400, 0], "bad score"),
    ],
)
def test_lists_that_cannot_be_used_are_refused(text: list[object], score: list[object], reason: str) -> None:
    with pytest.raises(BadRecord) as caught:
        finished({"text": text, "score": score})
    assert caught.value.reason == reason


# --------------------------------------------------------------------------- pairs


def test_completion_a_is_preferred() -> None:
    record = finished(ITEMS["completions"])
    assert record.prompt == (user_turn("Explain tides."),)
    assert record.answers == ((assistant_turn("The Moon pulls."),), (assistant_turn("Tides are."),))
    assert record.scores == (1.0, 0.0)


@pytest.mark.parametrize(
    ("preference", "scores"),
    [
        (1, (1, 0)),
        (2, (0, 1)),
        (1.0, (1, 0)),
        (1.25, (0.75, 0.25)),
        (1.5, (0.5, 0.5)),
        (0, (0.5, 0.5)),
        (3, (0.5, 0.5)),
    ],
)
def test_alpacas_preference_names_the_better_output(preference: float, scores: tuple[float, float]) -> None:
    assert finished({**ALPACA, "preference": preference}).scores == scores


@pytest.mark.parametrize("item", [ALPACA, {**ALPACA, "preference": None}, {**ALPACA, "preference": math.nan}])
def test_alpacas_judgement_that_was_not_understood_is_unlabelled(item: dict[str, Any]) -> None:
    assert all(math.isnan(score) for score in finished(item).scores)


@pytest.mark.parametrize("preference", [-1, 0.5, 2.5, 4, "1", True])
def test_alpacas_preference_outside_its_range_is_refused(preference: object) -> None:
    with pytest.raises(BadRecord, match="`preference` must be") as caught:
        parse_record({**ALPACA, "preference": preference})
    assert caught.value.reason == "bad score"


@pytest.mark.parametrize(
    ("given", "prompt"),
    [
        ("", "List two fruits."),
        (None, "List two fruits."),
        (" ", "List two fruits."),
        ("Red.", "List two fruits.\n\nRed."),
    ],
)
def test_alpacas_input_follows_its_instruction(given: str | None, prompt: str) -> None:
    assert finished({**ALPACA, "input": given}).prompt == (user_turn(prompt),)


def test_alpacas_samples_are_unlabelled_answers() -> None:
    record = finished(ITEMS["alpaca-samples"])
    assert record.answers == ((assistant_turn("Apple, pear."),), (assistant_turn("Fig, plum."),))
    assert record.pairs == []
    assert len(finished({"instruction": "q", "output": "one"}).answers) == 1
    assert finished(ITEMS["alpaca-ranking"], "alpaca-samples").pairs == []


@pytest.mark.parametrize("text", ["['a', 'b']", "[1, 2]", '{"a": 1}', "[x for x in y]", '"quoted"'])
def test_an_answer_that_is_a_list_or_an_object_as_text_stays_text(text: str) -> None:
    assert finished({"instruction": text, "output": text}).conversations[0] == (user_turn(text), assistant_turn(text))
    pair = finished({"prompt": text, "chosen": text, "rejected": "b"})
    assert (pair.prompt, pair.answers[0]) == ((user_turn(text),), (assistant_turn(text),))


@pytest.mark.parametrize(("better", "worse"), list(zip(*SIDES.values(), strict=True)))
def test_sides_of_another_name_are_taken_under_it_and_not_kept_twice(better: str, worse: str) -> None:
    draft = parse_record({"prompt": "Name a prime.", better: "7", worse: "9"}, strict=True)
    assert (draft.meta, draft.columns) == ({}, {})
    with pytest.raises(BadRecord, match=f"`{better}` must be a"):
        parse_record({"prompt": "Name a prime.", better: 7, worse: "9"})


def test_the_first_of_two_outputs_is_the_better_one() -> None:
    record = finished(ITEMS["alpaca-ranking"])
    assert record.answers == ((assistant_turn("Apple, pear."),), (assistant_turn("Fruit."),))
    assert record.scores == (1.0, 0.0)


@pytest.mark.parametrize(("output", "words"), [(7, "`output` must be"), (["x", 7], r"`output\[1\]` must be")])
def test_a_sample_that_is_no_string_is_named(output: object, words: str) -> None:
    with pytest.raises(BadRecord, match=words):
        parse_record({"instruction": "q", "output": output})


def test_hh_pairs_prefer_the_chosen() -> None:
    record = finished(HH)
    assert (record.prompt, record.scores) == ((user_turn("hi"),), (1.0, 0.0))
    assert record.answers == ((assistant_turn("hello"),), (assistant_turn("go away"),))


@pytest.mark.parametrize("form", ["hh", "chat", "prompt-pair"])
def test_scores_of_a_pair_are_used_where_both_are_given(form: str) -> None:
    item = ITEMS[form]
    assert finished({**item, "chosen_score": 4.5, "rejected_score": -2}).scores == (4.5, -2.0)
    assert finished({**item, "chosen_score": 2, "rejected_score": 2}).pairs == []
    assert finished({**item, "chosen_score": 2, "rejected_score": None}).scores == (1.0, 0.0)
    with pytest.raises(BadRecord, match="`chosen_score` 1 is below `rejected_score` 2"):
        parse_record({**item, "chosen_score": 1, "rejected_score": 2})


# --------------------------------------------------------------------------- chat


def test_chat_lists_share_their_prompt() -> None:
    record = finished(CHAT)
    assert record.prompt == (user_turn("Name a prime."),)
    assert record.answers == ((assistant_turn("7"),), (assistant_turn("9"),))


@pytest.mark.parametrize(
    "prompt", ["Name a prime.", [user_turn("Name a prime.")], "\n\nHuman: Name a prime.\n\nAssistant:"]
)
def test_a_prompt_may_stand_apart_or_be_repeated(prompt: object) -> None:
    apart = {"prompt": prompt, "chosen": [assistant_turn("7")], "rejected": [assistant_turn("9")]}
    assert finished(apart) == finished({**CHAT, "prompt": prompt}) == finished(CHAT)


def test_answers_of_several_turns_keep_the_prompt_that_was_given() -> None:
    longer = [assistant_turn("7"), user_turn("Another?"), assistant_turn("11")]
    record = finished({"prompt": "Name a prime.", "chosen": longer, "rejected": [assistant_turn("9")]})
    assert record.prompt == (user_turn("Name a prime."),)
    assert record.answers == (tuple(longer), (assistant_turn("9"),))


def test_what_the_answers_share_belongs_to_the_prompt() -> None:
    shared = [assistant_turn("7"), user_turn("Another?")]
    item = {
        "prompt": "Name a prime.",
        "chosen": [*shared, assistant_turn("11")],
        "rejected": [*shared, assistant_turn("12")],
    }
    assert finished(item).prompt == (user_turn("Name a prime."), *shared)


def test_null_keys_and_text_parts_of_a_message_are_understood() -> None:
    parts = [{"type": "text", "text": "Name "}, {"type": "text", "text": "a prime."}]
    odd = {"role": "user", "content": parts, "name": None, "tool_calls": None}
    assert finished({"chosen": [odd, assistant_turn("7")], "rejected": [odd, assistant_turn("9")]}) == finished(CHAT)


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ([], "at least one message"),
        ([user_turn("q")], "must end with an assistant"),
        (["text"], r"`chosen\[0\]` must be an object"),
        ([{"role": "user"}], r"`chosen\[0\].content`: is required"),
        ([{"role": "robot", "content": "q"}], r"`chosen\[0\].role`: unknown role 'robot'"),
        ([{"role": "user", "content": 7}], r"`chosen\[0\].content`"),
        ([{"role": "user", "content": "q", "weight": 1}], r"`chosen\[0\].weight`"),
        ([{"role": "user", "content": "\ud800"}], r"`chosen\[0\].content`.*surrogate"),
    ],
)
def test_messages_that_cannot_be_used_are_named(chosen: list[Any], words: str) -> None:
    with pytest.raises(BadRecord, match=words):
        finished({**CHAT, "chosen": chosen})


def test_an_answer_that_only_repeats_the_prompt_is_none() -> None:
    with pytest.raises(BadRecord, match="after the prompt"):
        parse_record(
            {
                "prompt": "q",
                "chosen": [user_turn("q")],
                "rejected": [user_turn("q"), assistant_turn("a")],
            }
        )


# --------------------------------------------------------------------------- prompt, chosen, rejected


def test_strings_follow_their_prompt_without_the_joining_space() -> None:
    record = finished({"prompt": "\n\nHuman: hi\n\nAssistant:", "chosen": " hello", "rejected": "bye "})
    assert (record.prompt, record.answers) == (
        (user_turn("hi"),),
        ((assistant_turn("hello"),), (assistant_turn("bye "),)),
    )
    code = finished({"prompt": "Indent it.", "chosen": "  return 1", "rejected": "\treturn 1"})
    assert code.answers == ((assistant_turn("  return 1"),), (assistant_turn("\treturn 1"),))


def test_other_scores_stay_in_meta() -> None:
    item = {**ITEMS["prompt-pair"], "response": "7", "chosen_gpt_score": 0.9, "rejected_gpt_score": 0.2}
    record = finished(item)
    assert record.scores == (1.0, 0.0)
    assert record.meta == {"response": "7", "chosen_gpt_score": 0.9, "rejected_gpt_score": 0.2}


def test_escaped_line_breaks_are_made_real_only_where_the_turns_are_escaped() -> None:
    escaped = {"prompt": r"User: a\nb\nAssistant: ", "chosen": r"x\ny", "rejected": "z"}
    assert finished(escaped).prompt == (user_turn("a\nb"),)
    assert finished(escaped).answers[0] == (assistant_turn("x\ny"),)
    code = {"prompt": r"What does \n mean?", "chosen": r"A line break: \n", "rejected": "z"}
    assert finished(code).prompt == (user_turn(r"What does \n mean?"),)
    assert finished(code).answers[0] == (assistant_turn(r"A line break: \n"),)


def test_a_draft_without_names_has_no_names_in_its_meta() -> None:
    draft = Draft((user_turn("q"),), ((assistant_turn("a"),),), (1.0,), meta={"id": 1})
    assert draft.finish("here")[0].meta == {"id": 1}


# --------------------------------------------------------------------------- ratings


@pytest.mark.parametrize("form", ["rated", "rated-response"])
def test_columns_of_numbers_rate_an_answer(form: str) -> None:
    record = finished({**ITEMS[form], "helpfulness": None, "safe": True, "source": "helpsteer"})
    assert (record.prompt, record.answers) == ((user_turn("Name a prime."),), ((assistant_turn("7"),),))
    assert dict(record.attributes) == {"correctness": (4.0,), "verbosity": (1.5,), "safe": (1.0,)}
    assert (record.pairs, record.meta) == ([], {"source": "helpsteer"})


@pytest.mark.parametrize("field", ["attributes", "labels"])
def test_nested_ratings_are_all_there_is_and_may_be_null(field: str) -> None:
    item = {"messages": CHAT["chosen"], field: {"helpful": 3, "honest": None, "safe": False}, "id": 17}
    record = finished(item)
    assert record.attributes.keys() == {"helpful", "honest", "safe"}
    assert record.attributes["helpful"] + record.attributes["safe"] == (3.0, 0.0)
    assert math.isnan(record.attributes["honest"][0])
    assert record.meta == {"id": 17}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attributes": {"helpful": "good"}}, "`attributes.helpful` must be a number or null, is a string"),
        ({"attributes": [3]}, "`attributes` must be an object, is a list"),
        ({"messages": []}, "every answer is blank"),
        ({"messages": [{"role": "user", "content": "hi"}]}, "must end with an assistant turn"),
        ({"correctness": math.inf}, "attribute 'correctness' must be finite"),
    ],
    ids=str,
)
def test_what_cannot_be_a_rated_answer_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRecord, match=message):
        finished({**ITEMS["rated"], **change})


def test_a_prompt_of_messages_is_continued_by_the_response() -> None:
    record = finished({"prompt": [{"role": "user", "content": "hi"}], "response": "hello", "score": 2})
    assert record.prompt == (user_turn("hi"),)
    assert dict(record.attributes) == {"score": (2.0,)}


@pytest.mark.parametrize("form", ["chat", "prompt-pair", "hh"])
def test_a_pair_may_be_rated_by_columns_of_both_sides(form: str) -> None:
    columns = {"chosen_gpt_score": 0.9, "rejected_gpt_score": 0.2, "rejected_length": 3, "chosen_by": "a", "n": 1}
    record = finished({**ITEMS[form], **columns})
    assert record.pairs == [(0, 1)]
    assert record.attributes["gpt_score"] == (0.9, 0.2)
    assert math.isnan(record.attributes["length"][0])
    assert record.attributes["length"][1] == 3
    assert record.attributes.keys() == {"gpt_score", "length"}
