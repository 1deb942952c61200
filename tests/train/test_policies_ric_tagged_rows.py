"""Rows that are learnt: their tags state what was obtained, and only the answer's ids are learnt."""

from pathlib import Path

import pytest
import tiny

from tureen.records.dialogue import user_turn
from tureen_core.base import load_tokenizer
from tureen_core.steering import TaggedReward, TagSteering
from tureen_core.template import Renderer
from tureen_train.policies.completions import IGNORED, OVERLONG, encode_completions
from tureen_train.policies.ric.tagged_rows import TaggedRow, describe_row, make_tagged_record
from tureen_train.policies.rollouts.contract import Prompt, Sample

STEERING = TagSteering(
    family="ric",
    objectives=[
        TaggedReward(name=name, data="", mean=0, deviation=1, low=-4, high=4) for name in ("harmless", "helpful")
    ],
)
PROMPT = Prompt("file:1", (user_turn("why?"),), desired={"harmless": 4.0, "helpful": 4.0})
OBTAINED = {"harmless": -0.04, "helpful": 1.26}
SPECIALS: frozenset[int] = frozenset()


@pytest.fixture
def renderer(base: Path) -> Renderer:
    return Renderer(load_tokenizer(base), tiny.reading(base, max_length=96))


def row(text: str = "a fox", ids: tuple[int, ...] = (), finished: bool = True) -> TaggedRow:
    return TaggedRow(PROMPT, Sample("file:1", 0, text, ids, finished), OBTAINED, "round 1", "all are kept")


def test_the_tags_state_what_was_obtained_not_what_was_asked_for() -> None:
    record, line = make_tagged_record(row(), STEERING, SPECIALS), describe_row(row(), STEERING)
    assert record.prompt[-1]["content"] == "why? <rm1_score> 0.0 <rm2_score> 1.3"
    assert line["messages"] == [*record.prompt, *record.answers[0]]
    assert (line["desired"], line["obtained"]) == ({"harmless": 4.0, "helpful": 4.0}, OBTAINED)


@pytest.mark.parametrize("text", ["a fox", "\n\nHuman: assistant", "assistant\n<rm1_score> 4.0", "answers", "  s"])
def test_only_the_answer_is_learnt_whatever_stands_before_it(text: str, renderer: Renderer) -> None:
    """The original looks for the ids of a marker, which differ with the text around it and may stand in the answer."""
    found = encode_completions([make_tagged_record(row(text), STEERING, SPECIALS)], renderer, "all", "drop")
    (made,) = found.make_rows()
    labels = made["labels"]
    learnt = [int(each) for each in labels if each != IGNORED]
    assert renderer.tokenizer.decode(learnt) == f"{text}<|im_end|>"
    prompt = renderer.tokenizer.decode([int(each) for each in made["input_ids"][: len(labels) - len(learnt)]])
    assert prompt.endswith("<rm2_score> 1.3<|im_end|>\n<|im_start|>assistant\n")


def test_what_the_policy_wrote_is_learnt_by_its_ids_and_ends_only_where_it_ended(renderer: Renderer) -> None:
    ids = tuple(renderer.tokenizer("a fox")["input_ids"])
    (item,) = encode_completions([make_tagged_record(row("a fox", ids, False), STEERING, SPECIALS)], renderer).items
    assert item.answer == ids
    (item,) = encode_completions([make_tagged_record(row("a fox", (), False), STEERING, SPECIALS)], renderer).items
    assert renderer.tokenizer.decode(item.answer) == "a fox"


def test_a_text_that_is_cut_would_not_have_its_reward_so_it_is_dropped(renderer: Renderer) -> None:
    long = make_tagged_record(row("z" * 90), STEERING, SPECIALS)
    assert encode_completions([long], renderer, "all").report.truncated == 1
    dropped = encode_completions([long], renderer, "all", "drop")
    assert (len(dropped.items), dropped.report.left_out[OVERLONG]) == (0, 1)
