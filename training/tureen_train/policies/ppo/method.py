"""PPO as a way to train a policy: from the task to the trained policy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DeepSpeedPlugin, PartialState

from tureen_core.lora import Adapter
from tureen_core.manifest import Probe
from tureen_train.config import ExpertRun
from tureen_train.networks.sharded import gather_weights
from tureen_train.policies.held_answers import HeldAnswers
from tureen_train.policies.method import Metrics, Task, TrainedPolicy
from tureen_train.policies.opening import choose_layout, open_policy, open_start
from tureen_train.policies.ppo.actor_critic import ActorCritic
from tureen_train.policies.ppo.collector import Collector
from tureen_train.policies.ppo.critic import CriticStart, find_critic_start, make_critic
from tureen_train.policies.ppo.learner import PpoLearner
from tureen_train.policies.ppo.trainer import PpoTrainer
from tureen_train.policies.reference import TRAINED, make_reference
from tureen_train.policies.rollouts.crew import Crew
from tureen_train.policies.rollouts.prompts import PromptSet, check_prompts, collect_prompts
from tureen_train.policies.rollouts.rewards import open_rewarder
from tureen_train.runs.folder import ROLLOUTS, update_account
from tureen_train.runs.launch import make_deepspeed_config, require_launcher
from tureen_train.settings import read_rank

# the parts of a recipe that decide what a policy writes and how that is rewarded
DECIDING = ("data", "model", "policy", "rewards", "preferences", "sampling", "optimisation")


@dataclass(frozen=True)
class TrainedByPpo:
    """See :class:`tureen_train.policies.method.TrainedPolicy`."""

    model: Any
    policy: Any
    accelerator: Any
    history: Sequence[Mapping[str, Any]]
    metrics: Metrics
    moved: bool
    tokenizer: Any
    sharded: bool
    adapted: bool
    probes: Sequence[Probe] = ()

    def save(self, folder: Path) -> None:
        """Write the policy, without its critic."""
        trained = [weight for weight in self.policy.parameters() if weight.requires_grad]
        with gather_weights(trained, self.sharded):
            if self.accelerator.is_main_process:
                self.policy.save_pretrained(folder, **({"selected_adapters": [TRAINED]} if self.adapted else {}))
                self.tokenizer.save_pretrained(folder)
        self.accelerator.wait_for_everyone()


def train_ppo(task: Task) -> TrainedPolicy:
    """Train a policy by PPO.

    Raises:
        RecipeError: there is no prompt to answer, a reward or the critic does not fit, or the recipe's settings do not.
        RewardError: too many answers have no reward.
        FloatingPointError: the policy or its critic is broken.
    """
    run, renderer = task.run, task.renderer
    prompts = collect_training_prompts(task)
    # before DeepSpeed is set up: after that, under ZeRO-3, any model that is opened is sharded
    begun, start = open_start(run, task.base), find_critic_start(run, task.base)
    rewarder = None
    if read_rank() == 0:
        rewarder = open_rewarder(
            run.rewards,
            task.folder,
            failed_share=run.failed_share,
            resume=task.resume,
            preferences=run.preferences,
        )
    accelerator = make_accelerator(run)
    model = make_actor_critic(task, begun, start)
    layout = choose_layout(run, model.list_models())
    learner = PpoLearner(accelerator, model, run, layout, renderer.tokenizer.pad_token_id)
    settings = run.model_dump(mode="json", include=set(DECIDING))
    collector = Collector(learner, rewarder, renderer, run.sampling, settings)
    held = HeldAnswers(task, task.folder / ROLLOUTS, settings, Crew())
    trainer = PpoTrainer(run, learner, collector, prompts, held)
    trainer.train(task.resume)
    return TrainedByPpo(
        model=learner.engine,
        policy=model.policy,
        accelerator=accelerator,
        metrics=trainer.compare_held(),
        history=trainer.journal.entries,
        moved=trainer.standing.moved,
        tokenizer=renderer.tokenizer,
        sharded=learner.sharded,
        adapted=run.model.lora is not None,
    )


def collect_training_prompts(task: Task) -> PromptSet:
    """Collect the prompts of the training data, and tell which are left out.

    Raises:
        RecipeError: none is left, or too many are left out.
    """
    found = collect_prompts(task.data.train, task.renderer, task.run.sampling.max_prompt)
    check_prompts(found, task.run.data.most_dropped)
    update_account(task.folder, texts={"prompts": found.report.counts})
    return found


def make_accelerator(run: ExpertRun) -> Accelerator:
    """Make accelerate's view of the ranks, with DeepSpeed where the recipe asks for ZeRO.

    Raises:
        RecipeError: ZeRO is asked for, but no launcher started this process.
    """
    plugin = None
    if run.scale.zero:
        require_launcher()
        config = make_deepspeed_config(run.scale, run)
        own = {"train_micro_batch_size_per_gpu": run.optimisation.batch, "gradient_accumulation_steps": 1}
        plugin = DeepSpeedPlugin(hf_ds_config={**config, **own, "gradient_clipping": run.optimisation.max_grad_norm})
    half = "bf16" if run.model.precision == "bf16" else "no"
    on_cpu = not torch.cuda.is_available()
    if on_cpu and plugin is not None:
        PartialState(cpu=True)  # with both accelerate would ignore one; so the ranks find each other first
    return Accelerator(mixed_precision=half, deepspeed_plugin=plugin, cpu=on_cpu and plugin is None)


def make_actor_critic(task: Task, begun: Adapter | None, start: CriticStart) -> ActorCritic:
    """Make the policy, its critic and its reference.

    Args:
        begun: the adapter from which the policy starts.
        start: what the critic starts from.
    """
    run = task.run
    policy = open_policy(run, task.base, begun)
    reference = make_reference(run, task.base, policy, begun)
    critic = make_critic(start, run, task.renderer.reading)
    return ActorCritic(policy, critic, reference, run.sampling.temperature or 1.0)
