"""A reward model in training: a causal language model with a score head beside its LM head.

One class for each backbone, made from its own causal class, so that ``save_pretrained``, PEFT and DeepSpeed treat it
as they treat that. Both heads run inside ``forward``: under ZeRO-3 their weights exist only there.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_outputs import ModelOutput

from tureen_core.artifact import HEAD, Artifact, read_weights
from tureen_core.heads import LinearHead, pool
from tureen_core.soup import Adapter
from tureen_core.template import Reading
from tureen_train.config import Lora, Model
from tureen_train.rewards.losses import token_nll


@dataclass
class RewardOutput(ModelOutput):
    """``rewards [M, K]`` float32 and, where imitation is trained, ``nll [M]``."""

    rewards: Tensor | None = None
    nll: Tensor | None = None


def reward_class(config: Any) -> Any:
    """The backbone's causal class with a float32 score head of ``config.num_labels`` rows."""
    causal = AutoModelForCausalLM._model_mapping[type(config)]

    def __init__(self: Any, config: Any) -> None:
        causal.__init__(self, config)
        self.score = LinearHead(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(
        self: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        imitated: Tensor | None = None,
        **_: Any,
    ) -> RewardOutput:
        """Rewards of ``[M, T]`` ids; with ``imitated [M, T]`` (tokens to imitate) also their nll."""
        hidden = self.base_model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)[0]
        reading = Reading(**self.config.tureen_reading)
        rewards = self.score(pool(hidden, attention_mask, reading.pooling, reading.eos == "append"))
        if imitated is None:
            return RewardOutput(rewards=rewards)
        return RewardOutput(rewards=rewards, nll=_nll(self, hidden, input_ids, imitated))

    return type(
        f"Reward{causal.__name__}", (causal,), {"__init__": __init__, "forward": forward, "__module__": __name__}
    )


def _nll(model: Any, hidden: Tensor, ids: Tensor, imitated: Tensor) -> Tensor:
    """Likelihood of the texts that have tokens to imitate; one text at least, so that every rank runs the LM head."""
    rows = imitated.any(1).nonzero().flatten()
    rows = rows if len(rows) else rows.new_zeros(1)
    nll = token_nll(model.lm_head(hidden[rows]), ids[rows], imitated[rows])
    return torch.zeros(len(ids), device=nll.device, dtype=nll.dtype).index_copy(0, rows, nll)


def load(folder: Path, settings: Model, reading: Reading, objectives: int = 1, zero: int = 0) -> Any:
    """Load a backbone with a new score head, LoRA on it if asked.

    Args:
        folder: the base, or a full checkpoint whose score head goes on.
        zero: the DeepSpeed stage; under 3 all parameters stay in one dtype and the head with them.
    """
    config = AutoConfig.from_pretrained(folder)
    config.num_labels = objectives
    config.tureen_reading = reading.model_dump()
    dtype = torch.bfloat16 if settings.precision == "bf16" and (settings.lora or zero) else torch.float32
    model = reward_class(config).from_pretrained(
        folder, config=config, dtype=dtype, attn_implementation=settings.attention
    )
    if zero < 3:
        model.score.float()
    if settings.lora is None:
        return model
    return get_peft_model(model, lora_config(settings.lora, model.config, [HEAD]), autocast_adapter_dtype=zero < 3)


def lora_config(lora: Lora, config: Any, heads: list[str] | None = None, task: str | None = None) -> LoraConfig:
    """PEFT's configuration of a recipe's LoRA."""
    layers = config.num_hidden_layers
    top = None if lora.top_layers is None else list(range(max(0, layers - lora.top_layers), layers))
    return LoraConfig(
        task_type=task,
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
        layers_to_transform=top,
        modules_to_save=heads,
    )


def go_on(model: PeftModel, artifact: Artifact) -> None:
    """Load an earlier stage's adapter and head into a LoRA model of the same shape.

    Raises:
        ValueError: its modules or ranks are not the recipe's.
    """
    adapter, head = read_weights(artifact)
    state = adapter_state(adapter, model)
    if head is not None:
        state[f"base_model.model.{HEAD}.weight"] = head
    outcome = set_peft_model_state_dict(model, state)
    if outcome.unexpected_keys:
        raise ValueError(f"{artifact.name} has {outcome.unexpected_keys[0]}, which this recipe's LoRA has not")


def adapter_state(adapter: Adapter, model: PeftModel) -> dict[str, Tensor]:
    """An adapter as PEFT's state dict; its scale is moved from B into the model's own alpha / r."""
    own = model.peft_config["default"]
    scale = own.lora_alpha / own.r
    state: dict[str, Tensor] = {}
    for path, pair in adapter.modules.items():
        if pair.rank != own.r:
            raise ValueError(f"{adapter.name} has rank {pair.rank} at {path} and the recipe's LoRA has {own.r}")
        state[f"base_model.model.{path}.lora_A.weight"] = pair.a.float()
        state[f"base_model.model.{path}.lora_B.weight"] = pair.b.float() * (pair.scale / scale)
    expected = {name for name, _ in model.named_modules() if hasattr(_, "lora_A")}
    missing = expected - {f"base_model.model.{path}" for path in adapter.modules}
    if missing:
        raise ValueError(f"{adapter.name} does not adapt {sorted(missing)[0]}, which this recipe's LoRA does")
    return state
