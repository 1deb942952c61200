"""GRPO and RLOO by TRL's trainers. Only this file and :mod:`.group_trainers` know them."""

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import PeftModel, load_peft_weights, set_peft_model_state_dict
from transformers import TrainerCallback, set_seed
from trl import GRPOConfig, RLOOConfig

from tureen.atomic_files import replace_atomically
from tureen_core.template import Renderer
from tureen_train.config import ExpertRun, GrpoPolicy, RecipeError, RlooPolicy
from tureen_train.networks.memory import free_memory
from tureen_train.networks.reward_reader import ignore_progress
from tureen_train.networks.sharded import gather_for_generation
from tureen_train.policies.group_prompts import order_prompts, select_prompts
from tureen_train.policies.group_rewards import TOTAL, GroupRewards, open_samples
from tureen_train.policies.group_trainers import GroupParts, PackedGrpoTrainer, PackedRlooTrainer, draw_step_seed
from tureen_train.policies.held_answers import AFTER, BEFORE, COMPARED, HeldAnswers
from tureen_train.policies.method import Task, TrainedPolicy
from tureen_train.policies.opening import choose_layout, open_policy, open_start
from tureen_train.policies.rollouts.contract import Prompt, Reward, Sample
from tureen_train.policies.rollouts.crew import Crew
from tureen_train.policies.rollouts.prompts import check_prompts, collect_prompts
from tureen_train.policies.rollouts.rewards import open_rewarder
from tureen_train.policies.rollouts.sampler import find_end_tokens
from tureen_train.policies.round_writers import find_origin, make_policy_writer
from tureen_train.policies.trained import TrainerPolicy
from tureen_train.runs.folder import ACCOUNT, ROLLOUTS
from tureen_train.runs.history import History
from tureen_train.runs.launch import find_last_checkpoint, make_trainer_arguments
from tureen_train.runs.movement import GradientWatch
from tureen_train.runs.resuming import train_rest
from tureen_train.settings import read_rank

SAMPLES = "samples.jsonl"
DECIDING = ("model", "preferences", "rewards", "sampling")  # the parts of a recipe that decide the first answers
TRAINERS: dict[str, tuple[Any, Any]] = {
    "grpo": (GRPOConfig, PackedGrpoTrainer),
    "rloo": (RLOOConfig, PackedRlooTrainer),
}
log = logging.getLogger("tureen.train")


class StepSeed(TrainerCallback):
    """Seeds each step by its number, so that a resumed run writes the answers of an unbroken one."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Seed the generators of this process."""
        set_seed(draw_step_seed(args.seed, state))


class AdapterRestorer(TrainerCallback):
    """Loads a checkpoint's adapter when a run is resumed.

    TRL keeps the reference as a second adapter, in a folder of its own in the checkpoint. The library then loads that
    one alone, and the policy would begin anew. DeepSpeed loads all weights by itself.

    Args:
        checkpoint: its folder.
    """

    def __init__(self, checkpoint: str) -> None:
        self.checkpoint = checkpoint

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:  # noqa: ARG002
        """Copy the weights into the policy's adapter, whose tensors the optimiser holds."""
        policy = model.module if hasattr(model, "module") else model
        if args.deepspeed is None and isinstance(policy, PeftModel):
            set_peft_model_state_dict(policy, load_peft_weights(self.checkpoint), policy.active_adapter)


class AccountKeeper(TrainerCallback):
    """Keeps the account in each checkpoint, since a resumed run writes and counts the answers after it again.

    Args:
        folder: the run's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Copy the account into the newest checkpoint."""
        if read_rank() == 0:
            _copy_file(self.folder / ACCOUNT, Path(args.output_dir) / f"checkpoint-{state.global_step}" / ACCOUNT)

    def restore(self, checkpoint: str) -> None:
        """Set the account back to that of a checkpoint."""
        kept = Path(checkpoint) / ACCOUNT
        if read_rank() == 0 and kept.is_file():
            _copy_file(kept, self.folder / ACCOUNT)


def _copy_file(source: Path, target: Path) -> None:
    """Copy a file; the copy is whole or not there."""
    with replace_atomically(target) as part:
        shutil.copy(source, part)


def train_groups(task: Task) -> TrainedPolicy:
    """Train on groups of answers to one prompt.

    Raises:
        RecipeError: no prompt is left, a group or a batch has an impossible size, or there is nothing to resume.
    """
    run = task.run
    checkpoint, keeper = find_last_checkpoint(run) if task.resume else None, AccountKeeper(task.folder)
    if checkpoint is not None:
        keeper.restore(checkpoint)
    found = collect_prompts(task.data.train, task.renderer, run.sampling.max_prompt)
    check_prompts(found, run.data.most_dropped)
    prompts = select_prompts(found.prompts, task.renderer, task.folder)
    held = write_held_before(task)
    start = open_start(run, task.base)
    rewarder = None
    if read_rank() == 0:
        rewarder = open_rewarder(
            run.rewards, task.folder, failed_share=run.failed_share, resume=task.resume, preferences=run.preferences
        )
    arguments = make_arguments(run)  # after the rewards and before the policy: what is loaded later ZeRO-3 shards
    model = open_policy(run, task.base, start)
    ends = find_end_tokens(model.generation_config.eos_token_id, task.renderer)
    model.generation_config.eos_token_id = ends
    known: tuple[dict[str, float], bool] = (
        ({}, False) if rewarder is None else (dict(rewarder.weights), rewarder.compares)
    )
    weights, compares = Crew().share(known)
    step = int(checkpoint.rsplit("-", 1)[1]) if checkpoint else 0
    noted = open_samples(task.folder / SAMPLES, step) if read_rank() == 0 else None
    rewards = GroupRewards(rewarder, list(weights), {each.id: each for each in prompts}, ends, noted)
    watch = GradientWatch()
    trainer = _make_trainer(run, arguments, model, task.renderer, prompts, rewards, weights)
    trainer.add_callback(watch)
    trainer.add_callback(keeper)
    if checkpoint is not None:
        trainer.add_callback(AdapterRestorer(checkpoint))
    train_rest(trainer, checkpoint)
    trained = TrainerPolicy(trainer, {}, watch.moved)
    write_held_after(task, held, trained)

    def reward(prompts: Sequence[Prompt], samples: Sequence[Sequence[Sample]]) -> list[list[Reward]]:
        assert rewarder is not None  # only the first rank rewards
        return rewarder.reward(prompts, samples, ignore_progress)

    return replace(trained, metrics=held.compare(reward, compares))


def write_held_before(task: Task) -> HeldAnswers:
    """Let the policy that the run starts from answer the held-out prompts. No trainer may be there yet."""
    crew, folder = Crew(), task.folder / ROLLOUTS
    if crew.writes and not task.resume:
        shutil.rmtree(folder, ignore_errors=True)
    held = HeldAnswers(task, folder, task.run.model_dump(mode="json", include=set(DECIDING)), crew)
    origin = find_origin(task)
    held.write_by_weights(BEFORE, origin, origin)
    free_memory()
    return held


def write_held_after(task: Task, held: HeldAnswers, trained: TrainerPolicy) -> None:
    """Let the trained policy answer the held-out prompts, in place of the answers at an earlier end of the run."""
    if trained.accelerator.is_main_process:
        for part in (AFTER, COMPARED):
            shutil.rmtree(task.folder / ROLLOUTS / part, ignore_errors=True)
    trained.accelerator.wait_for_everyone()
    with gather_for_generation(trained.model, trained.policy, task.run.scale.zero == 3):
        autocast = trained.accelerator.autocast
        held.write(AFTER, make_policy_writer(trained.policy, task.renderer, held.sampling, held.seed, autocast))


def _make_trainer(
    run: ExpertRun,
    arguments: Mapping[str, Any],
    model: Any,
    renderer: Renderer,
    prompts: Sequence[Prompt],
    rewards: GroupRewards,
    weights: Mapping[str, float],
) -> Any:
    policy = run.policy
    assert isinstance(policy, GrpoPolicy | RlooPolicy)
    config, made = TRAINERS[policy.method]
    functions = rewards.list_functions()
    own = [1.0 if function.__name__ == TOTAL else weights[function.__name__] for function in functions]
    trainer = made(
        model=model,
        reward_funcs=functions,
        args=config(**arguments, reward_weights=own),
        train_dataset=Dataset.from_list(
            [{"prompt": [dict(turn) for turn in each.messages], "id": each.id} for each in order_prompts(prompts, run)]
        ),
        processing_class=renderer.tokenizer,
        callbacks=[History(Path(run.output) / "history.jsonl"), StepSeed()],
    )
    trainer.parts = GroupParts(
        renderer, {each.id: each for each in prompts}, run.sampling, choose_layout(run, [model]), run.scale.zero == 3
    )
    return trainer


def make_arguments(run: ExpertRun) -> dict[str, Any]:
    """Make the keyword arguments of TRL's configuration, all but the weights.

    A batch of the recipe counts prompts, and TRL's counts answers.

    Raises:
        RecipeError: a group has one answer, or TRL does not know the engine.
    """
    policy, sampling, optimisation = run.policy, run.sampling, run.optimisation
    assert isinstance(policy, GrpoPolicy | RlooPolicy)
    if sampling.count < 2:
        raise RecipeError(f"sampling.count: {policy.method} compares answers to one prompt; use 2 or more")
    if sampling.engine == "server":
        raise RecipeError(f"sampling.engine: {policy.method} writes its own answers; use process or vllm")
    if run.watch.save_every % policy.iterations:
        raise RecipeError(
            f"watch.save_every: must be a multiple of policy.iterations, {policy.iterations}: a checkpoint between two "
            "updates on the same answers cannot be resumed"
        )
    return {
        **make_trainer_arguments(run, evaluate=False),
        "num_train_epochs": 1,  # see order_prompts
        "shuffle_dataset": False,
        "per_device_train_batch_size": optimisation.batch * sampling.count,
        "num_generations": sampling.count,
        "max_completion_length": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "generation_kwargs": {"min_new_tokens": sampling.min_tokens},
        "use_vllm": sampling.engine == "vllm",
        "beta": policy.kl,
        "epsilon": policy.clip,
        "num_iterations": policy.iterations,
    }
