"""Llama-3.1-Nemotron-70B-Reward-HF: a causal model whose reward is the logit of token 0 after the conversation."""

from typing import Any

from tureen_core.head_rule import HeadRule
from tureen_core.plain.backbones import find_own_prefix
from tureen_core.plain.checkpoint import Checkpoint
from tureen_core.plain.form import Form, FormReading
from tureen_core.plain.linear_heads import make_head
from tureen_core.plain.named_heads import apply_layer
from tureen_core.plain.options import PlainError, PlainOptions
from tureen_core.plain.states import open_states


def _read_nemotron(checkpoint: Checkpoint, options: PlainOptions, tokenizer: Any) -> FormReading:  # noqa: ARG001
    name = checkpoint.find_tensor("lm_head.weight", f"{find_own_prefix(checkpoint)}embed_tokens.weight")
    if name is None:
        raise PlainError(f"{checkpoint.folder.name}: the tensor lm_head.weight is missing; save the whole model again")
    weight = checkpoint.read_tensor(name)[:1].clone()
    rule = HeadRule(kind="layers", output=options.output or "value")
    return FormReading(
        labels=("reward",),
        open_reference=lambda: open_states(
            checkpoint.folder, lambda _, states: apply_layer(states[-1], weight, None, rule.output)
        ),
        rule=rule,
        head=make_head(checkpoint, {"0.weight": weight}, rule),
        extra_keys=(),
    )


NEMOTRON = Form(
    "nemotron",
    "only by `--form nemotron`: a causal model whose reward is the logit of token 0 (Llama-3.1-Nemotron-70B-Reward-HF)",
    lambda _: False,
    _read_nemotron,
)
