"""The prompts of GRPO and RLOO: which TRL can read, and in which order they are answered.

TRL writes the prompts' ids by the tokenizer's template. The server's ids differ where a text holds control marks, which
it reads as plain text; such prompts are left out and counted.
"""

import logging
import random
from collections.abc import Sequence
from pathlib import Path

from tureen_core.template import Renderer
from tureen_train.config import ExpertRun, GrpoPolicy, RecipeError, RlooPolicy
from tureen_train.policies.encoding import encode_prompt
from tureen_train.policies.rollouts.contract import Prompt
from tureen_train.runs.folder import update_account
from tureen_train.settings import count_processes

OTHER_IDS = "whose ids TRL writes otherwise than the server does"

log = logging.getLogger("tureen.train")


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
