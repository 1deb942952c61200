"""ArmoRM (``RLHFlow/ArmoRM-Llama3-8B-v0.1``, arXiv 2406.12845): 19 objectives, and a gate that combines them."""

from typing import Any

import torch
from torch import Tensor

from tureen_core.head_rule import HeadRule
from tureen_core.heads import GatedHead
from tureen_core.plain.checkpoint import Checkpoint
from tureen_core.plain.form import Form, FormReading
from tureen_core.plain.linear_heads import make_head
from tureen_core.plain.options import PlainError, PlainOptions
from tureen_core.plain.states import Compute, open_states

HEAD = "regression_layer.weight"
MATRIX = "reward_transform_matrix"
SCALE = "gating.logit_scale"
TEMPERATURE = 10.0  # where config.json has no gating_temperature
OVERALL = "overall"
PATTERN = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"  # the gate reads at its first token
OBJECTIVES = (
    *(f"helpsteer-{each}" for each in ("helpfulness", "correctness", "coherence", "complexity", "verbosity")),
    *(
        f"ultrafeedback-{each}"
        for each in ("overall_score", "instruction_following", "truthfulness", "honesty", "helpfulness")
    ),
    "beavertails-is_safe",
    "prometheus-score",
    "argilla-overall_quality",
    "argilla-judge_lm",
    *(f"code-{each}" for each in ("complexity", "style", "explanation", "instruction-following", "readability")),
)


def count_layers(checkpoint: Checkpoint) -> int:
    """Count the linear layers of the gate."""
    return len([name for name in checkpoint.shapes if name.startswith("gating.layers.") and name.endswith(".bias")])


def read_armorm_gate(checkpoint: Checkpoint) -> GatedHead:
    """Read the gate.

    Raises:
        PlainError: a tensor is missing, has another shape, or holds a value that is not finite.
    """
    depth = count_layers(checkpoint)
    if not depth:
        raise PlainError(f"{checkpoint.folder.name}: the gate (gating.layers.0.weight) is missing")
    tensors = {
        name.removeprefix("gating."): checkpoint.read_tensor(name).float()
        for name in checkpoint.shapes
        if name.startswith("gating.layers.")
    }
    tensors["transform"] = checkpoint.read_tensor(MATRIX).float()
    scale = float(checkpoint.read_tensor(SCALE).float().reshape(-1)[0])
    width, hidden = checkpoint.read_tensor("gating.layers.0.weight").shape
    temperature = float(checkpoint.config.get("gating_temperature", TEMPERATURE))
    gate = GatedHead(hidden, len(tensors["transform"]), width, depth - 1, temperature, scale)
    try:
        gate.load_state_dict({**tensors, "scale": torch.tensor(scale)})
    except RuntimeError as error:
        raise PlainError(f"{checkpoint.folder.name}: the gate does not fit: {' '.join(str(error).split())}") from error
    strange = next((name for name, each in gate.state_dict().items() if not bool(torch.isfinite(each).all())), None)
    if strange is not None or not temperature > 0:
        raise PlainError(f"{checkpoint.folder.name}: the gate's {strange or 'gating_temperature'} cannot be used")
    return gate.eval().requires_grad_(False)


def make_computation(checkpoint: Checkpoint, pattern: list[int]) -> Compute:
    """Make the computation of a reference: the rewards and the overall one, from the checkpoint's own tensors."""
    weight, matrix = checkpoint.read_tensor(HEAD).float(), checkpoint.read_tensor(MATRIX).float()
    scale = checkpoint.read_tensor(SCALE).float().reshape(-1)[0]
    depth = count_layers(checkpoint)
    names = [f"gating.layers.{index}" for index in range(depth)]
    layers = [[checkpoint.read_tensor(f"{name}.{part}").float() for part in ("weight", "bias")] for name in names]
    temperature = float(checkpoint.config.get("gating_temperature", TEMPERATURE))

    def compute(ids: list[int], states: Tensor) -> Tensor:
        places = [at for at in range(len(ids)) if ids[at : at + len(pattern)] == pattern]
        if not places:
            raise PlainError(f"{checkpoint.folder.name}: the chat template writes no header {PATTERN!r}")
        state, rewards = states[places[-1]], weight @ states[-1]
        for index, (each, bias) in enumerate(layers):
            state = each @ state + bias
            state = state.relu() if index < depth - 1 else state
        overall = scale * (torch.softmax(state / temperature, dim=-1) * (rewards @ matrix)).sum()
        return torch.cat([rewards, overall[None]])

    return compute


def _read_armorm(checkpoint: Checkpoint, options: PlainOptions, tokenizer: Any) -> FormReading:
    if options.output not in (None, "value"):
        raise PlainError(f"output: ArmoRM's rewards are values, not a {options.output}; leave it out")
    pattern = tokenizer(PATTERN, add_special_tokens=False)["input_ids"]
    rule = HeadRule(gate_at="turn")
    head = make_head(checkpoint, {"0.weight": checkpoint.read_tensor(HEAD)}, rule)
    gate = read_armorm_gate(checkpoint)
    if (gate.rewards, gate.hidden) != (head.rewards, head.hidden):
        raise PlainError(
            f"{checkpoint.folder.name}: the gate weighs {gate.rewards} rewards of {gate.hidden} units, and the head "
            f"has {head.rewards} of {head.hidden}"
        )
    return FormReading(
        labels=(*OBJECTIVES, OVERALL) if head.rewards == len(OBJECTIVES) else (),
        open_reference=lambda: open_states(checkpoint.folder, make_computation(checkpoint, pattern)),
        rule=rule,
        head=head,
        gate=gate,
        extra_keys=("regression_layer.", MATRIX, "gating."),
    )


ARMORM = Form(
    "armorm",
    "`LlamaForRewardModelWithGating`, or `regression_layer.weight` beside `gating.layers.*` (ArmoRM)",
    lambda checkpoint: checkpoint.architecture.endswith("RewardModelWithGating") or HEAD in checkpoint.shapes,
    _read_armorm,
)
