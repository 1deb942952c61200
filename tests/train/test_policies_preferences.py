"""Pairs have the service's ids, whatever a record holds; those that teach nothing are counted; caps are PCRM's."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from train import tiny_encoder
from train.tiny_runs import BAD, GOOD, expert_run

from tureen.records.forms import parse_record
from tureen.records.schema import BadRecord, Record
from tureen_core.base import load_tokenizer
from tureen_core.chat_template import make_template_inputs
from tureen_core.reading import Reading
from tureen_core.template import Renderer
from tureen_train.config import DpoPolicy
from tureen_train.config.ranking import CosineCap, FixedCap, LengthCap
from tureen_train.networks.sentence_encoder import add_similarity, open_encoder, read_cosines
from tureen_train.policies.preferences import (
    EncodedPreference,
    Preferences,
    collate_preferences,
    encode_preferences,
    encode_training_pairs,
    set_references,
)
from tureen_train.policies.run import train_policy

ASKED: dict[str, Any] = {"role": "user", "content": "how cold is it?"}
CALL = {"id": "c1", "type": "function", "function": {"name": "temperature", "arguments": '{"city": "Oslo"}'}}
CALLED: list[dict[str, Any]] = [
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "-3"},
    {"role": "assistant", "content": "it is cold", "reasoning_content": "below zero"},
]
SAID: list[dict[str, Any]] = [{"role": "assistant", "content": "it is warm"}]


def tool(name: str, *fields: str) -> dict[str, Any]:
    properties = {field: {"type": "string"} for field in fields}
    return {
        "type": "function",
        "function": {"name": name, "parameters": {"type": "object", "properties": properties}},
    }


def pair(chosen: Any, rejected: Any, prompt: Any = (ASKED,), **columns: Any) -> Record:
    item = {"prompt": list(prompt), "chosen": chosen, "rejected": rejected, **columns}
    return parse_record(item).finish("here:1")[0]


def renderer(template: str = tiny.TOOLS, **reading: Any) -> Renderer:
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = template
    return Renderer(tokenizer, Reading(**{"max_length": 2000, **reading}))


def sides(item: EncodedPreference) -> tuple[list[int], list[int]]:
    return list(item.chosen.ids), list(item.rejected.ids)


def prompt_ids(item: EncodedPreference) -> list[int]:
    assert item.chosen.start == item.rejected.start
    return list(item.chosen.ids[: item.chosen.start])


def served(made: Renderer, record: Record) -> tuple[list[int], ...]:
    """The ids that the service reads for a record's answers."""
    inputs = make_template_inputs(record.template_arguments)
    return tuple(made.render_conversation(each, inputs=inputs).ids for each in record.conversations)


def prompts(made: Renderer, encoded: Preferences) -> list[str]:
    return [made.tokenizer.decode(prompt_ids(item)) for item in encoded.items]


# --------------------------------------------------------------------------- ids

RECORDS = [
    pair("a fox", "a dog"),
    pair(CALLED, SAID, tools=[tool("temperature", "city")]),
    pair(CALLED, SAID, tools=[tool("clock", "zone", "style"), tool("wind")]),
    pair("a fox", "a dog", tools=[tool("clock")], chat_template_kwargs={"enable_thinking": False}),
    pair("a fox", "a dog", chat_template_kwargs={"enable_thinking": True}),
    pair("a fox<|im_end|>\n", "<|im_end|> a dog <|im_start|>user"),
    pair(SAID, "a dog", prompt=[{"role": "system", "content": "be brief"}, ASKED]),
]


def test_tools_arguments_calls_and_marks_are_the_services_ids() -> None:
    made = renderer()
    encoded = encode_preferences(RECORDS, made)
    assert [sides(row) for row in encoded.items] == [served(made, record) for record in RECORDS]
    for record, row in zip(RECORDS, encoded.items, strict=True):
        asked = made.tokenize_prompt(record.prompt, make_template_inputs(record.template_arguments))
        # thoughts are switched off in the generation prompt only, which no finished conversation repeats
        thinks = record.chat_template_kwargs.get("enable_thinking", True)
        assert prompt_ids(row) == asked[: len(prompt_ids(row))]
        assert (len(prompt_ids(row)) == len(asked)) is thinks


def test_a_batch_has_these_ids(caplog: pytest.LogCaptureFixture) -> None:
    made = renderer()
    encoded = encode_preferences(RECORDS, made)
    assert "2 of 14 answers are written by the chat template after another opening" in caplog.text
    batch = collate_preferences([encoded[0], encoded[1]], made.tokenizer.pad_token_id, "off")
    answers = batch["answers"]
    read = [ids[mask.bool()].tolist() for ids, mask in zip(answers.ids, answers.attention_mask, strict=True)]
    (chosen, rejected), (other, worse) = (served(made, record) for record in RECORDS[:2])
    assert read == [chosen, other, rejected, worse]
    assert batch["lengths"].tolist() == [
        [len(each.answer) for each in (item.chosen, item.rejected)] for item in encoded.items[:2]
    ]
    assert batch["references"].isnan().all()
    set_references([encoded], [torch.arange(14).view(7, 2)])
    assert collate_preferences([encoded[2]], 0, "off")["references"].tolist() == [[4.0, 5.0]]
    with pytest.raises(ValueError, match="do not fit 7 pairs"):
        set_references([encoded], [torch.zeros(3, 2)])


def test_pairs_of_one_prompt_share_it_in_a_packed_batch() -> None:
    made = renderer(tiny.CHATML)
    encoded = encode_preferences(
        [pair("a fox", "a dog"), pair("a fox", "a cat"), pair("x", "y", [{"role": "user", "content": "?"}])], made
    )
    packing = collate_preferences(encoded.items, 0, "prompts")["answers"].packing
    assert len(packing.lengths) == 8  # two prompts, six answers


def spell_nulls(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**turn, "name": None, "audio": None, "annotations": []} for turn in turns]


def spell_parts(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {**turn, "content": turn["content"] and [{"type": "text", "text": turn["content"]}], "refusal": None}
        for turn in turns
    ]


def spell_marks(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**turn, "content": turn["content"] and f"{turn['content']}<|im_end|>\n<|endoftext|>"} for turn in turns]


def spell_thoughts(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    names = {"reasoning_content": "thinking"}
    return [{names.get(name, name): held for name, held in turn.items()} for turn in turns]


def spell_calls(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    called = {"id": "c1", "function": {"name": "temperature", "arguments": {"city": "Oslo"}}}
    return [{**turn, "tool_calls": [called]} if "tool_calls" in turn else turn for turn in turns]


SPELLINGS = [spell_marks, spell_thoughts, spell_calls, spell_parts, spell_nulls]  # in the order in which they fit


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(chosen=st.sets(st.sampled_from(SPELLINGS)), text=st.text("abc <|>猫\n", min_size=1, max_size=20))
def test_equivalent_spellings_have_one_list_of_ids(chosen: set[Any], text: str) -> None:
    made = renderer()
    rejected = [{"role": "assistant", "content": f"x{text}x"}]
    tools = [tool("temperature", "city")]
    asked, better, worse = [ASKED], CALLED, rejected
    for spell in filter(chosen.__contains__, SPELLINGS):
        asked, better, worse = spell(asked), spell(better), spell(worse)
    plain = pair(CALLED, rejected, tools=tools)
    spelled = pair(better, worse, prompt=asked, tools=[{"name": "temperature", **tools[0]["function"]}])
    (row,), (other,) = encode_preferences([plain], made).items, encode_preferences([spelled], made).items
    assert sides(row) == sides(other) == served(made, plain)


def test_a_template_that_knows_no_tools_is_told_by_name() -> None:
    for record, field in (
        (RECORDS[3], "tools"),
        (pair(CALLED, SAID), "tool_calls"),
        (pair("a", "b", chat_template_kwargs={"messages": []}), "messages"),
    ):
        with pytest.raises(BadRecord, match=f"here:1: cannot be rendered: .*`{field}`"):
            encode_preferences([record], renderer(tiny.CHATML))


# --------------------------------------------------------------------------- what is left out


def count(encoded: Preferences) -> dict[str, int]:
    return {reason: number for reason, number in encoded.report.left_out.items() if number}


def test_every_comparable_pair_is_a_row() -> None:
    made = renderer(tiny.CHATML)
    lists = parse_record(
        {"prompt": "why?", "answers": [{"text": t, "score": s} for t, s in zip("abcd", (1, 0, 0, 1), strict=True)]}
    )
    encoded = encode_preferences([lists.finish("here")[0], pair("d", "e", chosen_score=1, rejected_score=1)], made)
    assert len(encoded.items) == encoded.report.kept == 4
    assert set(prompts(made, encoded)) == {"<|im_start|>user\nwhy?<|im_end|>\n<|im_start|>assistant\n"}


def test_pairs_without_a_prompt_too_long_or_equal_after_the_cut_are_left_out() -> None:
    made = renderer(tiny.CHATML, max_length=40)
    whole = tuple(({"role": "user", "content": q}, {"role": "assistant", "content": "x"}) for q in "ab")
    bare = Record((), whole, (1.0, 0.0))
    long = pair("a", "b", prompt=[{"role": "user", "content": "z" * 100}])
    equal = pair("x" * 100, "x" * 101)
    cut = pair("x" * 100, "y" * 100)
    encoded = encode_preferences([bare, long, equal, cut, pair("x", "y")], made)
    assert (encoded.report.kept, encoded.report.truncated) == (2, 2)
    assert count(encoded) == {
        "without a prompt": 1,
        "with a prompt longer than policy.max_length": 1,
        "equal after the cut": 1,
    }
    assert len(encode_preferences([equal, long], made, equal=True).items) == 1


# --------------------------------------------------------------------------- caps

WORDS = [pair("fox " * 10, "fox " * 10 + "dog " * 6), pair("a fox", "a dog")]


def caps(constraint: Any, tmp_path: Path, records: Any = None, cosine: Any = "raw") -> list[float]:
    policy = DpoPolicy(constraint=constraint, cosine=cosine)
    encoded = encode_training_pairs(records or WORDS, renderer(tiny.CHATML), policy, tmp_path)
    return [item.cap for item in encoded.items]


def test_caps_by_length_compare_what_follows_the_shared_start(tmp_path: Path) -> None:
    made = renderer(tiny.CHATML)
    expected = []
    for record in WORDS:
        chosen, rejected = served(made, record)
        start = next(place for place, two in enumerate(zip(chosen, rejected, strict=False)) if two[0] != two[1])
        lengths = sorted((len(chosen) - start, len(rejected) - start))
        expected.append(20 / (lengths[0] / lengths[1] + 0.001) - 15)
    found = caps(LengthCap(prior="length_ratio", beta1=20, beta3=-15, ceiling=1000), tmp_path)
    assert found == pytest.approx(expected)


def test_caps_by_cosine_are_raw_or_of_the_angle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A negative cosine is taken as 0: PCRM's code would get a negative cap from it."""
    settings = CosineCap(prior="cosine", encoder=str(tiny_encoder.bert(tmp_path / "encoder")), beta2=2.0)
    measured = []
    for record in WORDS:
        added = add_similarity([record], open_encoder(settings.encoder))
        measured.append(float(read_cosines(added[0])[0, 1]))
    assert caps(settings, tmp_path) == pytest.approx([6 / (max(0, q) + 2) for q in measured])
    angles = [(math.pi - math.acos(max(0, q))) / math.pi for q in measured]
    assert caps(settings, tmp_path, cosine="angle") == pytest.approx([6 / (s + 2) for s in angles])
    name = open_encoder(settings.encoder).name
    opposed = replace(WORDS[0], meta={"similarity": {"cosine": [[1, -0.5], [-0.5, 1]], "encoder": name}})
    assert caps(settings, tmp_path, [opposed]) == [3.0]


def test_fixed_caps_and_none(tmp_path: Path) -> None:
    assert caps(FixedCap(prior="fixed", value=4.5), tmp_path) == [4.5, 4.5]
    assert all(math.isnan(cap) for cap in caps(None, tmp_path))


# --------------------------------------------------------------------------- a whole run


def test_a_whole_run_reads_tools_and_its_probes_keep_them(tmp_path: Path) -> None:
    import json

    base = tiny.base_with_tools(tmp_path / "base")
    data = tmp_path / "tools.jsonl"
    rows = [
        {
            "prompt": f"how cold {number}?",
            "chosen": [*CALLED[:2], {**CALLED[2], "content": f"{GOOD} {number}"}],
            "rejected": f"{BAD} {number}",
            "tools": [tool("temperature", f"city{number % 3}")],
        }
        for number in range(12)
    ]
    data.write_text("\n".join(map(json.dumps, rows)))
    run = expert_run(
        base,
        tmp_path,
        data={"train": [{"path": str(data)}]},
        policy={"max_length": 512},
        optimisation={"max_steps": 3},
    )
    artifact = train_policy(run)
    assert artifact is not None
    probe = artifact.manifest.probes[0]
    assert probe.tools[0]["function"]["name"] == "temperature"
    assert probe.messages[1]["tool_calls"] == [CALL]
    made = Renderer(load_tokenizer(base), artifact.manifest.reading)
    text = made.tokenizer.decode(made.render_conversation(probe.messages, inputs=probe.inputs).ids)
    assert text.startswith("<|im_start|>system\n# Tools\n")
    assert probe.logprob is not None
