"""A run's records: split by prompt over all files, limited, broken into pairs, with their provenance."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tureen.records.schema import BadFile, BadRecord, Record
from tureen_train.config import Data, RecipeError, Source
from tureen_train.records.run_data import draw_pairs, draw_records, load_data

DSP = Path(__file__).parent / "data" / "dsp_domains.cc-by-nc.json"


def file(folder: Path, name: str, prompts: range, answers: int = 2) -> Path:
    """``text``/``score`` records of numbered prompts with falling scores."""
    rows = [
        {
            "text": [f"\n\nHuman: p{prompt}\n\nAssistant: {name} {n}" for n in range(answers)],
            "score": [float(answers - n) for n in range(answers)],
        }
        for prompt in prompts
    ]
    path = folder / f"{name}.json"
    path.write_text(json.dumps(rows))
    return path


def keys(records: list[Record]) -> set[str]:
    return {record.prompt_key for record in records}


def load(folder: Path, **raw: Any) -> Any:
    return load_data(Data.model_validate({"root": str(folder), **raw}))


def test_a_share_of_the_prompts_is_held_out(tmp_path: Path) -> None:
    file(tmp_path, "a", range(200))
    loaded = load(tmp_path, train=[{"path": "a.json"}], holdout=0.25)
    held = loaded.eval["heldout"]
    assert len(loaded.train) + len(held) == 200
    assert 30 <= len(held) <= 70
    assert not keys(loaded.train) & keys(held)


def test_no_prompt_is_trained_on_in_one_file_and_judged_in_another(tmp_path: Path) -> None:
    file(tmp_path, "a", range(100))
    file(tmp_path, "b", range(50, 150))
    loaded = load(
        tmp_path,
        train=[{"path": "a.json"}],
        eval={"same": {"path": "a.json"}, "other": {"path": "b.json"}},
        holdout=0.3,
    )
    assert set(loaded.eval) == {"same", "other"}
    for records in loaded.eval.values():
        assert records
        assert not keys(loaded.train) & keys(records)


def test_files_are_judged_whole_where_they_are_kept_apart_already(tmp_path: Path) -> None:
    file(tmp_path, "a", range(20))
    file(tmp_path, "b", range(100, 130))
    loaded = load(tmp_path, train=[{"path": "a.json"}], eval={"b": {"path": "b.json"}}, holdout=0, eval_whole=True)
    assert len(loaded.train) == 20
    assert len(loaded.eval["b"]) == 30


def test_a_file_that_is_judged_whole_leaves_out_what_is_trained_on(tmp_path: Path) -> None:
    file(tmp_path, "a", range(20))
    file(tmp_path, "b", range(10, 30))
    raw: dict[str, Any] = {"train": [{"path": "a.json"}], "eval": {"b": {"path": "b.json"}}, "eval_whole": True}
    loaded = load(tmp_path, **raw, holdout=0)
    assert len(loaded.eval["b"]) == 10
    assert not keys(loaded.train) & keys(loaded.eval["b"])
    assert len(load(tmp_path, **raw, holdout=0, limit=3, pairs_per_prompt=1).eval["b"]) == 10


@pytest.mark.parametrize("whole", [True, False])
def test_a_file_of_which_nothing_is_left_is_told(whole: bool, tmp_path: Path) -> None:
    file(tmp_path, "a", range(20))
    raw: dict[str, Any] = {"train": [{"path": "a.json"}], "eval": {"same": {"path": "a.json"}}}
    with pytest.raises(RecipeError, match=r"data\.eval\.same: nothing is left to judge by"):
        load(tmp_path, **raw, holdout=0, eval_whole=whole)


def test_nothing_is_held_out_unless_asked(tmp_path: Path) -> None:
    file(tmp_path, "a", range(20))
    loaded = load(tmp_path, train=[{"path": "a.json"}], holdout=0)
    assert len(loaded.train) == 20
    assert loaded.eval == {}


def test_another_seed_holds_others_out(tmp_path: Path) -> None:
    file(tmp_path, "a", range(100))
    one, again, other = (load(tmp_path, train=[{"path": "a.json"}], seed=seed) for seed in (1, 1, 2))
    assert keys(one.train) == keys(again.train)
    assert keys(one.train) != keys(other.train)


def test_limits_count_what_is_trained_on_and_judged(tmp_path: Path) -> None:
    file(tmp_path, "a", range(100), answers=4)
    raw: dict[str, Any] = {"train": [{"path": "a.json"}], "limit": 30, "eval_limit": 5}
    assert [len(each) for each in (load(tmp_path, **raw).train, load(tmp_path, **raw).eval["heldout"])] == [30, 5]
    pairs = load(tmp_path, **raw, pairs_per_prompt=2)
    assert len(pairs.train) == 30
    assert all(len(record.answers) == 2 for record in pairs.train)
    assert all(len(record.answers) == 4 for record in pairs.eval["heldout"])


def test_a_sources_own_limit_and_domain(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        train=[{"path": str(DSP), "domain": "academy", "exclude": ["normal"], "limit": 1}],
        holdout=0,
    )
    (record,) = loaded.train
    assert len(record.answers) == 4
    assert sorted(record.scores) == [0, 0, 0, 1]


def test_provenance_has_digest_and_what_was_left_out(tmp_path: Path) -> None:
    path = file(tmp_path, "a", range(3))
    rows = [*json.loads(path.read_text()), {"text": ["\n\nHuman: x\n\nAssistant: y"], "score": [1.0, 2.0]}]
    path.write_text(json.dumps(rows))
    told = load(tmp_path, train=[{"path": "a.json"}], most_dropped=0.25).provenance["a.json"]
    assert told["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert told["kept"] == 3
    assert sum(told["dropped"].values()) == 1
    with pytest.raises(BadRecord, match=r"a\.json"):
        load(tmp_path, train=[{"path": "a.json", "strict": True}])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"nowhere\.json"):
        load(tmp_path, train=[{"path": "nowhere.json"}])


# --------------------------------------------------------------------------- the two cutters


def record(number: int, scores: tuple[float, ...]) -> Record:
    prompt = ({"role": "user", "content": f"p{number}"},)
    answers = tuple(({"role": "assistant", "content": f"a{n}"},) for n in range(len(scores)))
    return Record(prompt, answers, scores)


def test_pairs_are_drawn_without_repeats_and_by_seed() -> None:
    records = [record(number, (3, 2, 1, 0)) for number in range(20)]
    drawn = draw_pairs(records, 3, seed=5)
    assert len(drawn) == 60
    for number in range(20):
        ones = [pair for pair in drawn if pair.prompt == records[number].prompt]
        assert len({str(pair.answers) for pair in ones}) == 3
        assert all(pair.scores[0] > pair.scores[1] for pair in ones)
    assert drawn == draw_pairs(records, 3, seed=5)
    assert drawn != draw_pairs(records, 3, seed=6)


def test_ties_give_no_pairs_and_none_leaves_records_alone() -> None:
    records = [record(0, (1, 1)), record(1, (1, 0))]
    assert [pair.prompt for pair in draw_pairs(records, 5, seed=0)] == [records[1].prompt]
    assert draw_pairs(records, None, seed=0) == records


def test_fewer_of_few_are_all() -> None:
    records = [record(number, (1, 0)) for number in range(4)]
    assert draw_records(records, None, 0) == draw_records(records, 9, 0) == records
    assert len(draw_records(records, 2, 0)) == 2


def test_more_than_a_tenth_of_a_file_dropped_must_be_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"q{n}", "chosen": "a", "rejected": "b"} if n else {"x": 1} for n in range(9)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data: dict[str, Any] = {"train": [Source(path=str(path))], "holdout": 0}
    with pytest.raises(
        RecipeError, match=r"1 of 9 records of .*pairs\.jsonl are dropped \(1 unknown form\).*pairs\.jsonl:1"
    ):
        load_data(Data(**data))
    assert len(load_data(Data(**data, most_dropped=0.2)).train) == 8


def test_a_file_that_is_named_twice_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"q{n}", "chosen": "a", "rejected": "b"} for n in range(9)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = Source(path=str(path))
    with caplog.at_level("INFO"):
        load_data(Data(train=[source], eval={"same": source}, holdout=0.5))
    assert [each.getMessage().partition(": ")[2] for each in caplog.records] == [
        "read 9 records, kept 9 with 9 comparable pairs",
        "read as prompt-pair 9",
    ]


def test_the_file_that_sets_the_scale_must_be_there(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"q{n}", "chosen": "a", "rejected": "b"} for n in range(9)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data: dict[str, Any] = {"train": [Source(path=str(path))], "holdout": 0.5}
    assert load_data(Data(**data, calibrate_on="heldout")).eval
    with pytest.raises(RecipeError, match=r"data\.calibrate_on: 'other' is no evaluation file; there are: heldout"):
        load_data(Data(**data, calibrate_on="other"))


def test_records_are_read_for_their_prompts(tmp_path: Path) -> None:
    rows = [{"prompt": f"why {number}?"} for number in range(9)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"x": 1}]))
    data = Data(train=[Source(path=str(tmp_path / "p.jsonl"), to_pairs=True)], holdout=0.3, pairs_per_prompt=1)
    found = load_data(data, prompts=True)
    held = {record.prompt_key for record in found.eval["heldout"]}
    assert held
    assert held.isdisjoint(record.prompt_key for record in found.train)
    assert len(found.train) + len(held) == 9
    assert found.provenance[str(tmp_path / "p.jsonl")]["forms"] == {"prompt": 9}
