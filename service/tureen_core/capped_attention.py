"""Attention whose scores are capped by c · tanh(x / c), as in Gemma 2: keep the cap.

transformers runs these models with sdpa by default, and sdpa leaves the cap out without an error
(``integrations/sdpa_attention.py`` ignores ``softcap``). Its eager attention and FlashAttention apply it.
"""

from typing import TypeVar

Model = TypeVar("Model")
CAP = "attn_logit_softcapping"


def keep_attention_cap(model: Model) -> Model:
    """Let a model run eager attention if it has a cap and would run sdpa; other models stay as they are.

    Args:
        model: of transformers, just loaded.

    Returns:
        The same model.
    """
    config = model.config  # type: ignore[attr-defined]
    parts = [config, *(getattr(config, name, None) for name in config.sub_configs)]
    if config._attn_implementation == "sdpa" and any(getattr(part, CAP, None) is not None for part in parts):
        model.set_attn_implementation("eager")  # type: ignore[attr-defined]
    return model
