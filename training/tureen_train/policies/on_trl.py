"""GRPO and RLOO by TRL's trainers. This is the only file that knows them.

TRL writes the prompts' ids by the tokenizer's template. The server's ids differ where a text holds control marks, which
it reads as plain text; such prompts are left out and counted.
"""

import hashlib
import logging
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import PeftModel, load_peft_weights, set_peft_model_state_dict
from transformers import TrainerCallback, set_seed
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from tureen_core.template import Renderer
from tureen_train.config import ExpertRun, GrpoPolicy, RecipeError, RlooPolicy
from tureen_train.policies.encoding import encode_prompt
from tureen_train.policies.group_rewards import TOTAL, GroupRewards, open_samples
from tureen_train.policies.method import Task, TrainedPolicy
from tureen_train.policies.opening import open_policy, open_start
from tureen_train.policies.rollouts.contract import Prompt
from tureen_train.policies.rollouts.prompts import check_prompts, collect_prompts
from tureen_train.policies.rollouts.rewards import open_rewarder
from tureen_train.policies.rollouts.sampler import find_end_tokens
from tureen_train.policies.trained import TrainerPolicy
from tureen_train.runs.folder import update_account
from tureen_train.runs.history import History
from tureen_train.runs.launch import find_last_checkpoint, make_trainer_arguments
from tureen_train.runs.movement import GradientWatch
from tureen_train.settings import count_processes, read_rank

SAMPLES = "samples.jsonl"
log = logging.getLogger("tureen.train")
OTHER_IDS = "whose ids TRL writes otherwise than the server does"


class StepSeed(TrainerCallback):
    """Seeds each step by its number, so that a resumed run writes the answers of an unbroken one."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Seed the generators of this process."""
        place = f"{args.seed}:{state.global_step}:{read_rank()}".encode()
        set_seed(int.from_bytes(hashlib.sha256(place).digest()[:4], "big"))


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


def train_groups(task: Task) -> TrainedPolicy:
    """Train on groups of answers to one prompt.

    Raises:
        RecipeError: no prompt is left, a group or a batch has an impossible size, or there is nothing to resume.
    """
    run = task.run
    checkpoint = find_last_checkpoint(run) if task.resume else None
    found = collect_prompts(task.data.train, task.renderer, run.sampling.max_prompt)
    check_prompts(found, run.data.most_dropped)
    prompts = select_prompts(found.prompts, task.renderer, task.folder)
    start = open_start(run, task.base)
    arguments = make_arguments(run)  # before the model: they switch on ZeRO-3, which shards it while it loads
    model = open_policy(run, task.base, start)
    ends = find_end_tokens(model.generation_config.eos_token_id, task.renderer)
    model.generation_config.eos_token_id = ends
    rewarder = open_rewarder(
        run.rewards, task.folder, failed_share=run.failed_share, resume=task.resume, preferences=run.preferences
    )
    step = int(checkpoint.rsplit("-", 1)[1]) if checkpoint else 0
    noted = open_samples(task.folder / SAMPLES, step) if read_rank() == 0 else None
    rewards = GroupRewards(rewarder, {each.id: each for each in prompts}, ends, noted)
    watch = GradientWatch()
    trainer = _make_trainer(run, arguments, model, task.renderer, prompts, rewards, rewarder.weights)
    trainer.add_callback(watch)
    if checkpoint is not None:
        trainer.add_callback(AdapterRestorer(checkpoint))
    trainer.train(resume_from_checkpoint=checkpoint)
    return TrainerPolicy(trainer, {}, watch.moved)


def select_prompts(prompts: Sequence[Prompt], renderer: Renderer, folder: Path) -> list[Prompt]:
    """Leave out the prompts whose ids TRL would write otherwise, and those with tools, which it takes for all only.

    Raises:
        RecipeError: none is left.
    """
    kept = [each for each in prompts if not each.template_arguments and _same_ids(each, renderer)]
    lost = {
        "with tools or template arguments": sum(bool(each.template_arguments) for each in prompts),
        OTHER_IDS: sum(not each.template_arguments for each in prompts) - len(kept),
    }
    update_account(folder, groups={"prompts": len(kept), "left_out": lost})
    for why, count in lost.items():
        if count:
            log.info("%d prompts are left out %s", count, why)
    if not kept:
        told = ", ".join(f"{count} {why}" for why, count in lost.items())
        raise RecipeError(f"data.train: no prompt is left to learn from: {told}")
    return kept


def _same_ids(prompt: Prompt, renderer: Renderer) -> bool:
    messages = [dict(turn) for turn in prompt.messages]
    theirs = renderer.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    return list(theirs) == list(encode_prompt(renderer, prompt.messages, {}))


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
    config, trainer = (GRPOConfig, GRPOTrainer) if policy.method == "grpo" else (RLOOConfig, RLOOTrainer)
    functions = rewards.list_functions()
    own = [1.0 if function.__name__ == TOTAL else weights[function.__name__] for function in functions]
    return trainer(
        model=model,
        reward_funcs=functions,
        args=config(**arguments, reward_weights=own),
        train_dataset=Dataset.from_list(
            [{"prompt": [dict(turn) for turn in each.messages], "id": each.id} for each in order_prompts(prompts, run)]
        ),
        processing_class=renderer.tokenizer,
        callbacks=[History(Path(run.output) / "history.jsonl"), StepSeed()],
    )


def order_prompts(prompts: Sequence[Prompt], run: ExpertRun) -> list[Prompt]:
    """List the prompts of all steps in the order in which they are answered, shuffled anew in each epoch.

    TRL's own shuffling begins again at its first order when a run is resumed.

    Raises:
        RecipeError: the prompts do not fill one step.
    """
    optimisation, policy = run.optimisation, run.policy
    assert isinstance(policy, GrpoPolicy | RlooPolicy)
    each_step = optimisation.batch * optimisation.accumulation * max(1, count_processes())
    steps = int(len(prompts) * optimisation.epochs) // each_step
    if optimisation.max_steps > 0:
        steps = -(-optimisation.max_steps // policy.iterations)
    if not steps:
        raise RecipeError(
            f"optimisation: a step answers {each_step} prompts and there are {len(prompts)}: lower batch or "
            "accumulation, or raise epochs"
        )
    ordered: list[Prompt] = []
    epoch = 0
    while len(ordered) < steps * each_step:
        ordered += random.Random(f"{optimisation.seed}:{epoch}").sample(list(prompts), len(prompts))
        epoch += 1
    return ordered[: steps * each_step]


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
