"""Prompts of public files: prompt sets, demonstrations, and preference data whose answers nobody needs."""

import json
from pathlib import Path
from typing import Any

import pytest

from tureen.records.reading import Reading
from tureen.records.schema import BadOption, BadRecord

ASKED = {"role": "user", "content": "why?"}
ANSWERED = {"role": "assistant", "content": "so"}
CALM = {"role": "system", "content": "Be calm."}


def read(folder: Path, *rows: object, **options: Any) -> Reading:
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Reading(path, prompts=True, **options)


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": "why?"}, [ASKED]),
        ({"prompt": [CALM, ASKED], "data_source": "maths", "reward_model": {"ground_truth": "3"}}, [CALM, ASKED]),
        ({"Prompt": "why?", "system_prompt": "Be calm."}, [CALM, ASKED]),
        ({"messages": [ASKED]}, [ASKED]),
        ({"messages": [CALM, ASKED, ANSWERED]}, [CALM, ASKED]),
        ({"messages": [ASKED, ANSWERED, ASKED, ANSWERED, ANSWERED]}, [ASKED, ANSWERED, ASKED]),
        ({"conversations": [{"from": "human", "value": "why?"}]}, [ASKED]),
        ({"conversations": [{"from": "human", "value": "why?"}, {"from": "gpt", "value": "so"}]}, [ASKED]),
        ({"conversation": [ASKED, ANSWERED], "model": "m"}, [ASKED]),
        ({"conversation": [ASKED, ANSWERED, ASKED], "model": "m"}, [ASKED, ANSWERED, ASKED]),
        ({"context_messages": [CALM, ASKED], "dataset": "d"}, [CALM, ASKED]),
        ({"instruction": "why?"}, [ASKED]),
        ({"instruction": "why", "input": "not?"}, [{"role": "user", "content": "why\n\nnot?"}]),
        ({"instruction": "why?", "input": "", "output": "so"}, [ASKED]),
        ({"question": "why?", "answer": "#### 4"}, [ASKED]),
        ({"problem": "why?", "solution": "so", "level": 1}, [ASKED]),
        ({"query": "why?"}, [ASKED]),
        ({"prompt": "why?", "completion": "so"}, [ASKED]),
        ({"prompt": "why?", "label": "so"}, [ASKED]),
        ({"prompt": "\n\nHuman: why?\n\nAssistant:"}, [ASKED]),
        ({"prompt": "why?", "chosen": "so"}, [ASKED]),
        ({"prompt": "why?", "chosen": " ", "rejected": ""}, [ASKED]),
        ({"chosen": "\n\nHuman: why?\n\nAssistant: so", "rejected": "\n\nHuman: why?\n\nAssistant: no"}, [ASKED]),
        ({"query": "why?", "responses": {"academy": "so", "business": "no"}}, [ASKED]),
        ({"text": ["\n\nHuman: why?\n\nAssistant: so", "\n\nHuman: why?\n\nAssistant: no"], "score": [1, 0]}, [ASKED]),
    ],
)
def test_any_record_gives_its_prompt(row: dict[str, Any], prompt: list[dict[str, str]], tmp_path: Path) -> None:
    reading = read(tmp_path, row)
    assert [list(record.prompt) for record in reading] == [prompt], reading.report.examples
    assert reading.report.dropped == {}


def test_answers_that_a_form_knows_stay(tmp_path: Path) -> None:
    row = {"prompt": "why?", "chosen": "so", "rejected": "no"}
    (record,) = read(tmp_path, row)
    assert [answer[0]["content"] for answer in record.answers] == ["so", "no"]
    assert record.scores == (1.0, 0.0)


def test_tools_and_arguments_of_the_template_belong_to_the_prompt(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
    (record,) = read(tmp_path, {"prompt": "why?", "tools": [tool], "chat_template_kwargs": {"enable_thinking": False}})
    assert record.template_arguments == {"tools": [tool], "chat_template_kwargs": {"enable_thinking": False}}


@pytest.mark.parametrize(
    ("row", "reason", "words"),
    [
        ({"text": "why?"}, "no prompt", "name it with --map COLUMN=prompt"),
        ({"prompt": "why?", "context": "c"}, "column that changes the text", "context"),
        ({"messages": [ANSWERED]}, "no prompt", "no turn of the user"),
        ({"messages": [CALM, ANSWERED]}, "no prompt", "no turn of the user"),
        ({"prompt": "why?", "question": "when?"}, "two prompts", "different prompts"),
        ({"prompt": "<|im_start|>user\nwhy?<|im_end|>\n"}, "rendered prompt", "rendered by a chat template"),
        ({"prompt": 3}, "wrong type", "prompt"),
        ({"chosen": [ASKED, ANSWERED], "rejected": [CALM, ASKED, ANSWERED]}, "no prompt", ""),
        (["why?"], "not an object", "object"),
    ],
)
def test_a_record_without_a_clear_prompt_is_counted(row: object, reason: str, words: str, tmp_path: Path) -> None:
    reading = read(tmp_path, row)
    assert list(reading) == []
    assert reading.report.dropped == {reason: 1}
    assert words in reading.report.examples[reason][0]


def test_the_report_counts_records_with_only_a_prompt(tmp_path: Path) -> None:
    reading = read(tmp_path, {"prompt": "why?"}, {"prompt": "when?", "chosen": "a", "rejected": "b"}, {"text": "x"})
    assert len(list(reading)) == 2
    assert (reading.report.read, reading.report.kept, reading.report.bare) == (3, 2, 1)
    assert "records with only a prompt: 1" in reading.report.lines()
    assert "read as prompt 1, prompt-pair 1" in reading.report.lines()


def test_columns_are_renamed_and_a_strict_reading_refuses_unknown_ones(tmp_path: Path) -> None:
    (record,) = read(tmp_path, {"text": "why?"}, renamed={"text": "prompt"})
    assert list(record.prompt) == [ASKED]
    assert len(list(read(tmp_path, {"prompt": "why?", "answer": "so"}, strict=True))) == 1
    with pytest.raises(BadRecord, match="unknown column: `colour`"):
        list(read(tmp_path, {"prompt": "why?", "colour": "red"}, strict=True))


def test_a_form_that_is_named_is_the_only_one(tmp_path: Path) -> None:
    reading = read(tmp_path, {"prompt": "why?"}, form="chat")
    assert list(reading) == []
    assert reading.report.dropped == {"missing field": 1}
    with pytest.raises(BadOption, match="unknown form 'prompt'"):
        read(tmp_path, {"prompt": "why?"}, form="prompt")


def test_records_without_answers_are_dropped_where_prompts_are_not_asked_for(tmp_path: Path) -> None:
    reading = read(tmp_path, {"prompt": "why?"})
    assert list(Reading(reading.paths)) == []
