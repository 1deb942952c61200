"""A reward model in training: a causal language model with a score head beside its LM head.

Each backbone gets a class made from its own causal class, so that ``save_pretrained``, PEFT and DeepSpeed treat both
alike. Both heads run inside ``forward``: under ZeRO-3 their weights are whole only there.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from torch import Tensor
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig
from transformers.modeling_outputs import ModelOutput

from tureen_core.artifact import HEAD
from tureen_core.capped_attention import keep_attention_cap
from tureen_core.heads import LinearHead, pool_hidden_states
from tureen_core.packed.attention import run_packed
from tureen_core.packed.layout import PackedBatch
from tureen_core.reading import Reading
from tureen_train.config import Lora, Model, RecipeError
from tureen_train.networks.likelihood import compute_token_nll
from tureen_train.networks.quantised import make_quantisation
from tureen_train.networks.sharded import gather_weights


@dataclass
class RewardOutput(ModelOutput):
    """``rewards [M, K]``; where asked for, ``nll [M]`` and ``token_rewards [M, T]``. All are float32."""

    rewards: Tensor | None = None
    nll: Tensor | None = None
    token_rewards: Tensor | None = None


def make_reward_config(folder: Path, reading: Reading, objectives: int = 1) -> Any:
    """Load the configuration in ``folder``, and add the reading and the number of objectives to it."""
    config = AutoConfig.from_pretrained(folder)
    config.num_labels = objectives
    config.tureen_reading = reading.model_dump()
    return config


def make_reward_class(config: Any) -> Any:
    """Make the class of a reward model: the backbone's causal class with a score head of ``config.num_labels`` rows.

    Raises:
        RecipeError: the library has no causal class for the backbone.
    """
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise RecipeError(f"model.base: {config.model_type} is not a causal language model; name another base")
    causal = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]

    def __init__(self: Any, config: Any) -> None:
        causal.__init__(self, config)
        self.score = LinearHead(config.hidden_size, config.num_labels)
        self.reading = Reading(**config.tureen_reading)
        self.post_init()

    def forward(
        self: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        imitated: Tensor | None = None,
        everywhere: bool = False,
        reads: Tensor | None = None,
        packing: PackedBatch | None = None,
        **_: Any,
    ) -> RewardOutput:
        """Compute rewards ``[M, K]`` of texts ``[M, T]``.

        Args:
            imitated: ``[M, T]``, the tokens to imitate; the output then has their ``nll``.
            everywhere: whether to compute also the first row's reward at each token.
            reads: ``[M, R]``, the tokens to read; the rewards are then ``[M, R, K]``, undefined where it is negative.
            packing: the same texts packed; the backbone runs on it instead of on the padded ids.
        """
        hidden = _hidden(self.base_model, input_ids, attention_mask, packing)
        if reads is None:
            pooled = pool_hidden_states(hidden, attention_mask, self.reading.pooling, self.reading.eos == "append")
        else:
            pooled = hidden[torch.arange(len(hidden), device=hidden.device)[:, None], reads.clamp(min=0)]
        rewards = self.score(pooled)
        nll = None if imitated is None else _nll(self, hidden, input_ids, imitated)
        tokens = self.score(hidden)[..., 0] if everywhere else None
        return RewardOutput(rewards=rewards, nll=nll, token_rewards=tokens)

    members = {
        "__init__": __init__,
        "forward": forward,
        "__module__": __name__,
        # a base has no score head and a classifier no LM head: the library need not warn
        "_keys_to_ignore_on_load_missing": [rf"^{HEAD}\.weight$", r"^lm_head\.weight$"],
    }
    return type(f"Reward{causal.__name__}", (causal,), members)


def _hidden(backbone: Any, ids: Tensor, mask: Tensor, packing: PackedBatch | None) -> Tensor:
    """Hidden states ``[M, T, H]`` of each text; undefined on padding."""
    if packing is None:
        padded: Tensor = backbone(input_ids=ids, attention_mask=mask, use_cache=False)[0]
        return padded
    places, _ = packing.find_texts(range(len(packing.segments)))
    if places.shape != ids.shape:
        raise ValueError(f"packing and ids are of different texts: {list(places.shape)} and {list(ids.shape)}")
    states = run_packed(backbone, packing, device=ids.device)
    texts: Tensor = states.index_select(0, places.flatten().to(ids.device)).unflatten(0, ids.shape)
    return texts


def _nll(model: Any, hidden: Tensor, ids: Tensor, imitated: Tensor) -> Tensor:
    """The nll of the texts with tokens to imitate. One text always runs, since all ranks must use the LM head."""
    rows = imitated.any(1).nonzero().flatten()
    rows = rows if len(rows) else rows.new_zeros(1)
    nll = compute_token_nll(model.lm_head(hidden[rows]), ids[rows], imitated[rows])
    return torch.zeros(len(ids), device=nll.device, dtype=nll.dtype).index_copy(0, rows, nll)


def load_reward_model(
    folder: Path, settings: Model, reading: Reading, zero: int = 0, rows: int = 1, renew: bool = False
) -> Any:
    """Load a backbone with a score head. All weights are trainable.

    Args:
        folder: the base, which gets a new head, or a full checkpoint with a head.
        zero: the DeepSpeed stage. Stage 3 wants all parameters, the head too, in one dtype.
        rows: rows of the head.
        renew: whether the folder has a head that is not wanted, but a new one.
    """
    config = make_reward_config(folder, reading, rows)
    half = settings.precision == "bf16" and (settings.lora is not None or zero > 0)
    dtype = torch.bfloat16 if half else torch.float32
    opener = make_reward_class(config)
    model = opener.from_pretrained(
        folder,
        config=config,
        dtype=dtype,
        attn_implementation=settings.attention,
        quantization_config=make_quantisation(settings),
        ignore_mismatched_sizes=renew,  # of the head
    )
    if renew:
        with gather_weights([model.score.weight], zero == 3), torch.no_grad():
            model.score.weight.normal_(0.0, config.initializer_range)
    if zero < 3:
        model.score.float()
    return keep_attention_cap(model)


def add_lora(model: Any, settings: Model, zero: int = 0) -> Any:
    """Freeze the backbone and add the recipe's LoRA. The head is trained in full."""
    assert settings.lora is not None
    if settings.quantise:
        checkpoints = {"use_reentrant": False}
        model = prepare_model_for_kbit_training(model, settings.gradient_checkpointing, checkpoints)
    return get_peft_model(model, make_lora_config(settings.lora, model, [HEAD]), autocast_adapter_dtype=zero < 3)


def make_lora_config(lora: Lora, model: Any, heads: list[str] | None = None, task: str | None = None) -> LoraConfig:
    """Make PEFT's configuration of a recipe's LoRA.

    Raises:
        RecipeError: the model has no module of a target's name. PEFT would skip that target silently.
    """
    names = {path.rsplit(".", 1)[-1] for path, _ in model.named_modules()}
    for target in lora.targets:
        if target not in names:
            raise RecipeError(f"model.lora.targets: {type(model).__name__} has no module {target!r}; correct the name")
    layers = model.config.num_hidden_layers
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
