"""From records to tensors: the service's ids, flat rows, tables."""

from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch

from tureen.records.schema import BadRecord, Record
from tureen_core.base import load_tokenizer
from tureen_core.template import Renderer
from tureen_train.rewards.collate import EncodedRecords, pad_table, pad_texts, render_answers


@pytest.fixture(scope="module")
def renderer(base: Path) -> Renderer:
    return Renderer(load_tokenizer(base), tiny.reading(base, max_length=48))


def record(*answers: str, scores: tuple[float, ...] = (1.0, 0.0), prompt: str | None = "why?") -> Record:
    turn = {"role": "user", "content": prompt or "hello"}
    said = [{"role": "assistant", "content": answer} for answer in answers]
    if prompt is None:
        return Record((), tuple((turn, each) for each in said), scores)
    return Record((turn,), tuple((each,) for each in said), scores)


def test_ids_are_those_of_whole_conversations(renderer: Renderer) -> None:
    one = record("the fox", "leaves fall in autumn")
    for rendered, conversation in zip(render_answers(one, renderer), one.conversations, strict=True):
        assert rendered.ids == renderer.render_conversation(conversation).ids
        assert rendered.ids[: rendered.shared] == renderer.tokenize_prompt(one.prompt)


def test_a_record_without_a_prompt_is_read_whole(renderer: Renderer) -> None:
    one = record("the fox", "leaves", prompt=None)
    assert [each.ids for each in render_answers(one, renderer)] == [
        renderer.render_conversation(c).ids for c in one.conversations
    ]
    for each, conversation in zip(render_answers(one, renderer), one.conversations, strict=True):
        assert each.ids[: each.shared] == renderer.tokenize_prompt(conversation[:-1])


def test_what_the_template_does_not_know_is_refused_with_its_place(renderer: Renderer) -> None:
    tool = {"type": "function", "function": {"name": "find"}}
    given = record("the fox", "leaves")
    for beside, field in (({"tools": (tool,)}, "tools"), ({"chat_template_kwargs": {"messages": []}}, "messages")):
        with pytest.raises(BadRecord, match=f"in.jsonl:3: cannot be rendered: .*{field}"):
            render_answers(replace(given, source="in.jsonl:3", **beside), renderer)


def test_truncated_answers_are_counted(renderer: Renderer) -> None:
    found = EncodedRecords([record("the fox", "z" * 400), record("a", "b", "c", scores=(2, 1, 0))], renderer)
    assert found.truncated == 1
    assert max(len(ids) for ids in found[0].ids) == 48
    assert (len(found), found.width) == (2, 3)
    assert found[1].scores == [2, 1, 0]
    assert EncodedRecords([], renderer).width == 0


# --------------------------------------------------------------------------- batches


def test_texts_become_rows_padded_on_the_right() -> None:
    batch = pad_texts([[5, 6, 7, 8], [5]], 99)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8], [5, 99, 99, 99]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 0, 0, 0]]


def test_the_mask_not_the_id_says_what_is_padding() -> None:
    assert pad_texts([[5, 4, 4], [5]], 4)["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_ragged_rows_fill_with_nan() -> None:
    assert pad_table([[1], [2, 3]], 2).nan_to_num(-9).tolist() == [[1, -9], [2, 3]]
    assert pad_table([[1]], 1).dtype == torch.float32
