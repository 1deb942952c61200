"""The best answers of the data against a policy's own, as records and from the command line."""

import json
from pathlib import Path

import pytest
from train.test_transforms_cli import rows, run, said, two, written

from tureen.records.reading import Reading
from tureen.records.schema import Record
from tureen_train.transforms.own_answers import gather_answers, oppose_own_answers


def record(prompt: str, *answers: str, scores: tuple[float, ...]) -> Record:
    asked = ({"role": "user", "content": prompt},)
    return Record(asked, tuple((said(each),) for each in answers), scores)


def texts(found: Record) -> list[str]:
    return [answer[-1]["content"] for answer in found.answers]


def test_the_best_answer_stands_above_the_others_and_the_policys() -> None:
    own = gather_answers([record("q", "own one", "own two", scores=(5, 9)), record("q", "own three", scores=(7,))])
    result = oppose_own_answers([record("q", "worse", "best", "worst", scores=(2, 3, 1))], own)
    assert [texts(each) for each in result.records] == [["best", "worse", "worst", "own one", "own two", "own three"]]
    assert result.records[0].scores == (1, 0, 0, 0, 0, 0)


def test_answers_of_the_data_are_cut_and_the_policys_are_not() -> None:
    own = gather_answers([record("q", "a long own answer", scores=(0,))])
    result = oppose_own_answers([record("q", "a long best", "a long worse", scores=(1, 0))], own, lambda text: text[:6])
    assert texts(result.records[0]) == ["a long", "a long", "a long own answer"]


def test_the_best_answer_is_also_shuffled_into_a_bad_one() -> None:
    own = gather_answers([record("q", "own", scores=(0,))])
    data = [record("q", "one two three four five six seven", "worse", scores=(1, 0))]
    first, again, other = (texts(oppose_own_answers(data, own, scramble=seed).records[0])[2] for seed in (7, 7, 8))
    assert first == again != other
    assert first != texts(data[0])[0]
    assert sorted(first.split()) == sorted(["one", "two", "three", "four", "five", "six", "seven"])


def test_answers_that_nobody_judged_are_left_out() -> None:
    own = gather_answers([record("q", "own", scores=(0,))])
    result = oppose_own_answers([record("q", "unknown", "best", "worse", scores=(float("nan"), 1, 0))], own)
    assert [texts(each) for each in result.records] == [["best", "worse", "own"]]


@pytest.mark.parametrize("scores", [(1, 1), (float("nan"), float("nan"))])
def test_a_record_without_a_single_best_answer_is_left_out(scores: tuple[float, ...]) -> None:
    own = gather_answers([record("q", "own", scores=(0,))])
    result = oppose_own_answers([record("q", "a", "b", scores=scores)], own)
    assert (result.records, result.left_out) == ([], {"no single best answer": 1})


def test_files_that_sample_wrote_are_read(tmp_path: Path) -> None:
    source = rows(tmp_path / "in.jsonl", two("a"), two("b"))
    sampled = {"id": "1", "prompt": [{"role": "user", "content": "a"}], "candidates": [[said("own")]], "meta": {}}
    answers = rows(tmp_path / "own.jsonl", sampled)
    result = run("own-answers", source, tmp_path / "out.jsonl", "--answers", answers, "--answers", answers)
    assert result.exit_code == 0, result.output
    assert "left out, no policy answered its prompt: 1" in result.stderr
    assert "wrote 1 lists of answers" in result.stdout
    found = written(tmp_path / "out.jsonl")
    assert [texts(each) for each in found] == [["a yes", "a no", "own", "own"]]
    assert found[0].scores == (1, 0, 0, 0)


def test_answers_are_cut_by_the_tokenizer_of_a_base(tmp_path: Path, base: Path) -> None:
    source = rows(tmp_path / "in.jsonl", {"prompt": "a", "chosen": "ab " * 50, "rejected": "cd"})
    answers = rows(tmp_path / "own.jsonl", {"prompt": "a", "candidates": ["own"]})
    given = ("own-answers", source, tmp_path / "out.jsonl", "--answers", answers, "--max-tokens", "8")
    assert "--max-tokens and --base go together" in run(*given).output
    assert run(*given, "--base", base).exit_code == 0
    best = texts(next(iter(Reading(tmp_path / "out.jsonl"))))[0]
    assert 0 < len(best) < 40
    assert ("ab " * 50).startswith(best)


def test_a_domain_is_preferred(tmp_path: Path) -> None:
    source = tmp_path / "dsp.json"
    source.write_text(json.dumps([{"query": "q", "responses": {"a": "from a", "b": "from b"}}]))
    answers = rows(tmp_path / "own.jsonl", {"prompt": "q", "candidates": ["own"]})
    assert run("own-answers", source, tmp_path / "out.jsonl", "--answers", answers, "--domain", "b").exit_code == 0
    assert texts(written(tmp_path / "out.jsonl")[0]) == ["from b", "from a", "own"]
