"""The comparison of all methods: its trainings, its server and its fronts fit each other and the packaged family."""

import json
from itertools import chain
from pathlib import Path

import pytest

from tureen_serve.settings import Settings
from tureen_train.comparison.__main__ import FAMILY, write_prompts, write_told
from tureen_train.comparison.fronts import plan_front, plan_server
from tureen_train.comparison.runs import FRONTS, SENTENCES, ComparedMethods, plan_runs
from tureen_train.config import FrontRun, read_family
from tureen_train.front.grids import plan_grid
from tureen_train.front.writing import list_points

DOMAINS = ("academy", "business", "entertainment", "literature", "normal")


@pytest.fixture
def made(tmp_path: Path) -> ComparedMethods:
    data = tmp_path / "dsp"
    data.mkdir()
    rows = [
        {"query": f"Question {number}?", "responses": {name: f"{name} says {number}" for name in DOMAINS}}
        for number in range(40)
    ]
    (data / "domain_specific_preference.test.json").write_text(json.dumps(rows))
    packaged = Path(__file__).parents[2] / "service/tureen_serve/starter"
    return ComparedMethods(read_family(FAMILY, [f"expert.data.root={tmp_path}"]), packaged, tmp_path / "out")


def test_all_runs_share_base_targets_and_rank_with_the_packaged_experts(made: ComparedMethods) -> None:
    expert = made.family.plan_expert("academy", 0)
    for run in chain(*plan_runs(made)):
        assert run.model.lora is not None
        assert expert.model.lora is not None
        assert run.model.base == expert.model.base
        assert (run.model.lora.rank, run.model.lora.targets) == (expert.model.lora.rank, expert.model.lora.targets)


def test_online_rounds_go_on_from_what_was_trained_before_them(made: ComparedMethods) -> None:
    first, later = plan_runs(made)
    trained = [str((Path(run.output) / "artifact").resolve()) for run in first]
    assert [run.model.start for run in first] == [None] * len(first)
    assert len(later) == len(FRONTS)
    assert all(run.model.start in trained for run in later)


def test_each_method_has_its_own_run_and_the_server_its_artifact(made: ComparedMethods) -> None:
    runs = {str((Path(run.output) / "artifact").resolve()): run for run in chain(*plan_runs(made))}
    families = plan_server(made)["families"]
    served = [path for family in families for path in [*family.get("experts", []), family.get("policy")] if path]
    trained = [path for path in served if str(made.out.resolve()) in path]
    assert sorted(trained) == sorted(runs)
    assert {runs[path].family for path in trained} <= {family["name"] for family in families}
    assert len(Settings.model_validate(plan_server(made)).families) == len(families)


@pytest.mark.parametrize("front", FRONTS)
def test_fronts_ask_for_models_that_are_served_at_points_of_the_grid(made: ComparedMethods, front: str) -> None:
    run = FrontRun.model_validate(plan_front(made, front, Path("server.yaml"), 48))
    families = {family["name"] for family in plan_server(made)["families"]}
    grid = plan_grid(list(run.objectives))
    for method in run.methods:
        assert {str(name).partition(":")[0] for name in method.models.values() or [method.model]} <= families
        assert list_points(method, grid)
    methods = {method.name: method for method in run.methods}
    assert len(list_points(methods["morlhf"], grid)) == {"two": 5, "three": 4}[front]
    assert set(methods["p-soups"].sentences) == set(run.objectives)
    folders = {run.output for run in chain(*plan_runs(made))}
    assert {folder for method in run.methods for folder in method.cost.runs} <= folders


def test_voices_are_told_for_the_training_prompts_and_the_others_are_measured(made: ComparedMethods) -> None:
    write_told(made)
    write_prompts(made)
    rows = [json.loads(line) for line in (made.out / "told.jsonl").read_text().splitlines()]
    asked = json.loads((made.out / "prompts.json").read_text())["prompts"]
    assert len(rows) == len(SENTENCES) * (40 - len(asked))
    for row in rows:
        question, answer = (turn["content"] for turn in row["messages"])
        name = answer.split()[0]
        assert question.endswith(f" {SENTENCES[name]}")
        assert not any(question.startswith(each) for each in asked)
