"""Decide which Hugging Face models give the same hidden states for packed texts as for each text alone.

First the configuration is read. If the model's weights are loaded, the model also runs a small batch both ways, since
no attribute of a model is enough to tell.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.modeling_layers import GradientCheckpointingLayer

from tureen_core.packed.attention import NAME, run_packed
from tureen_core.packed.layout import Blend, PackedBatch, PlainText, pack_texts

LAYERS = {"full_attention", "sliding_attention"}
MOVING = {"dynamic", "longrope"}
SINKS = {"gpt_oss"}
EXACT, CLEAR, MARGIN = 1e-3, 0.02, 2.0


def find_packing_obstacle(model: Any, longest: int | None = None) -> str | None:
    """Say why this model cannot run packed; None if it can.

    Args:
        model: with its weights on their device, and not yet with packed attention.
        longest: None runs the model on a small batch. For a model that cannot run yet (sharded, in training) it is the
            number of tokens of the longest text; then only the configuration is judged, and more strictly.

    Raises:
        torch.AcceleratorError: the accelerator has failed permanently.
    """
    reason = _read_config(model)
    if reason is not None:
        return reason
    if longest is not None:
        return _judge_untried(model, longest)
    before = model.config._attn_implementation
    try:
        with torch.inference_mode():
            return _try_out(model.eval())
    except torch.AcceleratorError:
        raise
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        return summarise_error(error)
    finally:
        model.set_attn_implementation(before)


@torch.inference_mode()
def can_share_prompts(backbone: Any) -> bool:
    """Tell whether a prompt's hidden states do not depend on later tokens, and its cache holds only keys and values.

    The model runs two texts, since no attribute tells this for all models: an encoder's first hidden state changes with
    the last token.
    """
    if any(DynamicCache(config=backbone.config).is_linear):
        return False
    ids = torch.tensor([[1, 1], [1, 2]], device=backbone.device)
    first = backbone(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[:, 0]
    return bool(torch.dist(first[0], first[1]) < 1e-3 * first[0].norm())


def summarise_error(error: BaseException) -> str:
    """Take the first line of an error. For an error of torch.compile it is the line of the backend's own error."""
    cause = getattr(error, "inner_exception", error)
    return (str(cause).strip() or type(cause).__name__).splitlines()[0]


def list_layers(backbone: Any) -> list[nn.Module]:
    """List the decoder or encoder layers of a backbone."""
    return [module for module in backbone.modules() if isinstance(module, GradientCheckpointingLayer)]


def make_sample(blend: Blend, shares: bool) -> tuple[list[PlainText], PackedBatch]:
    """Make a small batch. Its sizes (29 tokens, 51 keys) differ, so that a compiler cannot take them to be equal."""
    prompt, first, second, other = (tuple(range(3, 3 + length)) for length in (11, 3, 5, 10))
    texts = [PlainText(ids, blend) for ids in (prompt + first, prompt + second, other)]
    return texts, pack_texts(texts, dict.fromkeys((0, 1), (prompt, blend)) if shares else {})


def _read_config(model: Any) -> str | None:
    """Find the obstacles that a small batch is too short to show.

    A sliding window is supported, since it is passed to attention. Other limits on what a token sees are not.
    """
    config = model.config.get_text_config()
    others = set(getattr(config, "layer_types", None) or ()) - LAYERS
    if others:
        return f"it has {min(others)} layers"
    if model._is_stateful or not getattr(config, "is_causal", True):
        return "a token depends on more than what attention shows it"
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = {each.get("rope_type") for each in (rope, *rope.values()) if isinstance(each, Mapping)}
    if kinds & MOVING:
        return "its positions depend on the longest text of a batch"
    if getattr(config, "attn_logit_softcapping", None) is not None:
        return "its attention asks for attn_logit_softcapping"
    if config.model_type in SINKS:
        return "its attention asks for sinks (s_aux)"
    if not (model._supports_flash_attn or model._supports_attention_backend):
        return f"{type(model).__name__} knows no packed sequences"
    return None


def _judge_untried(model: Any, longest: int) -> str | None:
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    if window is not None and window < longest and not model._supports_flash_attn:
        return f"its window of {window} tokens is shorter than a text of {longest}, and attention is not told of it"
    if any(getattr(module, "is_causal", True) is False for module in model.modules()):
        return "a token sees those after it"
    return None if model._supports_attention_backend else f"{type(model).__name__} hands nothing on to its attention"


def _try_out(backbone: Any) -> str | None:
    """Compare each layer's hidden states in a packed batch with those of each text alone.

    In 16 bits any two kernels differ, and more so with every layer. So the allowed difference is relative to that
    between the model's eager and sdpa attention. The comparison ends at the layer where those two differ too much. A
    wrong layout already shows in the first layer.
    """
    texts, batch = make_sample((), can_share_prompts(backbone))
    expected = _run_alone(backbone, texts)
    backbone.set_attn_implementation("eager")
    plain = _run_alone(backbone, texts)
    backbone.set_attn_implementation(NAME)
    found = _run_together(backbone, texts, batch)
    judged = 0
    for ours, other, right in zip(found, plain, expected, strict=True):
        noise = _measure_distance(other, right)
        if noise > CLEAR:
            break
        if not _measure_distance(ours, right) <= EXACT + MARGIN * noise:
            return f"layer {judged} gives other states when packed"
        judged += 1
    return None if judged else f"nothing tells in {backbone.dtype} whether {type(backbone).__name__} can be"


def _measure_distance(found: Tensor, expected: Tensor) -> float:
    """Measure the largest relative distance between two hidden states of one token."""
    return float(((found - expected).norm(dim=1) / expected.norm(dim=1)).max())


def _run_alone(backbone: Any, texts: Sequence[PlainText]) -> list[Tensor]:
    """Compute each layer's hidden states ``[N, H]`` of all texts, one text at a time."""
    with _watch_layers(backbone) as seen:
        for text in texts:
            backbone(input_ids=torch.tensor([text.ids], device=backbone.device))
    depth = len(seen) // len(texts)
    return [torch.cat([states[0] for states in seen[layer::depth]]).float() for layer in range(depth)]


def _run_together(backbone: Any, texts: Sequence[PlainText], batch: PackedBatch) -> list[Tensor]:
    """Compute each layer's hidden states ``[N, H]`` of all texts in one packed batch."""
    index, mask = batch.find_texts(range(len(texts)))
    with _watch_layers(backbone) as seen:
        run_packed(backbone, batch)
    places = index[mask.bool()].to(backbone.device)
    return [states[0][places].float() for states in seen]


@contextmanager
def _watch_layers(backbone: Any) -> Iterator[list[Tensor]]:
    """Collect the outputs of the layers, in order, while the block is open."""
    seen: list[Tensor] = []

    def note(_module: nn.Module, _args: Any, out: Any) -> None:
        seen.append(out[0] if isinstance(out, tuple) else out)

    hooks = [layer.register_forward_hook(note) for layer in list_layers(backbone)]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
