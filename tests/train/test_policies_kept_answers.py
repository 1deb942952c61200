"""What is kept of a round as records and as lines that other commands read."""

from pathlib import Path

from tureen.json_lines import encode_line
from tureen.records.reading import Reading
from tureen_train.policies.encoding import IDS, UNFINISHED
from tureen_train.policies.kept_answers import describe_kept, make_records
from tureen_train.policies.rollouts.contract import Prompt, Reward, Sample
from tureen_train.policies.rollouts.rounds import Answered, Written
from tureen_train.policies.rollouts.selections import Choice, Chosen

SPECIAL = 99
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
ANSWERED = Answered(
    [Prompt("f:1", ({"role": "user", "content": "why?"},), template_arguments={"tools": [TOOL]})],
    [
        [
            Written(Sample("f:1", 0, "so", (5, 6, 2))),
            Written(Sample("f:1", 1, "no end", (7, 8), finished=False)),
            Written(Sample("f:1", 2, "forged", (5, SPECIAL, 2))),
        ]
    ],
    [[Reward({"kind": 3.0}, 1.5), Reward({"kind": 1.0}, 0.5), Reward({"kind": 0.0}, 0.0)]],
)


def test_an_answer_is_learnt_as_the_ids_that_were_written() -> None:
    (record,) = make_records(ANSWERED, Chosen([Choice(0, (0, 1), "best")], {}), [SPECIAL])
    assert (record.source, record.scores, list(record.tools)) == ("f:1", (1.5, 0.5), [TOOL])
    assert [answer[0]["content"] for answer in record.answers] == ["so", "no end"]
    assert record.meta == {IDS: [(5, 6, 2), (7, 8)], UNFINISHED: [1]}


def test_an_answer_with_a_special_token_inside_or_without_ids_is_learnt_as_its_text() -> None:
    forged, served = Choice(0, (2,), "all"), Choice(0, (0,), "all")
    (record,) = make_records(ANSWERED, Chosen([forged], {}), [SPECIAL])
    assert record.meta[IDS] == [None]
    bare = Answered(ANSWERED.prompts, [[Written(Sample("f:1", 0, "so", finished=False))]], ANSWERED.rewards)
    (record,) = make_records(bare, Chosen([served], {}), [SPECIAL])
    assert record.meta == {IDS: [None], UNFINISHED: [0]}


def test_kept_lines_are_read_as_data(tmp_path: Path) -> None:
    one = describe_kept(ANSWERED, Chosen([Choice(0, (1,), "the best of 3")], {}))
    two = describe_kept(ANSWERED, Chosen([Choice(0, (0, 2), "the best and the worst of 3")], {}))
    assert one[0]["why"] == "the best of 3"
    assert one[0]["rewards"] == {"total": 0.5, "kind": 1.0}
    path = tmp_path / "kept.jsonl"
    path.write_bytes(b"".join(map(encode_line, [*one, *two])))
    reading = Reading(path)
    single, pair = list(reading)
    assert reading.report.dropped == {}
    assert [turn["content"] for turn in single.prompt] == ["why?"]
    assert single.answers[0][0]["content"] == "no end"
    assert single.meta[UNFINISHED] == [0]
    assert [answer[0]["content"] for answer in pair.answers] == ["so", "forged"]
    assert pair.scores[0] > pair.scores[1]
    assert list(pair.tools) == [TOOL]
