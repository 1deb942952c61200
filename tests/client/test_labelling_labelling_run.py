"""A file labelled run by run against a server that can fail: order, resumption, errors with their places."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from client.conftest import HASTY
from client.standin import StandIn, refusal, reply, work
from datasets import Dataset

from tureen import Client, Conflict, InvalidRequest, ServerFault, TureenError, Unavailable, Unprocessable
from tureen.commands.label import make_labeller
from tureen.labelling import labelling_run
from tureen.labelling.items import Line
from tureen.labelling.recipe import Recipe
from tureen.labelling.tally import Tally
from tureen.labelling.target_files import TargetFiles
from tureen.wire import Label, Message, PreferencesReply, Usage


def item(size: int) -> dict[str, Any]:
    return {"prompt": "p", "candidates": ["x" * size, "xx"]}


@pytest.fixture
def client(standin: StandIn) -> Iterator[Client]:
    with Client(standin.url, retries=HASTY) as client:
        yield client


def plan(**changes: Any) -> labelling_run.Plan:
    return labelling_run.Plan(**{"recipe": Recipe("ranking"), "size": 2, "ahead": 1, **changes})


class Job:
    """A file of items and what becomes of it."""

    def __init__(self, folder: Path, client: Client, *lines: Any) -> None:
        self.source, self.target = folder / "in.jsonl", folder / "out.jsonl"
        self.source.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
        self.client = client
        self.seen: list[int] = []

    def label(self, how: labelling_run.Plan, **options: Any) -> Tally:
        return labelling_run.label_items(
            make_labeller(self.client, how), self.source, self.target, how, self.seen.append, **options
        )

    @property
    def rows(self) -> list[Any]:
        return [json.loads(line) for line in self.target.read_text().splitlines()]

    @property
    def errors(self) -> list[Any]:
        return [json.loads(line) for line in TargetFiles(self.target).errors.read_text().splitlines()]


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_rows_are_written_in_order_and_counted(client: Client, standin: StandIn, tmp_path: Path, ahead: int) -> None:
    job = Job(tmp_path, client, *[item(size) for size in (1, 2, 3, 4, 5)])
    tally = job.label(plan(ahead=ahead))
    assert [row["id"] for row in job.rows] == [f"in.jsonl:{number}" for number in (1, 2, 3, 4, 5)]
    assert [row["ranking"][0] for row in job.rows] == [1, 0, 0, 0, 0]
    assert tally == Tally(
        read=5, labelled=5, rows=5, ties=1, prompt_tokens=25, fingerprint=standin.fingerprint, preferences={}
    )
    assert job.seen == [0, 2, 2, 1]


def test_what_is_asked_of_the_server(client: Client, standin: StandIn, tmp_path: Path) -> None:
    how = plan(recipe=Recipe("trl", "all", tie_margin=0.25), asked={"preferences": {"length": 1.0}, "truncate": True})
    Job(tmp_path, client, {**item(1), "id": "a", "models": ["m", "n"]}).label(how)
    assert standin.seen[0].json == {
        "items": [item(1)],
        "preferences": {"length": 1.0},
        "truncate": True,
        "tie_margin": 0.25,
        "matrix": True,
        "on_error": "item",
        "priority": "batch",
        "fingerprint": None,
    }


def test_a_record_with_tools_is_asked_with_them_and_its_row_has_them(
    client: Client, standin: StandIn, tmp_path: Path
) -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
    turns = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "2"},
        {"role": "assistant", "content": "Two."},
    ]
    asked = [{"role": "user", "content": "How many?"}]
    record = {"prompt": asked, "chosen": turns, "rejected": turns[-1:], "tools": [{"name": "f"}]}
    job = Job(tmp_path, client, record)
    job.label(plan(recipe=Recipe("trl")))
    tools = [{"type": "function", "function": {"name": "f"}}]
    (sent,) = standin.seen[0].json["items"]
    assert sent["tools"] == tools
    assert [[Message.model_validate(turn).plain() for turn in each] for each in sent["candidates"]] == [
        turns,
        turns[-1:],
    ]
    (row,) = job.rows
    assert (row["prompt"], row["tools"]) == (asked, tools)
    assert turns in (row["chosen"], row["rejected"])


def test_a_saved_dataset_is_labelled_and_another_one_is_other_work(client: Client, tmp_path: Path) -> None:
    source, target = tmp_path / "set", tmp_path / "out.jsonl"
    records = [{"prompt": "p", "chosen": "x", "rejected": "xx"}] * 3
    Dataset.from_list(records).save_to_disk(source)

    def label() -> Tally:
        return labelling_run.label_items(make_labeller(client, plan()), source, target, plan(), lambda _: None)

    tally = label()
    assert (tally.read, tally.labelled) == (3, 3)
    assert [json.loads(line)["id"] for line in target.read_text().splitlines()] == ["set:1", "set:2", "set:3"]
    assert label() == tally
    Dataset.from_list(records[:1]).save_to_disk(source)
    with pytest.raises(Conflict):
        label()


def test_the_first_runs_models_are_demanded_of_all_others(client: Client, standin: StandIn, tmp_path: Path) -> None:
    job = Job(tmp_path, client, *[item(1)] * 3)
    job.label(plan())
    assert [seen.json.get("fingerprint") for seen in standin.seen] == [None, standin.fingerprint]
    standin.fail(work, refusal(409, "fingerprint_mismatch", "another is loaded"))
    with pytest.raises(Conflict, match="another is loaded"):
        job.label(plan(), restart=True)


def test_models_that_change_between_two_runs_asked_at_once_are_noticed(client: Client, tmp_path: Path) -> None:
    job = Job(tmp_path, client, *[item(1)] * 4)
    answers = {number: client.preferences([item(1)]) for number in range(4)}
    asked = itertools.count()

    def ask(items: list[Any], fingerprint: Any) -> PreferencesReply:
        number = next(asked)
        return answers[number].model_copy(update={"fingerprint": {"length": str(number)}})

    with pytest.raises(Conflict, match="the reward models changed"):
        labelling_run.label_items(ask, job.source, job.target, plan(ahead=2, size=1), job.seen.append)
    assert json.loads(TargetFiles(job.target).state.read_bytes())["tally"]["read"] == 1


@pytest.mark.parametrize("form", ["ranking", "trl"])
def test_an_interrupted_run_goes_on_without_labelling_again(
    client: Client, standin: StandIn, tmp_path: Path, form: Any
) -> None:
    how = plan(recipe=Recipe(form))
    job = Job(tmp_path, client, *[item(size) for size in range(1, 8)])
    standin.fail(work, work, *[refusal(503, "queue_full", "busy")] * 3)
    with pytest.raises(Unavailable, match="busy"):
        job.label(how)
    assert not job.target.exists()
    asked_before = len(standin.seen)
    tally = job.label(how)
    assert [len(seen.json["items"]) for seen in standin.seen[asked_before:]] == [2, 1]
    assert standin.seen[asked_before].json["fingerprint"] == standin.fingerprint
    assert [row["id"] for row in job.rows] == [f"in.jsonl:{number}" for number in range(1, 8)]
    assert (tally.read, tally.rows, job.seen) == (7, 7, [0, 2, 2, 4, 2, 1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl", "out.jsonl.run.json"]


def test_finished_work_asks_nobody(client: Client, standin: StandIn, tmp_path: Path) -> None:
    job = Job(tmp_path, client, item(1), item(3))
    first = job.label(plan())
    asked = len(standin.seen)
    assert job.label(plan()) == first
    assert len(standin.seen) == asked
    job.label(plan(), restart=True)
    assert len(standin.seen) == asked + 1


def test_another_file_or_other_options_are_other_work(client: Client, standin: StandIn, tmp_path: Path) -> None:
    job = Job(tmp_path, client, *[item(1)] * 4)
    standin.fail(work, *[refusal(503, "queue_full")] * 3)
    with pytest.raises(Unavailable):
        job.label(plan())
    with pytest.raises(Conflict, match="asked differs"):
        job.label(plan(asked={"rewards": ["length"]}))
    job.source.write_text(json.dumps(item(9)))
    with pytest.raises(Conflict, match="source differs"):
        job.label(plan())
    assert job.label(plan(), restart=True).read == 1


def test_a_smaller_run_or_more_at_once_is_the_same_work(client: Client, standin: StandIn, tmp_path: Path) -> None:
    job = Job(tmp_path, client, *[item(size) for size in range(1, 6)])
    standin.fail(work, *[refusal(503, "queue_full")] * 3)
    with pytest.raises(Unavailable):
        job.label(plan())
    job.label(plan(size=1, ahead=3))
    assert [row["id"] for row in job.rows] == [f"in.jsonl:{number}" for number in range(1, 6)]


# --------------------------------------------------------------------------- what cannot be labelled


def test_bad_items_are_set_aside_with_their_lines(client: Client, standin: StandIn, tmp_path: Path) -> None:
    job = Job(tmp_path, client, item(1), "{", {"prompt": 3}, "", {**item(2), "id": 17}, item(3))
    data = [labelled(), refused(), {**labelled(), "index": 2}]
    standin.fail(reply({"fingerprint": standin.fingerprint, "usage": {}, "data": data}))
    tally = job.label(plan(size=6, spare=True))
    assert (tally.read, tally.labelled, tally.failed) == (5, 2, 3)
    assert [row["id"] for row in job.rows] == ["in.jsonl:1", "in.jsonl:6"]
    assert [(row["line"], row["id"], row["place"]) for row in job.errors] == [
        (2, "in.jsonl:2", f"{job.source}, line 2"),
        (3, "in.jsonl:3", f"{job.source}, line 3"),
        (5, "17", f"{job.source}, line 5"),
    ]
    assert job.errors[2]["error"] == {
        "message": "too long",
        "param": "candidates[1]",
        "code": "context_length_exceeded",
    }


def labelled() -> dict[str, Any]:
    scores = [{"index": place, "reward": reward, "scores": {}} for place, reward in enumerate((0.0, 1.0))]
    verdict = {"ranking": [1, 0], "chosen": 1, "rejected": 0, "margin": 1.0, "probability": 0.7, "tie": False}
    return {"index": 0, **verdict, "candidates": scores}


def refused() -> dict[str, Any]:
    error = {"message": "too long", "type": "t", "param": "items[1].candidates[1]", "code": "context_length_exceeded"}
    return {"index": 1, "error": error}


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("{", "in.jsonl, line 4: this is not JSON"),
        ({"prompt": "p", "candidates": 3}, "in.jsonl, line 4: candidates: should be a valid list"),
    ],
)
def test_the_first_bad_line_stops_it_and_what_was_before_is_kept(
    client: Client, tmp_path: Path, bad: Any, says: str
) -> None:
    job = Job(tmp_path, client, item(1), item(2), item(3), bad)
    with pytest.raises(Unprocessable, match=says):
        job.label(plan())
    assert len(TargetFiles(job.target).rows.read_text().splitlines()) == 2
    assert job.label(plan(spare=True)).failed == 1
    assert len(job.rows) == 3


def test_an_items_own_error_stops_it_with_its_place_and_field(client: Client, standin: StandIn, tmp_path: Path) -> None:
    job = Job(tmp_path, client, item(1), item(2))
    standin.fail(reply({"fingerprint": standin.fingerprint, "usage": {}, "data": [labelled(), refused()]}))
    with pytest.raises(TureenError, match=r"in\.jsonl, line 2: candidates\[1\]: too long"):
        job.label(plan())


def test_what_a_form_cannot_say_is_a_failure_of_its_line(client: Client, tmp_path: Path) -> None:
    talk = {**item(1), "prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]}
    job = Job(tmp_path, client, talk, item(3))
    tally = job.label(plan(recipe=Recipe("rewardbench"), spare=True))
    assert (tally.labelled, tally.failed) == (1, 1)
    assert "one user turn" in job.errors[0]["error"]["message"]


def test_a_file_of_bad_lines_asks_nobody(client: Client, standin: StandIn, tmp_path: Path) -> None:
    job = Job(tmp_path, client, "{", "}")
    assert job.label(plan(spare=True)) == Tally(read=2, failed=2)
    assert (standin.seen, job.rows, len(job.errors)) == ([], [], 2)


def test_a_short_answer_is_not_taken_for_labels(client: Client, standin: StandIn, tmp_path: Path) -> None:
    standin.fail(reply({"fingerprint": {}, "usage": {}, "data": []}))
    with pytest.raises(ServerFault, match="the 1 items in order"):
        Job(tmp_path, client, item(1)).label(plan())
    some = Line(1, "1", "line 1", item=None)
    assert labelling_run.match_labels([some], None) == []
    with pytest.raises(ServerFault, match="labels of 0 items"):
        labelling_run.match_labels([some], PreferencesReply(fingerprint={}, data=[Label(index=0)], usage=Usage()))


def test_dropped_rows_are_summed_over_runs(client: Client, tmp_path: Path) -> None:
    job = Job(tmp_path, client, item(2), item(3), item(2), item(9))
    tally = job.label(plan(recipe=Recipe("trl", ties="drop", min_margin=5)))
    assert (tally.rows, tally.ties, tally.dropped) == (1, 2, {"tie": 2, "margin below the least": 1})


def test_runs_with_matrices_are_so_small_that_they_fit() -> None:
    assert plan(size=4096).run == 4096
    assert plan(size=4096, recipe=Recipe("trl", "all")).run * 256**2 <= 2**20


def test_a_target_that_cannot_be_written(client: Client, tmp_path: Path) -> None:
    job = Job(tmp_path, client, item(1))
    job.target = tmp_path / "no" / "out.jsonl"
    with pytest.raises(FileNotFoundError):
        job.label(plan())
    job.target = tmp_path / "out.txt"
    with pytest.raises(InvalidRequest, match="must be named"):
        job.label(plan())
