"""Probes that a policy writes itself."""

from pathlib import Path
from typing import Any

import pytest
import tiny
from transformers import AutoModelForCausalLM

from tureen.records.schema import Record
from tureen_core.base import load_tokenizer
from tureen_core.experts.expert_reader import compute_mean_logprobs
from tureen_core.template import Renderer
from tureen_train.config import RecipeError
from tureen_train.policies.probe_answers import write_probe_answers
from tureen_train.records.run_data import RunData


def bare(text: str, **more: Any) -> Record:
    return Record(({"role": "user", "content": text},), (), (), text, **more)


def test_a_policy_answers_held_out_prompts_first(base: Path) -> None:
    renderer = Renderer(load_tokenizer(base), tiny.reading(base, max_length=128))
    model = AutoModelForCausalLM.from_pretrained(base)
    data = RunData([bare("c"), bare("x" * 90)], {"heldout": [bare("a"), bare("b")]}, {})
    talks = write_probe_answers(model, renderer, data, 3)
    assert [talk.messages[0]["content"] for talk in talks] == ["a", "b", "c"]
    assert all(talk.messages[1]["role"] == "assistant" and talk.messages[1]["content"].strip() for talk in talks)
    assert [talk.messages[0]["content"] for talk in write_probe_answers(model, renderer, data, 1)] == ["a"]
    readings = compute_mean_logprobs(model, renderer, talks)
    assert max(readings) - min(readings) > 0.01


def test_prompts_that_leave_no_room_for_an_answer_are_an_error(base: Path) -> None:
    renderer = Renderer(load_tokenizer(base), tiny.reading(base, max_length=16))
    with pytest.raises(RecipeError, match=r"policy\.max_length: no prompt fits"):
        write_probe_answers(AutoModelForCausalLM.from_pretrained(base), renderer, RunData([bare("w" * 40)], {}, {}), 2)
