"""ArmoRM's two stages on a tiny model: what a gated run trains, writes, proves and refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scales import scale_of
from train.rated_runs import NAMES, attributes_run, rated, trained
from train.tiny_runs import BAD, GOOD, LORA, history, merged, reward_run

from tureen.errors import Unprocessable
from tureen_core.artifact import Artifact, ArtifactError, open_artifact, read_gate, read_weights
from tureen_core.gate import load_gate
from tureen_core.manifest import Probe
from tureen_train.config import RecipeError, RewardRun, read_recipe
from tureen_train.evaluation.items import Item
from tureen_train.evaluation.scorers import ArtifactScorer
from tureen_train.kinds import export_run
from tureen_train.networks.reward_reader import RewardReader
from tureen_train.records.run_data import load_data
from tureen_train.rewards.run import train_reward
from tureen_train.rewards.verbosity import choose_penalties, make_verbosity_transform

GATE: dict[str, Any] = {"method": "gate", "width": 16, "depth": 2, "temperature": 1.0, "verbosity": "verbosity"}
Stages = tuple[RewardRun, Artifact, Artifact]


def gate_run(base: Path, folder: Path, start: Artifact, **changes: Any) -> RewardRun:
    settings: dict[str, Any] = {
        "name": "gated",
        "objective": "overall",
        "model": {"start": str(start.folder)},
        "reading": {"max_length": 96},
        "loss": GATE,
        "optimisation": {"max_steps": 40, "batch": 16, "learning_rate": 1e-2, "warmup": 0.0},
        "watch": {"log_every": 10, "eval_every": 20},
        "output": str(folder / "gated"),
        "cache": str(folder / "cache"),
    }
    return reward_run(base, folder, **merged(settings, changes))


@pytest.fixture(scope="module")
def stages(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Stages:
    folder = tmp_path_factory.mktemp("stages")
    first = trained(attributes_run(base, folder))
    run = gate_run(base, folder, first)
    return run, first, trained(run)


def talk(*answers: str) -> list[list[dict[str, str]]]:
    asked = {"role": "user", "content": "prompt 0"}
    return [[asked, {"role": "assistant", "content": answer}] for answer in answers]


# --------------------------------------------------------------------------- what comes out


def test_the_overall_objective_stands_after_the_attributes(stages: Stages) -> None:
    _, first, second = stages
    manifest = open_artifact(second.folder).manifest
    assert manifest.gated
    assert [(each.name, each.column) for each in manifest.objectives] == [
        *((name, column) for column, name in enumerate(NAMES)),
        ("overall", 3),
    ]
    assert manifest.objectives[:3] == first.manifest.objectives
    figures = manifest.training.metrics["heldout"]
    assert scale_of(manifest.objectives[3]).mean == pytest.approx(figures["reward_mean"], abs=1e-5)
    assert all({name.partition("@")[0] for name in probe.scores} == {*NAMES, "overall"} for probe in manifest.probes)


def test_backbone_adapter_and_rows_are_those_of_the_first_stage(stages: Stages, base: Path) -> None:
    _, first, second = stages
    before, after = (read_weights(each) for each in (first, second))
    assert before[1] is not None
    assert after[1] is not None
    assert torch.equal(before[1], after[1])
    for path, pair in before[0].modules.items():
        assert torch.equal(pair.a, after[0].modules[path].a)
    readers = [RewardReader(each.folder, base, each.manifest.reading, 3) for each in (first, second)]
    rewards = [reader.score_conversations(talk(GOOD)) for reader in readers]
    assert rewards[0] == rewards[1]


def test_the_score_is_the_gates_sum_over_the_rewards_without_verbosity(stages: Stages, base: Path) -> None:
    """Read by hand: the prompt's last hidden state, g, R M, and their product, in float64."""
    _, _, second = stages
    reader = RewardReader(second.folder, base, second.manifest.reading, 3)
    gate = load_gate(second.folder)
    for messages in talk(GOOD, BAD):
        text = reader.renderer.render_conversation(messages)
        with torch.no_grad():
            state = reader.model.base_model(torch.tensor([text.ids]))[0][0, text.shared - 1]
            gates = gate(state[None])[0].double().numpy()
        (rewards,) = reader.score_conversations([messages])
        shares = (torch.eye(3) - gate.transform)[1].double().numpy()
        rid = np.array(rewards) - shares * rewards[1]
        (values,) = reader.score_probes([Probe(messages=messages)])
        assert values[:3] == rewards
        assert values[3] == pytest.approx(float(gates @ rid), abs=1e-5)
        assert text.ids[: text.shared] == reader.renderer.tokenize_prompt(messages[:1])


def test_the_saved_transform_is_made_on_the_answers_trained_on(stages: Stages, base: Path) -> None:
    run, _, second = stages
    gate = read_gate(second)
    assert gate is not None
    reader = RewardReader(second.folder, base, second.manifest.reading, 3)
    told = [row for record in load_data(run.data).train for row in reader.score_conversations(record.conversations)]
    torch.testing.assert_close(gate.transform, make_verbosity_transform(choose_penalties(np.array(told), 1, 0.03), 1))
    assert gate.transform[1, 1] == 0


def test_the_run_learns_and_explains_itself(stages: Stages) -> None:
    run, _, second = stages
    folder = Path(run.output)
    entries = history(folder)
    assert [entry["step"] for entry in entries if "loss" in entry] == [1, 10, 20, 30, 40]
    assert [entry["step"] for entry in entries if "eval_heldout_accuracy" in entry] == [0, 20, 40, 40]
    figures = second.manifest.training.metrics["heldout"]
    assert figures["accuracy"] > 0.5
    assert figures["margin"] > entries[0]["eval_heldout_margin"]
    assert {f"{name}_{what}" for name in NAMES for what in ("accuracy", "coefficient")} <= figures.keys()
    resolved = read_recipe(str(folder / "recipe.yaml"))
    assert isinstance(resolved, RewardRun)
    assert resolved.loss.model_dump()["attributes"] == NAMES
    assert (folder / "reliability.png").exists()


def test_what_was_trained_is_what_is_read_again(stages: Stages) -> None:
    proof = json.loads((Path(stages[0].output) / "proof.json").read_text())
    live, again = proof["live"]["1"], proof["reread"]["1"]
    assert [len(row) for row in live] == [4] * 4
    assert again == [pytest.approx(row, abs=1e-5) for row in live]


def test_the_artifact_has_the_trained_scale(stages: Stages) -> None:
    run, _, second = stages
    gate = read_gate(second)
    assert gate is not None
    last = [entry["scale"] for entry in history(Path(run.output)) if "scale" in entry][-1]
    assert float(gate.scale) == last != 1.0


def test_exporting_again_gives_the_same_artifact(stages: Stages) -> None:
    run, _, second = stages
    assert export_run(Path(run.output)).manifest.version == second.manifest.version


def test_evaluation_reads_the_overall_reward(stages: Stages, base: Path) -> None:
    scorer = ArtifactScorer(stages[2].folder, "overall", None, 2)
    (asked, good), (_, bad) = talk(GOOD, BAD)
    item = Item("one", (asked,), ((good,), (bad,)), (1.0, 0.0))
    (scored,) = scorer.score([item], lambda _: None)
    values = scorer.model.reader.score_probes([Probe(messages=messages) for messages in talk(GOOD, BAD)])
    assert scored.rewards == pytest.approx([row[3] for row in values], abs=1e-5)


# --------------------------------------------------------------------------- variants


def test_all_weights_may_be_gated(base: Path, tmp_path: Path) -> None:
    first = trained(attributes_run(base, tmp_path, model={"lora": None}))
    loss = {**GATE, "verbosity": None}
    second = trained(gate_run(base, tmp_path, first, model={"lora": None}, loss=loss, optimisation={"max_steps": 5}))
    gate = read_gate(second)
    assert gate is not None
    assert torch.equal(gate.transform, torch.eye(3))
    assert second.manifest.weights == "full"
    assert {"gate.safetensors", "model.safetensors"} <= {path.name for path in second.folder.iterdir()}


def test_verbosity_may_be_judged_on_other_answers(stages: Stages, base: Path, tmp_path: Path) -> None:
    reference = {"path": str(rated(tmp_path, name="reference.jsonl"))}
    run = gate_run(base, tmp_path, stages[1], loss={"reference": reference}, optimisation={"max_steps": 2})
    gate = read_gate(trained(run))
    assert gate is not None
    assert gate.transform[1, 1] == 0


def test_the_same_seed_makes_the_same_gate(stages: Stages, base: Path, tmp_path: Path) -> None:
    run, first, second = stages
    again = trained(gate_run(base, tmp_path, first))
    one, other = (read_gate(each) for each in (second, again))
    assert one is not None
    assert other is not None
    torch.testing.assert_close(one.state_dict(), other.state_dict())
    assert run.optimisation.seed == 7


# --------------------------------------------------------------------------- what is refused


def test_records_whose_prompt_has_no_known_end_are_left_out(
    stages: Stages, base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = json.loads((Path(stages[0].output).parent / "records.json").read_text())
    early = {"text": ["\n\nHuman: a\n\nAssistant: b", "\n\nHuman: c\n\nAssistant: d"], "score": [1.0, 0.0]}
    longest = {"text": [f"\n\nHuman: z\n\nAssistant: {GOOD * 40}", "\n\nHuman: z\n\nAssistant: b"], "score": [1.0, 0.0]}
    path = tmp_path / "mixed.json"
    path.write_text(json.dumps([*rows, early, longest]))
    data = {"train": [{"path": str(path)}], "holdout": 0.0}
    trained(gate_run(base, tmp_path, stages[1], data=data, optimisation={"max_steps": 1}))
    assert "2 records left out: no prompt, an answer cut to reading.max_length" in caplog.text


def test_data_without_any_prompt_is_refused(stages: Stages, base: Path, tmp_path: Path) -> None:
    path = tmp_path / "early.json"
    rows = [{"text": ["\n\nHuman: a\n\nAssistant: b", "\n\nHuman: c\n\nAssistant: d"], "score": [1.0, 0.0]}]
    path.write_text(json.dumps(rows))
    data = {"train": [{"path": str(path)}], "holdout": 0.0}
    with pytest.raises(RecipeError, match="a gate reads the end of the prompt, but no record is left"):
        train_reward(gate_run(base, tmp_path, stages[1], data=data))


def test_a_text_that_is_cut_has_no_overall_reward(stages: Stages, base: Path) -> None:
    reader = RewardReader(stages[2].folder, base, stages[2].manifest.reading, 3)
    with pytest.raises(Unprocessable, match="the text is too long and was cut"):
        reader.score_probes([Probe(messages=talk(GOOD * 40)[0])])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "foxes"}, "objective: 'foxes' is an attribute"),
        ({"loss": {"verbosity": "wit"}}, "loss.verbosity: 'wit' is not one of the attributes: foxes, verbosity, rare"),
        ({"loss": {"attributes": ["foxes"]}}, "loss.attributes: model.start has foxes, verbosity, rare"),
        ({"reading": {"pooling": "mean"}}, "reading.pooling: a gate reads single tokens"),
        ({"model": {"start": None}}, "model.start: a gate needs an artifact of loss.method: attributes"),
        ({"scale": {"zero": 2}}, "scale: a frozen backbone runs in one process"),
    ],
    ids=str,
)
def test_what_makes_no_gate_is_named_by_its_key(
    changes: dict[str, Any], message: str, stages: Stages, base: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=message):
        train_reward(gate_run(base, tmp_path, stages[1], **changes))


def test_a_start_that_is_no_attribute_model_is_refused(stages: Stages, base: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="gated is not a multi-attribute model without a gate"):
        train_reward(gate_run(base, tmp_path, stages[2]))
    with pytest.raises(ArtifactError, match=r"has no tureen\.json"):
        train_reward(gate_run(base, tmp_path, stages[1], model={"start": str(tmp_path)}))


def test_a_frozen_run_is_run_again_rather_than_resumed(stages: Stages, base: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="--resume: a run with a frozen backbone has no checkpoints"):
        train_reward(gate_run(base, tmp_path, stages[1]), resume=True)


def test_pairs_are_needed(stages: Stages, base: Path, tmp_path: Path) -> None:
    data = {"train": [{"path": str(rated(tmp_path))}], "holdout": 0.0}
    with pytest.raises(RecipeError, match=r"data\.train: no record has two answers with different scores"):
        train_reward(gate_run(base, tmp_path, stages[1], data=data))


def test_an_earlier_stage_with_another_head_lends_its_adapter(base: Path, tmp_path: Path) -> None:
    """As published, attributes stand on a Bradley-Terry model; its one row is not theirs."""
    ranked = trained(reward_run(base, tmp_path, reading={"max_length": 96}, output=str(tmp_path / "ranked")))
    artifact = trained(attributes_run(base, tmp_path, model={"start": str(ranked.folder), "lora": LORA}))
    assert artifact.manifest.weights == "lora"
    before, after = (read_weights(each)[0] for each in (ranked, artifact))
    for path, pair in before.modules.items():
        assert torch.equal(pair.b * pair.scale, after.modules[path].b * after.modules[path].scale)
    plain = trained(attributes_run(base, tmp_path, output=str(tmp_path / "plain")))
    assert plain.manifest.probes[0].scores != artifact.manifest.probes[0].scores
