"""The critic: what it starts from, and that its values are then the reward model's rewards of every beginning."""

import logging
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor
from train.tiny_ppo import FUNCTION, make_texts, ppo_run
from train.tiny_runs import LORA

from tureen_core.artifact import Artifact, Manifest, Objective, seal_artifact
from tureen_core.base import load_tokenizer
from tureen_core.calibration import Calibration
from tureen_train.config import ExpertRun, RecipeError
from tureen_train.networks.packing import switch_to_packed
from tureen_train.networks.reward_reader import open_reader
from tureen_train.policies.encoding import EncodedAnswer
from tureen_train.policies.ppo.critic import Critic, find_critic_start, make_critic
from tureen_train.policies.token_logprobs import collate_answers

TEXTS = make_texts([(7, 5), (7, 3), (4, 1)])
GROUPS = [0, 0, 1]


@pytest.fixture(scope="module")
def artifacts(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    folder = tmp_path_factory.mktemp("artifacts")
    return {
        "lora": tiny.reward(folder / "lora", base, "kind", seed=3),
        "several": tiny.reward(folder / "several", base, "both", seed=4, objectives=["kind", "short"]),
        "full": tiny.full_reward(folder / "full", base, "kind", seed=5),
        "gated": tiny.gated(folder / "gated", base, "overall", 6, ["kind", "short"]),
        "expert": tiny.expert(folder / "expert", base, "kind", seed=7),
        "pairs": reseal(tiny.reward(folder / "pairs", base, "kind", seed=3), input="pair"),
        "scaled": rescale(tiny.reward(folder / "scaled", base, "kind", seed=3), Calibration(mean=1.5, std=2.0)),
    }


def reseal(artifact: Artifact, **changes: Any) -> Artifact:
    return seal_artifact(artifact.folder, artifact.manifest.model_copy(update=changes))


def rescale(artifact: Artifact, scale: Calibration) -> Artifact:
    (objective,) = artifact.manifest.objectives
    return reseal(artifact, objectives=[Objective(name=objective.name, calibration=scale)])


def source(artifact: Artifact, **changes: Any) -> dict[str, Any]:
    return {"source": "artifact", "path": str(artifact.folder), "scale": "raw", **changes}


def run_with(base: Path, folder: Path, *rewards: dict[str, Any], **changes: Any) -> ExpertRun:
    return ppo_run(base, folder, rewards=list(rewards) or [FUNCTION], **changes)


def opened(run: ExpertRun, base: Path) -> Critic:
    return make_critic(find_critic_start(run, base), run, tiny.reading(base))


@torch.no_grad()
def values_of(critic: Critic, texts: list[EncodedAnswer] = TEXTS, layout: Any = "off") -> Tensor:
    found: Tensor = critic.eval()(collate_answers(texts, GROUPS, 0, layout))
    return found


def rewards_of(artifact: Artifact, column: int = 0) -> list[float]:
    """The rewards of every beginning of every text that a token of its answer follows."""
    beginnings = [text.ids[:length] for text in TEXTS for length in range(text.start, len(text.ids))]
    return [row[column] for row in open_reader(artifact).score_ids(beginnings)]


@pytest.mark.parametrize("lora", [LORA, None], ids=["LoRA", "whole weights"])
@pytest.mark.parametrize(
    ("name", "objective", "column"), [("lora", None, 0), ("several", "short", 1), ("full", None, 0)]
)
def test_values_are_the_rewards_of_the_text_so_far(
    name: str,
    objective: str | None,
    column: int,
    lora: dict[str, Any] | None,
    artifacts: dict[str, Artifact],
    base: Path,
    tmp_path: Path,
) -> None:
    run = run_with(base, tmp_path, source(artifacts[name], objective=objective))
    critic = opened(
        run.model_copy(update={"model": run.model.model_copy(update={"lora": lora and run.model.lora})}), base
    )
    expected = rewards_of(artifacts[name], column)
    assert values_of(critic).tolist() == pytest.approx(expected, abs=1e-4)
    assert switch_to_packed(critic.model, 64)
    for layout in ("texts", "prompts"):
        assert values_of(critic, layout=layout).tolist() == pytest.approx(expected, abs=1e-4)


def test_values_are_on_the_scale_of_the_source(artifacts: dict[str, Artifact], base: Path, tmp_path: Path) -> None:
    run = run_with(base, tmp_path, source(artifacts["scaled"], scale="calibrated", weight=-0.5))
    expected = [-0.5 * (each - 1.5) / 2 for each in rewards_of(artifacts["scaled"])]
    assert values_of(opened(run, base)).tolist() == pytest.approx(expected, abs=1e-4)


def test_without_an_artifact_the_critic_is_the_base_and_all_values_are_0(base: Path, tmp_path: Path) -> None:
    critic = opened(run_with(base, tmp_path), base)
    assert values_of(critic).tolist() == [0.0] * 9
    trained = {name for name, weight in critic.named_parameters() if weight.requires_grad}
    assert {name for name in trained if "lora_" not in name} == {"shift", "model.score.modules_to_save.default.weight"}


def test_the_key_chooses_the_artifact_or_the_base(artifacts: dict[str, Artifact], base: Path, tmp_path: Path) -> None:
    watched = source(artifacts["lora"], weight=0.0, name="watched")
    by_reward = run_with(base, tmp_path, watched, source(artifacts["full"], name="kind"))
    assert find_critic_start(by_reward, base).artifact == artifacts["full"]
    assert find_critic_start(run_with(base, tmp_path, FUNCTION, watched), base).artifact is None
    named = run_with(base, tmp_path, policy={"critic": str(artifacts["lora"].folder)})
    assert find_critic_start(named, base).artifact == artifacts["lora"]
    new = run_with(base, tmp_path, source(artifacts["lora"]), policy={"critic": "base"})
    assert find_critic_start(new, base).artifact is None


def test_a_named_artifact_takes_its_scale_from_the_rewards(
    artifacts: dict[str, Artifact], base: Path, tmp_path: Path
) -> None:
    among = source(artifacts["scaled"], scale="calibrated", weight=3.0)
    path = str(artifacts["scaled"].folder)
    start = find_critic_start(run_with(base, tmp_path, among, policy={"critic": path}), base)
    assert (start.scale, start.shift) == (1.5, -2.25)
    alone = find_critic_start(run_with(base, tmp_path, policy={"critic": path}), base)
    assert (alone.scale, alone.shift) == (0.5, -0.75)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("expert", "no reward model of conversations, but a model of kind expert"),
        ("pairs", "no reward model of conversations, but a model of kind reward of a pair"),
    ],
)
def test_what_cannot_be_a_critic_is_refused_by_name_and_passed_over_by_default(
    name: str,
    why: str,
    artifacts: dict[str, Artifact],
    base: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    named = run_with(base, tmp_path, policy={"critic": str(artifacts[name].folder)})
    with pytest.raises(
        RecipeError, match=f"policy.critic: .* cannot be the critic: it is {why}.*name another, or base"
    ):
        find_critic_start(named, base)
    with caplog.at_level(logging.INFO, "tureen.train"):
        scaled = {"scale": "calibrated"}
        rewards = [source(artifacts[name], **scaled), source(artifacts["lora"], **scaled, name="other")]
        assert find_critic_start(run_with(base, tmp_path, *rewards), base).artifact == artifacts["lora"]
    assert why in caplog.text


def test_a_reward_that_a_gate_makes_is_no_critic(artifacts: dict[str, Artifact], base: Path, tmp_path: Path) -> None:
    overall = source(artifacts["gated"], objective="overall")
    folder = str(artifacts["gated"].folder)
    with pytest.raises(RecipeError, match="overall of overall is made by a gate"):
        find_critic_start(run_with(base, tmp_path, overall, policy={"critic": folder}), base)
    short = source(artifacts["gated"], objective="short")
    start = find_critic_start(run_with(base, tmp_path, short, policy={"critic": folder}), base)
    assert (start.column, start.rows) == (1, 2)


def test_a_critic_with_other_tokens_is_refused(base: Path, tmp_path: Path) -> None:
    other = tiny.base(tmp_path / "other", seed=1)
    tokenizer = load_tokenizer(other)
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(other)
    artifact = tiny.full_reward(tmp_path / "reward", other, "kind", seed=5)
    run = run_with(base, tmp_path, policy={"critic": str(artifact.folder)})
    with pytest.raises(RecipeError, match="its tokens are others than the policy's"):
        find_critic_start(run, base)


def test_a_head_of_another_library_is_refused(artifacts: dict[str, Artifact], base: Path, tmp_path: Path) -> None:
    copy = tiny.full_reward(tmp_path / "reward", base, "kind", seed=5)
    manifest = copy.manifest.model_dump()
    rule = Manifest.model_validate({**manifest, "head": {"output": "sigmoid"}})
    seal_artifact(copy.folder, rule)
    with pytest.raises(RecipeError, match="its head is not a plain linear one"):
        find_critic_start(run_with(base, tmp_path, policy={"critic": str(copy.folder)}), base)


def test_a_critic_learns_through_all_that_it_trains(artifacts: dict[str, Artifact], base: Path, tmp_path: Path) -> None:
    critic = opened(run_with(base, tmp_path, source(artifacts["lora"])), base)
    critic(collate_answers(TEXTS, GROUPS, 0)).sum().backward()
    trained = {name: weight for name, weight in critic.named_parameters() if weight.requires_grad}
    assert all(weight.grad is not None and bool(weight.grad.any()) for weight in trained.values())
    assert {"shift", "model.score.modules_to_save.default.weight"} < set(trained)
