"""A policy in training: a causal language model that also reads the log-probabilities of given answers' tokens.

Each causal class gets a subclass of the same name. Given an :class:`AnswerBatch`, its ``forward`` runs the backbone on
all tokens, and the LM head only on those that predict an answer's token. Otherwise ``forward`` is the library's, so
that generation, saving, PEFT and TRL see no difference. The LM head runs inside ``forward``: under ZeRO-3 its weights
are whole only there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, wraps
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.modeling_outputs import ModelOutput

from tureen_core.capped_attention import keep_attention_cap
from tureen_core.packed.attention import run_packed
from tureen_train.config import Model, RecipeError
from tureen_train.networks.answer_batch import AnswerBatch

LOGITS_AT_ONCE = 2**26  # 256 MiB in float32
# what some models do to logits after their LM head, by the names in their configurations
AFTER_HEAD = (
    *("final_logit_softcapping", "output_logit_soft_cap", "logits_soft_cap", "logit_scale", "logits_scaling"),
    *("output_multiplier", "lm_head_multiplier", "unpadded_vocab_size"),
)

Head = Callable[[Tensor], Tensor]
ReadTokens = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass
class TokenOutput(ModelOutput):
    """``logprobs [N]`` of the answers' tokens and, where asked for, ``entropies [N]``. Both are float32, in nats."""

    logprobs: Tensor | None = None
    entropies: Tensor | None = None


def load_policy_model(folder: Path, settings: Model, zero: int = 0) -> Any:
    """Load a causal model as a policy. All weights are trainable.

    Args:
        folder: the base, or a whole checkpoint.
        zero: the DeepSpeed stage. Whole weights that are trained in bf16 without it stay in float32, and run under
            autocast.

    Raises:
        RecipeError: the library has no causal class for it, or none whose logits can be read one by one; or the folder
            lacks a weight, which would be random.
    """
    config = AutoConfig.from_pretrained(folder)
    half = settings.precision == "bf16" and (settings.lora is not None or zero > 0)
    model, found = make_policy_class(config).from_pretrained(
        folder,
        config=config,
        dtype=torch.bfloat16 if half else torch.float32,
        attn_implementation=settings.attention,
        output_loading_info=True,
    )
    if found["missing_keys"]:
        raise RecipeError(f"model.base: {folder} has no {min(found['missing_keys'])}; name a whole causal model")
    # a sharded model cannot run before DeepSpeed has it, so there the configuration alone is judged
    model.plain_head = model.plain_head and (zero == 3 or _try_head(model))
    return keep_attention_cap(model)


def make_policy_class(config: Any) -> Any:
    """Make the class of a policy: the causal class whose ``forward`` also takes ``answers``.

    Its attribute ``plain_head`` says whether the logits are what the LM head returns. Then the head runs on a part of
    the tokens at a time, and computes them again in the backward pass. Else the library's ``forward`` computes all
    logits of the answers at once.

    Raises:
        RecipeError: the library has no causal class for the configuration, or none whose logits can be read one by one.
    """
    causal = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if causal is None or "logits_to_keep" not in signature(causal.forward).parameters:
        raise RecipeError(f"model.base: {config.model_type} cannot be trained as a policy; name another base")

    def __init__(self: Any, config: Any) -> None:
        causal.__init__(self, config)
        text = config.get_text_config()
        self.plain_head = all(text.to_dict().get(name) is None for name in AFTER_HEAD)

    @wraps(causal.forward)  # the library finds the arguments of `forward` by its signature
    def forward(
        self: Any,
        *args: Any,
        answers: AnswerBatch | None = None,
        temperature: float = 1.0,
        with_entropies: bool = False,
        **kwargs: Any,
    ) -> Any:
        if answers is None:
            return causal.forward(self, *args, **kwargs)
        head: Head = self.get_output_embeddings() if self.plain_head else nn.Identity()
        states = _read_states(self, answers) if self.plain_head else _read_logits(self, causal, answers)
        read = partial(_read_part, head, temperature=temperature, with_entropies=with_entropies)
        width = self.config.get_text_config().vocab_size
        logprobs, entropies = _read_in_parts(read, states, answers.targets.to(states.device), width)
        return TokenOutput(logprobs=logprobs, entropies=entropies if with_entropies else None)

    members = {"__init__": __init__, "forward": forward, "__module__": __name__}
    return type(causal.__name__, (causal,), members)


def _read_states(model: Any, answers: AnswerBatch) -> Tensor:
    """Compute the hidden states ``[N, H]`` that predict the answers' tokens."""
    device = model.device
    if answers.packing is None:
        ids, mask = answers.ids.to(device), answers.attention_mask.to(device)
        states = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)[0].flatten(0, 1)
    else:
        states = run_packed(model.base_model, answers.packing, device=device)
    found: Tensor = states.index_select(0, answers.places.to(device))
    return found


def _read_logits(model: Any, causal: Any, answers: AnswerBatch) -> Tensor:
    """Compute the logits ``[N, V]`` that predict the answers' tokens by the library's ``forward``."""
    device, places = model.device, answers.places.to(model.device)
    if answers.packing is not None:
        return run_packed(partial(causal.forward, model, logits_to_keep=places), answers.packing, device=device)
    ids, mask = answers.ids.to(device), answers.attention_mask.to(device)
    columns, where = torch.unique(places % ids.shape[1], return_inverse=True)
    out = causal.forward(model, input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=columns)
    found: Tensor = out.logits[places // ids.shape[1], where]
    return found


def _read_in_parts(read: ReadTokens, states: Tensor, targets: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Read tokens a part at a time, and compute each part again in the backward pass.

    So only one part's logits are in memory. Under ZeRO-3 there is one part: a head that runs again there may find its
    weights sharded.

    Args:
        width: the number of logits of a token.
    """
    part = max(1, LOGITS_AT_ONCE // width)
    if len(targets) <= part or is_deepspeed_zero3_enabled():
        return read(states, targets)
    pieces = zip(states.split(part), targets.split(part), strict=True)
    found = [checkpoint(read, *each, use_reentrant=False) for each in pieces]
    logprobs, entropies = zip(*found, strict=True)
    return torch.cat(logprobs), torch.cat(entropies)


def _read_part(
    head: Head, states: Tensor, targets: Tensor, *, temperature: float, with_entropies: bool
) -> tuple[Tensor, Tensor]:
    """Compute the log-probabilities and entropies ``[P]`` of P tokens; the entropies are empty if not asked for."""
    logprobs = torch.log_softmax(head(states).float() / temperature, -1)
    entropies = -(logprobs.exp() * logprobs).sum(-1) if with_entropies else logprobs.new_zeros(0)
    return logprobs.gather(1, targets[:, None])[:, 0], entropies


@torch.no_grad()
def _try_head(model: Any) -> bool:
    """Tell whether a few logits are what the LM head makes of the last hidden states."""
    ids = torch.arange(1, 5, device=model.device)[None]
    logits = model.eval()(input_ids=ids).logits
    states = model.base_model(input_ids=ids, use_cache=False)[0]
    return torch.allclose(model.get_output_embeddings()(states).float(), logits.float(), atol=1e-3)
