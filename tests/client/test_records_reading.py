"""Reading real items and broken ones: what is kept, what is dropped, and what the report says."""

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict

from tureen.records.dialogue import assistant_turn, user_turn
from tureen.records.reading import Reading, parse_renames
from tureen.records.schema import BadFile, BadOption, BadRecord

DATA = Path(__file__).parents[1] / "train/data"
DSP = DATA / "dsp_domains.cc-by-nc.json"
GOOD = {"prompt": "q", "chosen": "a", "rejected": "b"}


def lines(tmp_path: Path, *items: Any) -> Path:
    path = tmp_path / "file.jsonl"
    path.write_text("\n".join(item if isinstance(item, str) else json.dumps(item) for item in items))
    return path


@pytest.mark.parametrize(
    ("name", "kept", "answers", "comparable"),
    [
        ("hh.jsonl", 4, 7, 3),
        ("deepspeed_chat.parquet", 3, 6, 3),
        ("deepspeed_chat_scored.parquet", 3, 6, 3),
        ("alpaca_annotations.json", 3, 6, 3),
        ("alpaca_samples.cc-by-nc.json", 1, 4, 0),
        ("dsp_domains.cc-by-nc.json", 2, 10, 0),
    ],
)
def test_every_real_file_is_read_whole(name: str, kept: int, answers: int, comparable: int) -> None:
    reading = Reading(DATA / name)
    records = list(reading)
    assert (reading.report.read, reading.report.kept, reading.report.dropped) == (kept, kept, {})
    assert (len(records), sum(len(record.answers) for record in records)) == (kept, answers)
    assert sum(len(record.pairs) for record in records) == reading.report.comparable == comparable
    assert all(len(digest) == 64 for digest in reading.report.files.values())


def test_real_dialogues_of_hh() -> None:
    reading = Reading(DATA / "hh.jsonl")
    cook, _, puppy, serial = reading
    assert cook.prompt == (user_turn("My wife loves to cook."),)
    assert cook.answers[0] == (assistant_turn("Great, what can I help you with today?"),)
    assert cook.source.endswith("hh.jsonl:1")
    assert len(puppy.answers) == 1
    assert reading.report.dropped_answers == {"blank": 1}
    assert serial.prompt == ()
    assert [len(answer) for answer in serial.answers] == [5, 4]


def test_real_prompts_of_deepspeed_chat_with_escaped_turns() -> None:
    number, medicine, shed = Reading(DATA / "deepspeed_chat_scored.parquet")
    assert number.prompt == (user_turn("Spell out a given number.\n37"),)
    assert number.meta == {"response": "thirty-seven", "chosen_gpt_score": 0.7, "rejected_gpt_score": 0.1}
    assert medicine.answers[0][0]["content"].splitlines()[1].startswith("2. Breast Cancer")
    assert [turn["role"] for turn in shed.prompt] == ["user", "assistant", "user", "assistant", "user"]


def test_real_annotations_of_alpaca_farm() -> None:
    first, second, invitation = Reading(DATA / "alpaca_annotations.json")
    assert first.prompt[0]["content"].endswith(
        "unnecessary words.\n\nIf you have any questions about my rate or if you "
        "find it necessary to increase or decrease the scope for this project, "
        "please let me know."
    )
    assert (first.scores, second.scores) == ((0.0, 1.0), (1.0, 0.0))
    assert first.meta == {"annotator": "davinci003_3"}
    assert "Dear Friends, \r\n\r\nI hope" in invitation.answers[0][0]["content"]


def test_real_domains_of_dsp() -> None:
    reading = Reading(DSP, domain="academy")
    first, _ = reading
    assert first.scores == (1.0, 0.0, 0.0, 0.0, 0.0)
    assert first.meta["names"] == ["academy", "business", "entertainment", "literature", "normal"]
    assert reading.report.comparable == 8


def test_domains_become_pairs_of_the_favoured_and_each_other() -> None:
    reading = Reading(DSP, domain="literature", exclude=["normal"], pairs=True)
    pairs = list(reading)
    assert [pair.meta["names"] for pair in pairs[:3]] == [
        ["literature", other] for other in ("academy", "business", "entertainment")
    ]
    assert all(pair.scores == (1.0, 0.0) for pair in pairs)
    assert (len(pairs), reading.report.kept) == (6, 2)


def test_an_unknown_domain_is_fatal_with_the_known() -> None:
    for reading in (Reading(DSP, domain="humor"), Reading(DSP, exclude=["humor"])):
        with pytest.raises(BadOption, match="'humor'; known: academy, business, entertainment, literature, normal"):
            list(reading)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"form": "tldr"}, "unknown form 'tldr'"),
        ({"domain": "normal", "exclude": ["normal"]}, "'normal' is also excluded"),
        ({"exclude": "normal"}, "is a list of domains"),
    ],
)
def test_options_that_contradict_are_refused_at_once(options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadOption, match=words):
        Reading(DSP, **options)


def test_no_paths_are_refused() -> None:
    with pytest.raises(BadOption, match="no paths"):
        Reading([])


def test_a_missing_path_is_fatal(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="cannot read .*gone.json: No such file"):
        list(Reading([DSP, tmp_path / "gone.json"]))


def test_bad_records_are_named_counted_and_skipped(tmp_path: Path) -> None:
    path = lines(tmp_path, GOOD, "{", GOOD, {**GOOD, "chosen": 3}, {"x": 1}, 7, {**GOOD, "chosen": " ", "rejected": ""})
    reading = Reading(path)
    assert [record.source for record in reading] == [f"{path}:1", f"{path}:3"]
    report = reading.report
    assert (report.read, report.kept, report.comparable) == (7, 2, 2)
    assert report.dropped == {"not JSON": 1, "wrong type": 1, "unknown form": 1, "not an object": 1, "no answer": 1}
    assert report.examples["wrong type"] == [f"{path}:4: wrong type: `chosen` must be a string, is a number"]
    assert report.read == report.kept + sum(report.dropped.values())


def test_a_bad_record_is_fatal_when_asked(tmp_path: Path) -> None:
    path = lines(tmp_path, GOOD, {**GOOD, "rejected": None})
    stream = iter(Reading(path, strict=True))
    assert next(stream).source == f"{path}:1"
    with pytest.raises(BadRecord, match="file.jsonl:2: unknown form") as caught:
        next(stream)
    assert caught.value.source == f"{path}:2"


def test_only_the_first_examples_of_a_reason_are_kept(tmp_path: Path) -> None:
    reading = Reading(lines(tmp_path, *[{"x": 1}] * 9))
    assert list(reading) == []
    assert reading.report.dropped == {"unknown form": 9}
    assert len(reading.report.examples["unknown form"]) == 3


def test_the_report_in_words(tmp_path: Path) -> None:
    pad = {"text": ["\n\nHuman: q\n\nAssistant: a", " "], "score": [1, -1]}
    reading = Reading(lines(tmp_path, GOOD, pad, pad, {**GOOD, "chosen": ""}, "x"))
    list(reading)
    said = reading.report.lines()
    assert said[:4] == [
        "read 5 records, kept 4 with 1 comparable pairs",
        "answers left out, padding: 2",
        "answers left out, blank: 1",
        "records dropped, not JSON: 1",
    ]
    assert said[4].startswith(f"  {tmp_path}/file.jsonl:5: not JSON")


def test_reading_again_begins_a_new_report() -> None:
    reading = Reading(DATA / "hh.jsonl")
    assert list(reading) == list(reading)
    assert reading.report.read == 4


def test_several_files_of_several_forms_follow_one_another() -> None:
    reading = Reading([DATA / "hh.jsonl", str(DATA / "deepspeed_chat.parquet"), DATA / "alpaca_annotations.json"])
    assert [Path(record.source).name for record in reading][3:5] == ["hh.jsonl:4", "deepspeed_chat.parquet:1"]
    assert (reading.report.kept, len(reading.report.files)) == (10, 3)


def test_forms_may_change_from_line_to_line(tmp_path: Path) -> None:
    path = lines(tmp_path, GOOD, {"user_input": "q", "completion_a": "a", "completion_b": "b"})
    first, second = Reading(path)
    assert first == second


def test_a_forced_form_reads_nothing_else(tmp_path: Path) -> None:
    both = lines(tmp_path, {**GOOD, "response": "o", "grade": 3})
    assert [len(record.answers) for record in Reading(both)] == [2]
    assert [len(record.answers) for record in Reading(both, form="rated-response")] == [1]
    reading = Reading(both, form="dsp")
    assert list(reading) == []
    assert reading.report.dropped == {"missing field": 1}


def test_one_file_in_every_container_gives_the_same_records(tmp_path: Path) -> None:
    items = [json.loads(line) for line in (DATA / "hh.jsonl").read_text().splitlines()]
    (tmp_path / "list.json").write_text(json.dumps(items))
    (tmp_path / "lines.jsonl.gz").write_bytes(gzip.compress((DATA / "hh.jsonl").read_bytes()))
    Dataset.from_list(items).to_parquet(tmp_path / "table.parquet")
    DatasetDict(test=Dataset.from_list(items)).save_to_disk(tmp_path / "saved")
    plain = list(Reading(DATA / "hh.jsonl"))
    for name in ("list.json", "lines.jsonl.gz", "table.parquet", "saved"):
        assert list(Reading(tmp_path / name)) == plain


def test_a_table_of_mixed_forms_is_read_past_its_nulls(tmp_path: Path) -> None:
    messages = {"chosen": None, "rejected": None, "prompt": None, "instruction": "i", "output": "o"}
    Dataset.from_list([{**GOOD, "instruction": None, "output": None}, messages]).save_to_disk(tmp_path / "mixed")
    first, second = Reading(tmp_path / "mixed")
    assert (first.meta, second.meta) == ({}, {})
    assert math.isnan(second.scores[0])


def test_a_split_is_chosen(tmp_path: Path) -> None:
    DatasetDict(a=Dataset.from_list([GOOD]), b=Dataset.from_list([GOOD] * 2)).save_to_disk(tmp_path / "two")
    assert len(list(Reading(tmp_path / "two", split="b"))) == 2


def test_a_lone_surrogate_is_named(tmp_path: Path) -> None:
    reading = Reading(lines(tmp_path, r'{"prompt": "a\ud83d", "chosen": "x", "rejected": "y"}'))
    assert list(reading) == []
    assert "prompt[0].content holds a lone surrogate at character 1" in reading.report.examples["not Unicode"][0]


# --------------------------------------------------------------------------- columns


def test_the_report_says_what_was_done_with_every_column(tmp_path: Path) -> None:
    odd = {**GOOD, "system": "s", "mood": "glad", "source": "web"}
    reading = Reading(lines(tmp_path, odd, odd, {**GOOD, "context": "c"}, {**GOOD, "system": " "}))
    assert [record.meta for record in reading] == [{"mood": "glad", "source": "web"}] * 2 + [{}]
    assert reading.report.columns == {
        "system": {"rendered into the text": 2},
        "mood": {"not understood, kept beside the record": 2},
        "source": {"kept beside the record": 2},
        "context": {"records refused for its sake": 1},
    }
    said = reading.report.lines()
    assert "column `mood`, not understood, kept beside the record: 2" in said
    assert said[-1] == "read as prompt-pair 3"


def test_a_column_that_is_not_understood_is_fatal_when_asked(tmp_path: Path) -> None:
    path = lines(tmp_path, {**GOOD, "source": "web", "id": 7}, {**GOOD, "mood": "glad"})
    stream = iter(Reading(path, strict=True))
    next(stream)
    with pytest.raises(BadRecord, match="`mood` is not understood: rename it with --map mood=NAME"):
        next(stream)
    assert len(list(Reading(path, strict=True, renamed={"mood": ""}))) == 2


def test_reversed_pairs_are_refused_or_taken_by_their_scores(tmp_path: Path) -> None:
    path = lines(tmp_path, {**GOOD, "score_chosen": 1, "score_rejected": 2}, {**GOOD, "margin": -3})
    refused = Reading(path)
    assert list(refused) == []
    assert "`score_chosen` 1 is below `score_rejected` 2; take the scores with --reversed turn" in str(
        refused.report.examples
    )
    assert [record.pairs for record in Reading(path, turn_reversed=True)] == [[(1, 0)]] * 2


def test_ties_and_comparable_pairs_are_counted(tmp_path: Path) -> None:
    tied = {**GOOD, "chosen_score": 2, "rejected_score": 2}
    reading = Reading(lines(tmp_path, tied, tied, GOOD))
    list(reading)
    assert (reading.report.tied, reading.report.comparable) == (2, 1)
    assert "records whose answers all tie: 2" in reading.report.lines()


def test_columns_have_other_names_in_the_file(tmp_path: Path) -> None:
    path = lines(tmp_path, {"Frage": "q", "ja": "a", "nein": "b", "extra": 1})
    renamed = {"Frage": "prompt", "ja": "chosen", "nein": "rejected", "extra": ""}
    (record,) = Reading(path, renamed=renamed)
    assert (record, record.meta) == (next(iter(Reading(lines(tmp_path, GOOD)))), {})
    taken = Reading(lines(tmp_path, {**GOOD, "Frage": "other"}), renamed={"Frage": "prompt"})
    assert list(taken) == []
    assert "there is a column `prompt` already" in str(taken.report.examples)


@pytest.mark.parametrize("given", [["prompt"], ["=prompt"], ["a=b", "a=c"]])
def test_renames_that_say_nothing_are_refused(given: list[str]) -> None:
    with pytest.raises(BadOption, match="--map"):
        parse_renames(given)


def test_what_has_no_form_is_told_what_it_lacks(tmp_path: Path) -> None:
    reading = Reading(lines(tmp_path, {"prompt": "Why?", "chosen": "a", "worse": "b"}))
    assert list(reading) == []
    (told,) = reading.report.examples["unknown form"]
    assert "most like prompt-pair, which needs `rejected`: rename with --map OLD=rejected, or choose a --form" in told
    assert '{"prompt": "Why?", "chosen": "a", "worse": "b"}' in told


def test_half_a_pairs_scores_are_not_used_and_the_report_names_the_column(tmp_path: Path) -> None:
    path = lines(tmp_path, {**GOOD, "rejected_score": 4}, {**GOOD, "chosen_score": 2, "rejected_score": 2})
    reading = Reading(path)
    assert [record.scores for record in reading] == [(1.0, 0.0), (2.0, 2.0)]
    assert "column `rejected_score`, not understood, kept beside the record: 1" in reading.report.lines()
    with pytest.raises(BadRecord, match="`rejected_score` is not understood"):
        list(Reading(path, strict=True))


def test_a_rename_of_a_column_that_no_record_has_is_told(tmp_path: Path) -> None:
    path = lines(tmp_path, {**GOOD, "punkte": 3}, {**GOOD, "extra": 1})
    with pytest.raises(BadOption, match="no record has the column `punkte_gut`; the columns are chosen, extra, prompt"):
        list(Reading(path, renamed={"punkte_gut": "chosen_score", "extra": ""}))
    assert len(list(Reading(path, renamed={"extra": ""}))) == 2


def test_records_that_nobody_compared_are_counted(tmp_path: Path) -> None:
    judged = {"instruction": "q", "output_1": "a", "output_2": "b", "preference": 1}
    reading = Reading(lines(tmp_path, judged, {**judged, "preference": None}, {**judged, "preference": 0}))
    assert [len(record.pairs) for record in reading] == [1, 0, 0]
    assert (reading.report.unjudged, reading.report.tied) == (1, 1)
    assert "records whose answers nobody compared: 1" in reading.report.lines()


def test_the_published_columns_of_ultrafeedback_are_all_understood(tmp_path: Path) -> None:
    said = (("user", "q"), ("assistant", "a"), ("assistant", "b"))
    asked, good, bad = ({"role": role, "content": text} for role, text in said)
    sides = {"chosen": [asked, good], "rejected": [asked, bad]}
    item = {"prompt": "q", "prompt_id": "x", **sides, "messages": [asked, good]}
    reading = Reading(lines(tmp_path, {**item, "score_chosen": 6.0, "score_rejected": 5.0}), strict=True)
    assert [record.scores for record in reading] == [(6.0, 5.0)]
    with pytest.raises(BadRecord, match="two prompts"):
        list(Reading(lines(tmp_path, {**item, "messages": [{**asked, "content": "another"}]}), strict=True))
