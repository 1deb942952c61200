"""LoRA adapters that PEFT saved with a reward head: TRL's ``RewardTrainer`` with ``peft_config``, LLaMA-Factory."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tureen_core.adapter_files import PREFIX, WEIGHTS, read_adapter
from tureen_core.artifact_tensors import HEAD
from tureen_core.head_rule import HeadRule
from tureen_core.lora import SoupError
from tureen_core.plain.checkpoint import Checkpoint
from tureen_core.plain.form import Form, FormReading, Reference
from tureen_core.plain.linear_heads import is_causal, load_float32, make_head
from tureen_core.plain.named_heads import apply_layer
from tureen_core.plain.options import PlainError, PlainOptions

# as PEFT 0.21 saves it, as early versions did, and LLaMA-Factory's value_head.safetensors
HEADS = (
    f"{PREFIX}{HEAD}",
    f"{PREFIX}{HEAD}.modules_to_save",
    f"{PREFIX}{HEAD}.modules_to_save.default",
    "v_head.summary",
)


def open_adapted_states(
    checkpoint: Checkpoint, weight: Tensor, bias: Tensor | None, output: str, at: int = -1
) -> Reference:
    """Open an adapter by PEFT on its base in float32, which scores one text at a time, at token ``at``.

    Raises:
        PlainError: a weight of the base is missing, or PEFT finds no place for one of the adapter's.
    """
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    assert checkpoint.base is not None
    config = LoraConfig.from_pretrained(str(checkpoint.folder))
    config.task_type, config.modules_to_save, config.base_model_name_or_path = None, None, None
    adapted = get_peft_model(load_float32(AutoModelForCausalLM, checkpoint.base), config)
    tensors = {name: each for name, each in load_file(checkpoint.folder / WEIGHTS).items() if ".lora_" in name}
    strange = set_peft_model_state_dict(adapted, tensors).unexpected_keys
    if strange:
        raise PlainError(f"{checkpoint.folder.name}: no module for {min(strange)}; name the base with --adapter-base")
    backbone = adapted.eval().get_base_model().base_model

    def score(ids: Sequence[int]) -> list[float]:
        with torch.inference_mode():
            states = backbone(input_ids=torch.tensor([list(ids)])).last_hidden_state[0]
            rewards: list[float] = apply_layer(states[at], weight, bias, output).tolist()
        return rewards

    return score


def _read_adapter(checkpoint: Checkpoint, options: PlainOptions, tokenizer: Any) -> FormReading:
    name = checkpoint.folder.name
    if checkpoint.base is None or not is_causal(checkpoint):
        raise PlainError(f"{name}: this form is an adapter of a causal model; its base is another model")
    head = _find_head(checkpoint)
    if head is None:
        raise PlainError(
            f"{name}: the adapter has no head ({HEAD}.weight), and a new one would be random; train it again with "
            f"task_type SEQ_CLS, which saves the head with the adapter"
        )
    try:
        read_adapter(checkpoint.folder, name, (HEAD,))
    except SoupError as error:
        raise PlainError(str(error)) from error
    _check_places(checkpoint, checkpoint.base)
    weight = checkpoint.read_tensor(f"{head}.weight")
    bias = checkpoint.read_tensor(f"{head}.bias") if f"{head}.bias" in checkpoint.shapes else None
    output = options.output or "value"
    rule = HeadRule(kind="layers", output=output)
    stored = make_head(checkpoint, {"0.weight": weight} | ({} if bias is None else {"0.bias": bias}), rule)
    before_end = options.pooling == "last"
    return FormReading(
        labels=("reward",) if len(weight) == 1 else (),
        open_reference=lambda: open_adapted_states(checkpoint, weight, bias, output, -2 if before_end else -1),
        rule=rule,
        head=stored,
        pooling=options.pooling or "eos",
        eos="append" if before_end else "none",
        skipped_token=tokenizer.pad_token_id if checkpoint.adapter.get("task_type") == "SEQ_CLS" else None,
        base=checkpoint.base,
    )


def _check_places(checkpoint: Checkpoint, base: Path) -> None:
    """Compare the widths of the adapter's factors with those of the base's weights.

    Raises:
        PlainError: the base has no such module, or one of another size.
    """
    from safetensors import safe_open

    shapes: dict[str, list[int]] = {}
    for path in base.glob("*.safetensors"):
        with safe_open(path, framework="pt") as shard:
            shapes |= {key: shard.get_slice(key).get_shape() for key in shard.keys()}  # noqa: SIM118
    for name, shape in checkpoint.shapes.items():
        module, factor, _ = name.removeprefix(PREFIX).rpartition(".lora_A.")
        if not factor:
            continue
        found = shapes.get(f"{module}.weight", [0, 0])
        if found[-1] != shape[1]:
            raise PlainError(
                f"{checkpoint.folder.name}: {module} reads {shape[1]} units in the adapter and {found[-1]} in the base "
                f"{base.name}; name the right one with --adapter-base"
            )


def _find_head(checkpoint: Checkpoint) -> str | None:
    found = checkpoint.find_tensor(*(f"{head}.weight" for head in HEADS))
    return found and found.removesuffix(".weight")


def _fits_adapter(checkpoint: Checkpoint) -> bool:
    task = checkpoint.adapter.get("task_type")
    return bool(checkpoint.adapter) and (task == "SEQ_CLS" or _find_head(checkpoint) is not None)


ADAPTER = Form(
    "adapter",
    "`adapter_config.json` of a LoRA with task `SEQ_CLS` and `score.weight` (TRL with `peft_config`), or with "
    "`v_head.summary.weight` in `value_head.safetensors` (LLaMA-Factory)",
    _fits_adapter,
    _read_adapter,
)
