"""The ids that an expert is trained on are the service's, whatever a record holds, and pairs that teach nothing are
counted.
"""

from pathlib import Path
from typing import Any

import pytest
import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from train.tiny_runs import BAD, GOOD, expert_run

from tureen.records.forms import parse_record
from tureen.records.schema import BadRecord, Record
from tureen_core.base import load_tokenizer
from tureen_core.chat_template import make_template_inputs
from tureen_core.reading import Reading
from tureen_core.template import Renderer
from tureen_train.policies import dpo
from tureen_train.policies.pair_rows import PairRows, Rows, encode_pairs
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


def sides(row: dict[str, Any]) -> tuple[list[int], list[int]]:
    prompt = list(row["prompt_ids"])
    return prompt + list(row["chosen_ids"]), prompt + list(row["rejected_ids"])


def served(made: Renderer, record: Record) -> tuple[list[int], ...]:
    """The ids that the service reads for a record's answers."""
    inputs = make_template_inputs(record.template_arguments)
    return tuple(made.render_conversation(each, inputs=inputs).ids for each in record.conversations)


def prompts(made: Renderer, rows: Rows) -> list[str]:
    return [made.tokenizer.decode(list(row["prompt_ids"])) for row in rows]


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
    encoded = encode_pairs(RECORDS, made)
    assert [sides(row) for row in encoded.rows] == [served(made, record) for record in RECORDS]
    for record, row in zip(RECORDS, encoded.rows, strict=True):
        asked = made.tokenize_prompt(record.prompt, make_template_inputs(record.template_arguments))
        # thoughts are switched off in the generation prompt only, which no finished conversation repeats
        thinks = record.chat_template_kwargs.get("enable_thinking", True)
        assert list(row["prompt_ids"]) == asked[: len(row["prompt_ids"])]
        assert (len(row["prompt_ids"]) == len(asked)) is thinks


def test_what_trl_trains_on_are_these_ids(base: Path, tmp_path: Path) -> None:
    """Whichever rows stand beside each other: TRL's own columns would fill tools with nulls."""
    made = renderer()
    encoded = encode_pairs(RECORDS, made)
    trainer = dpo._trainer(expert_run(base, tmp_path, policy={"max_length": 2000}), base, encoded.rows, {})
    assert [sides(row) for row in trainer.train_dataset] == [served(made, record) for record in RECORDS]
    batch = trainer.data_collator([trainer.train_dataset[1]])
    read = [ids[mask.bool()].tolist() for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]
    assert read == list(served(made, RECORDS[1]))


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
    (row,), (other,) = encode_pairs([plain], made).rows, encode_pairs([spelled], made).rows
    assert sides(row) == sides(other) == served(made, plain)


def test_a_template_that_knows_no_tools_is_told_by_name() -> None:
    for record, field in (
        (RECORDS[3], "tools"),
        (pair(CALLED, SAID), "tool_calls"),
        (pair("a", "b", chat_template_kwargs={"messages": []}), "messages"),
    ):
        with pytest.raises(BadRecord, match=f"here:1: cannot be rendered: .*`{field}`"):
            encode_pairs([record], renderer(tiny.CHATML))


# --------------------------------------------------------------------------- what is left out


def count(encoded: PairRows) -> dict[str, int]:
    return {reason: number for reason, number in encoded.report.left_out.items() if number}


def test_every_comparable_pair_is_a_row() -> None:
    made = renderer(tiny.CHATML)
    lists = parse_record(
        {"prompt": "why?", "answers": [{"text": t, "score": s} for t, s in zip("abcd", (1, 0, 0, 1), strict=True)]}
    )
    encoded = encode_pairs([lists.finish("here")[0], pair("d", "e", chosen_score=1, rejected_score=1)], made)
    assert len(encoded.rows) == encoded.report.kept == 4
    assert set(prompts(made, encoded.rows)) == {"<|im_start|>user\nwhy?<|im_end|>\n<|im_start|>assistant\n"}


def test_pairs_without_a_prompt_too_long_or_equal_after_the_cut_are_left_out() -> None:
    made = renderer(tiny.CHATML, max_length=40)
    whole = tuple(({"role": "user", "content": q}, {"role": "assistant", "content": "x"}) for q in "ab")
    bare = Record((), whole, (1.0, 0.0))
    long = pair("a", "b", prompt=[{"role": "user", "content": "z" * 100}])
    equal = pair("x" * 100, "x" * 101)
    cut = pair("x" * 100, "y" * 100)
    encoded = encode_pairs([bare, long, equal, cut, pair("x", "y")], made)
    assert (encoded.report.kept, encoded.report.truncated) == (2, 2)
    assert count(encoded) == {
        "without a prompt": 1,
        "with a prompt longer than policy.max_length": 1,
        "equal after the cut": 1,
    }
    assert len(encode_pairs([equal, long], made, equal=True).rows) == 1


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
