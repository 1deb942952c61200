"""How a manifest describes a head that another library trained.

Tureen's own heads are linear without a bias. Other reward models have a bias, hidden layers, a sigmoid, or read the
logits of some tokens of the vocabulary. Each is a function of one pooled hidden state, so each runtime can serve it. A
head of kind ``model`` is not: there the checkpoint's own class computes the rewards.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

Activation = Literal["relu", "tanh", "gelu", "silu"]
Output = Literal["value", "sigmoid", "softmax", "log-odds"]


class HeadRule(BaseModel):
    """How rewards ``[K]`` are computed from a pooled hidden state ``[H]``.

    Attributes:
        kind: ``linear`` for ``score.weight`` of the checkpoint; ``layers`` for the linear layers of
            ``head.safetensors``, named ``0.weight``, ``0.bias``, ``1.weight`` ...; ``model`` for logits that the
            checkpoint's own class for sequence classification computes.
        activations: the function after each layer but the last.
        softcap: the bound c of logits c · tanh(x / c), as Gemma 2 has; None for no bound.
        output: what a reward is. ``value`` is the last layer's output; ``sigmoid`` and ``softmax`` are probabilities of
            it; ``log-odds`` is row 2k + 1 minus row 2k, the logit of the second of two labels or tokens.
        kept: how many of the rewards come out, from the first; None for all. A softmax needs the others too.
        gate_at: the token of the prompt at which a gate reads: ``prompt`` is the last one before the answer, ``turn``
            the one that ends the last turn before it (ArmoRM, arXiv 2406.12845).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["linear", "layers", "model"] = "linear"
    activations: tuple[Activation, ...] = ()
    softcap: PositiveFloat | None = None
    output: Output = "value"
    kept: Annotated[PositiveInt | None, Field(exclude_if=lambda kept: kept is None)] = None
    gate_at: Literal["prompt", "turn"] = "prompt"
