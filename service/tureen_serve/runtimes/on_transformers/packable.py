"""Which Hugging Face models run packed as they run alone. Tried out on the loaded model, since no attribute says so."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from tureen_serve.runtimes.contract import Row, Weights
from tureen_serve.runtimes.on_transformers.accelerator import mortal
from tureen_serve.runtimes.on_transformers.packed_attention import NAME, forward
from tureen_serve.runtimes.on_transformers.packing import Packing, pack
from tureen_serve.runtimes.on_transformers.scorer import can_share
from tureen_serve.runtimes.on_transformers.sharing import shared

ATTENTIONS = {"full_attention", "sliding_attention"}
EXACT, CLEAR, MARGIN = 1e-3, 0.02, 2.0


def unpackable(backbone: Any) -> str | None:
    """Why this backbone cannot be packed, or None.

    Only what a small batch is too short to show is read off the config.

    Raises:
        Unavailable: the accelerator has failed for good.
    """
    reason = _declared(backbone)
    if reason is not None:
        return reason
    before = backbone.config._attn_implementation
    try:
        with mortal(), torch.inference_mode():
            return _tried(backbone.eval())
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        return gist(error)
    finally:
        backbone.set_attn_implementation(before)


def gist(error: BaseException) -> str:
    """The first line of what went wrong; of a backend of torch.compile, what it raised itself."""
    cause = getattr(error, "inner_exception", error)
    return (str(cause).strip() or type(cause).__name__).splitlines()[0]


def layers_of(backbone: Any) -> list[nn.Module]:
    """The layers that a backbone repeats."""
    return [module for module in backbone.modules() if isinstance(module, GradientCheckpointingLayer)]


def sample(blend: Weights, shares: bool) -> tuple[list[Row], Packing]:
    """A small batch. Its sizes (29 tokens, 51 keys) differ, so that a compiler does not take two of them for one."""
    prompt, first, second, other = (tuple(range(3, 3 + length)) for length in (11, 3, 5, 10))
    rows = [Row(prompt + first, blend, 11), Row(prompt + second, blend, 11), Row(other, blend)]
    return rows, pack(rows, shared(rows) if shares else {})


def _declared(backbone: Any) -> str | None:
    """A window is handed to attention as FlashAttention wants it; other limits on what a token sees are not."""
    config = backbone.config
    others = set(getattr(config, "layer_types", None) or ()) - ATTENTIONS
    if others:
        return f"it has {min(others)} layers"
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = {each.get("rope_type") for each in (rope, *rope.values()) if isinstance(each, Mapping)}
    if kinds & {"dynamic", "longrope"}:
        return "its positions depend on the longest text of a batch"
    return None if backbone._supports_flash_attn else f"{type(backbone).__name__} knows no packed sequences"


def _tried(backbone: Any) -> str | None:
    """Compare each layer's states with those of the texts alone.

    In 16 bits any two kernels differ, more with every layer, so the measure is how far the model's own plain attention
    is from its fast one, up to the layer where that is too much to tell anything. A wrong layout shows in the first.
    """
    rows, packing = sample((), can_share(backbone))
    expected = _alone(backbone, rows)
    backbone.set_attn_implementation("eager")
    plain = _alone(backbone, rows)
    backbone.set_attn_implementation(NAME)
    found = _packed(backbone, rows, packing)
    judged = 0
    for ours, other, right in zip(found, plain, expected, strict=True):
        noise = _apart(other, right)
        if noise > CLEAR:
            break
        if not _apart(ours, right) <= EXACT + MARGIN * noise:
            return f"layer {judged} gives other states when packed"
        judged += 1
    return None if judged else f"nothing tells in {backbone.dtype} whether {type(backbone).__name__} can be"


def _apart(found: Tensor, expected: Tensor) -> float:
    """The largest relative distance of a token's state."""
    return float(((found - expected).norm(dim=1) / expected.norm(dim=1)).max())


def _alone(backbone: Any, rows: list[Row]) -> list[Tensor]:
    """Each layer's states ``[N, H]`` of all texts, run one by one."""
    with _watch(backbone) as seen:
        for row in rows:
            backbone(input_ids=torch.tensor([row.ids], device=backbone.device))
    depth = len(seen) // len(rows)
    return [torch.cat([states[0] for states in seen[layer::depth]]).float() for layer in range(depth)]


def _packed(backbone: Any, rows: list[Row], packing: Packing) -> list[Tensor]:
    """The same of one packed batch."""
    index, mask = packing.texts(range(len(rows)))
    with _watch(backbone) as seen:
        forward(backbone, packing)
    places = index[mask.bool()].to(backbone.device)
    return [states[0][places].float() for states in seen]


@contextmanager
def _watch(backbone: Any) -> Iterator[list[Tensor]]:
    """What the layers give while this is open, in order."""
    seen: list[Tensor] = []

    def note(_module: nn.Module, _args: Any, out: Any) -> None:
        seen.append(out[0] if isinstance(out, tuple) else out)

    hooks = [layer.register_forward_hook(note) for layer in layers_of(backbone)]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
