"""Preference sentences: appended to prompts, found again, and taken out."""

from typing import Any

import pytest

from tureen.records.dialogue import assistant_turn, user_turn
from tureen.records.schema import BadRecord, Conversation, Record
from tureen_train.config import PromptPreferences
from tureen_train.policies.preference_sentences import SentenceFinder, add_preferences, append_sentences

SENTENCES = PromptPreferences().by_pole
FINDER = SentenceFinder(SENTENCES)


def record(text: str, **keys: Any) -> Record:
    return Record((user_turn(text),), ((assistant_turn("yes"),),), (1.0,), "file:1", **keys)


def said(prompt: Conversation) -> str:
    return str(prompt[-1]["content"])


def test_each_prompt_gets_each_combination_and_keeps_its_answers() -> None:
    made = add_preferences([record("Explain tides.")], PromptPreferences(add="combinations"))
    assert len(made) == 8
    assert made[0].meta["preferences"] == ["P1A", "P2A", "P3A"]
    wanted = " ".join(["Explain tides.", SENTENCES["P1A"], SENTENCES["P2A"], SENTENCES["P3A"]])
    assert said(made[0].prompt) == wanted
    assert len({each.prompt_key for each in made}) == 8
    assert all(each.answers == record("").answers for each in made)


def test_one_preference_is_drawn_for_each_prompt_by_the_seed() -> None:
    records = [record(f"Question {number}?") for number in range(120)]
    drawn = [
        [
            each.meta["preferences"][0]
            for each in add_preferences(records, PromptPreferences(add="poles", take="one", seed=s))
        ]
        for s in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert set(drawn[0]) == {"P1A", "P1B", "P2A", "P2B", "P3A", "P3B"}


def test_nothing_is_added_unless_it_is_asked_for() -> None:
    records = [record("Explain tides.")]
    assert add_preferences(records, PromptPreferences()) == records


def test_a_record_without_a_prompt_stays_as_it_is_and_one_without_a_user_is_refused() -> None:
    preferences = PromptPreferences(add="poles", poles=["P1A"])
    whole = Record((), ((user_turn("a"), assistant_turn("b")),), (1.0,))
    assert add_preferences([whole], preferences) == [whole]
    silent = Record((assistant_turn("hm"),), ((assistant_turn("b"),),), (1.0,), "file:7")
    with pytest.raises(BadRecord, match="file:7: no turn of the user"):
        add_preferences([silent], preferences)


def test_sentences_go_to_the_users_last_turn() -> None:
    talk = (user_turn("hi"), assistant_turn("yes?"), user_turn("why? \n"))
    made = append_sentences(talk, ["Be brief.", "Be kind."])
    assert made == (*talk[:2], user_turn("why? Be brief. Be kind."))
    assert append_sentences((user_turn(" "),), ["Be brief."]) == (user_turn("Be brief."),)


def test_every_combination_is_found_again_and_each_pole_can_stand_alone() -> None:
    everything = PromptPreferences(add="combinations", poles=list(SENTENCES))
    for made in add_preferences([record("Explain tides.")], everything):
        poles = made.meta["preferences"]
        assert FINDER.find_poles(made.prompt) == poles
        for pole in poles:
            alone = FINDER.keep_one(made.prompt, pole)
            assert said(alone) == f"Explain tides. {SENTENCES[pole]}"
            assert FINDER.find_poles(alone) == [pole]


def test_white_space_does_not_count_and_everything_else_does() -> None:
    broken = SENTENCES["P2A"].replace(" ", "\n  ", 3)
    assert FINDER.find_poles((user_turn(f"Explain tides.\n{broken}"),)) == ["P2A"]
    for other in (
        SENTENCES["P2A"].lower(),
        SENTENCES["P2A"].replace(",", ""),
        SENTENCES["P1A"].replace("easily be", "be easily").replace("can be easily", "can easily be"),
        "x" + SENTENCES["P2A"],
    ):
        assert FINDER.find_poles((user_turn(f"Explain tides. {other}"),)) == []


def test_a_sentence_inside_a_longer_one_is_not_found_there() -> None:
    finder = SentenceFinder({"brief": "Be brief", "fast": "Be brief and fast", "b": "Be"})
    prompt = (user_turn("Why? Be brief and fast. Be brief."),)
    assert finder.find_poles(prompt) == ["fast", "brief"]
    assert finder.find_poles((user_turn("Be briefly."),)) == ["b"]
    assert said(finder.keep_one(prompt, "brief")) == "Why?. Be brief."


def test_sentences_anywhere_in_the_users_turns_are_taken_out_and_no_others() -> None:
    quoted = assistant_turn(f"You said: {SENTENCES['P3B']}")
    talk = (user_turn(f"{SENTENCES['P3A']} Explain tides."), quoted, user_turn(f"Why? {SENTENCES['P1B']} Now!"))
    assert FINDER.find_poles(talk) == ["P3A", "P1B"]
    assert FINDER.keep_one(talk, "P1B") == (user_turn("Explain tides."), quoted, talk[2])
    assert FINDER.keep_one(talk, "P3A") == (talk[0], quoted, user_turn("Why? Now!"))
