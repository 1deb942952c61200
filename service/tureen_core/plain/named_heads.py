"""Decoders whose reward head has a name of its own: a linear layer, with or without a bias, on one token.

The tensors' names, the token that is read and the templates are those of the published code: DSP (Linear95/DSP,
``model.py`` and ``reward_datasets.py``), UltraRM and Eurus-RM (the model cards), Starling-RM-7B-alpha (the model card),
DeepSpeed-Chat (``training/utils/model/reward_model.py``), TRL (``AutoModelForCausalLMWithValueHead``), LLaMA-Factory
(``value_head.safetensors``) and trlx.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tureen_core.head_rule import HeadRule
from tureen_core.heads import Pooling
from tureen_core.plain.added_tokens import finds_bos, finds_eos
from tureen_core.plain.backbones import plan_renaming
from tureen_core.plain.checkpoint import Checkpoint
from tureen_core.plain.form import Form, FormReading
from tureen_core.plain.linear_heads import make_head
from tureen_core.plain.options import PlainError, PlainOptions
from tureen_core.plain.published_templates import DEEPSPEED_CHAT, DSP, EURUS, STARLING, ULTRARM
from tureen_core.plain.states import open_states

DEEPSPEED_ROOTS = ("rwtranrsformer.", "rwtransformer.")
VALUE_HEADS = ("v_head.summary", "v_head")


@dataclass(frozen=True)
class HeadLayout:
    """A published layout.

    Attributes:
        name: of the form.
        description: how it is recognised.
        heads: names that the head may have, without ``.weight``.
        roots: prefixes that the backbone's tensors may have, where they are not transformers' own.
        architectures: those that the configuration may name; () for any.
        types: the model types; () for any.
        template: the published one. It is used also if the tokenizer has another one.
        specials: whether the published code lets the tokenizer add its special tokens.
        twice: whether its template begins with BOS, and the tokenizer of the published code adds another one.
        ends: whether the published code puts BOS before and EOS after each text by itself.
        unless: a token with which the published template is not the tokenizer's.
        pooling: the token that is read.
    """

    name: str
    description: str
    heads: tuple[str, ...]
    roots: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    template: str | None = None
    specials: bool = False
    twice: bool = False
    ends: bool = False
    unless: str = ""
    pooling: Pooling = "eos"

    def find_head(self, checkpoint: Checkpoint) -> str | None:
        """Find the head's name."""
        found = checkpoint.find_tensor(*(f"{head}.weight" for head in self.heads))
        return found and found.removesuffix(".weight")

    def find_root(self, checkpoint: Checkpoint) -> str | None:
        """Find the prefix of the backbone's tensors, of those in ``roots``."""
        return next((root for root in self.roots if any(key.startswith(root) for key in checkpoint.shapes)), None)

    def fits(self, checkpoint: Checkpoint) -> bool:
        """Tell whether a checkpoint has this layout."""
        named = not self.architectures or checkpoint.architecture in self.architectures
        typed = not self.types or checkpoint.config.get("model_type") in self.types
        placed = not self.roots or "" in self.roots or self.find_root(checkpoint) is not None
        return named and typed and placed and not checkpoint.adapter and self.find_head(checkpoint) is not None

    def read(self, checkpoint: Checkpoint, options: PlainOptions, tokenizer: Any) -> FormReading:
        """Read a checkpoint of this layout."""
        head = self.find_head(checkpoint) or self.heads[0]
        weight = checkpoint.read_tensor(f"{head}.weight")
        bias = checkpoint.read_tensor(f"{head}.bias") if f"{head}.bias" in checkpoint.shapes else None
        output = options.output or "value"
        rule = HeadRule(kind="layers", output=output)
        stored = make_head(checkpoint, {"0.weight": weight} | ({} if bias is None else {"0.bias": bias}), rule)
        root = self.find_root(checkpoint)
        convert = plan_renaming(checkpoint, root) if root else None
        pooling = options.pooling or self.pooling
        return FormReading(
            labels=("reward",) if len(weight) == 1 else (),
            open_reference=lambda: open_states(
                convert() if convert else checkpoint.folder,
                lambda _, states: apply_layer(
                    states[max(len(states) - 2, 0) if pooling == "last" else -1], weight, bias, output
                ),
            ),
            rule=rule,
            head=stored,
            pooling=pooling,
            bos="add" if self.ends or (self.specials and finds_bos(tokenizer)) else "none",
            eos="append" if self.ends or (self.specials and finds_eos(tokenizer)) else "none",
            template=self._write_template(tokenizer),
            own_template=self._has_template(tokenizer),
            extra_keys=(f"{head.split('.')[0]}.",),
            convert=convert,
        )

    def _has_template(self, tokenizer: Any) -> bool:
        return self.template is not None and not (self.unless and self.unless in tokenizer.get_vocab())

    def _write_template(self, tokenizer: Any) -> str | None:
        if not self._has_template(tokenizer):
            return None
        return ("{{ bos_token }}" if self.twice and finds_bos(tokenizer) else "") + str(self.template)

    def make_form(self) -> Form:
        """Make the form."""
        return Form(self.name, self.description, self.fits, self.read)


def apply_layer(state: Tensor, weight: Tensor, bias: Tensor | None, output: str) -> Tensor:
    """Compute the rewards of a state ``[H]`` by a linear layer ``[K, H]``.

    Raises:
        PlainError: a reward is not computed this way.
    """
    logits = torch.nn.functional.linear(state, weight.float(), None if bias is None else bias.float())
    if output == "value":
        return logits
    if output in ("sigmoid", "softmax"):
        return logits.sigmoid() if output == "sigmoid" else logits.softmax(-1)
    raise PlainError(f"output: this form has no {output}; use value, sigmoid or softmax")


NAMED_HEADS = tuple(
    layout.make_form()
    for layout in (
        HeadLayout(
            "dsp",
            "`reward_head.weight` beside `model.*` (Linear95/DSP); the token before EOS is read",
            heads=("reward_head",),
            template=DSP,
            ends=True,
            pooling="last",
        ),
        HeadLayout(
            "ultrarm",
            "`regression_head.weight` beside `model.*`, and model type `llama` (UltraRM)",
            heads=("regression_head",),
            types=("llama",),
            template=ULTRARM,
            specials=True,
        ),
        HeadLayout(
            "eurus",
            "`regression_head.weight` beside `model.*`, and model type `mistral` (Eurus-RM)",
            heads=("regression_head",),
            types=("mistral",),
            template=EURUS,
            specials=True,
        ),
        HeadLayout(
            "deepspeed-chat",
            "`v_head.weight` beside `rwtransformer.*` or `rwtranrsformer.*` (DeepSpeed-Chat)",
            heads=("v_head",),
            roots=DEEPSPEED_ROOTS,
            template=DEEPSPEED_CHAT,
            specials=True,
        ),
        HeadLayout(
            "starling",
            "`v_head.weight` beside `transformer.*`, and model type `llama` (Starling-RM-7B)",
            heads=("v_head",),
            roots=("transformer.",),
            types=("llama",),
            template=STARLING,
            specials=True,
            twice=True,
            unless="<|im_start|>",  # Starling-RM-34B has the same tensors, and ChatML
        ),
        HeadLayout(
            "value-head",
            "`v_head.summary.weight` (TRL's `AutoModelForCausalLMWithValueHead`, LLaMA-Factory) or `v_head.weight` "
            "(trlx, OpenAssistant)",
            heads=VALUE_HEADS,
            roots=("pretrained_model.", "transformer.", ""),
        ),
    )
)
