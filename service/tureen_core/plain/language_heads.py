"""Rewards in the tokens that a language model would write next: logits of tokens as a head on hidden states."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tureen_core.head_rule import HeadRule
from tureen_core.plain.checkpoint import Checkpoint
from tureen_core.plain.form import FormReading, Reference
from tureen_core.plain.linear_heads import load_float32, make_head
from tureen_core.plain.options import PlainError, count_nouns
from tureen_core.stored_head import StoredHead, apply_output

SCALES = ("logit_scale", "lm_head_multiplier", "output_multiplier")  # of Cohere, Falcon H1 and others
DIVISORS = ("logits_scaling",)  # of Granite
CLOSE = 1e-3
LOG_ODDS = HeadRule(kind="layers", output="log-odds")
ASKED = {"role": "user", "content": "?"}
TOLD = {"role": "assistant", "content": "!"}


def find_token(tokenizer: Any, text: str) -> int:
    """Find the id of a token by its text, or by its spelling in the vocabulary, such as ``▁A``.

    Raises:
        PlainError: the text has several tokens, and the vocabulary has no token of this spelling.
    """
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    if len(ids) == 1 and ids[0] != tokenizer.unk_token_id:
        return ids[0]
    spelt: int | None = tokenizer.get_vocab().get(text)
    if spelt is None:
        raise PlainError(
            f"tokens: {text!r} is {count_nouns(len(ids), 'token')} ({ids}) here; name one token of the vocabulary"
        )
    return spelt


def check_answer_token(tokenizer: Any, text: str, finished: bool = False) -> None:
    """Refuse a token whose text would be another one where the assistant writes it, after the generation prompt.

    A token that is named by its spelling in the vocabulary is taken as it is.

    Args:
        finished: whether the verdict follows a finished conversation instead.

    Raises:
        PlainError: the text is read as other tokens there.
    """
    alone: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    if len(alone) != 1:
        return
    try:
        turns = [ASKED, TOLD] if finished else [ASKED]
        opened = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=not finished)
    except Exception as error:  # jinja raises whatever the template says
        raise PlainError(f"template: it refuses a user's turn ({error}); give another with --template") from error
    before: list[int] = tokenizer(opened, add_special_tokens=False)["input_ids"]
    after: list[int] = tokenizer(opened + text, add_special_tokens=False)["input_ids"]
    if after != before + alone:
        written = tokenizer.convert_ids_to_tokens(after[min(len(before), len(after) - 1) :])
        raise PlainError(
            f"tokens: after the template's generation prompt {text!r} is {written} and not "
            f"{tokenizer.convert_ids_to_tokens(alone)}; name the token as the vocabulary spells it"
        )


class LanguageModel:
    """A language model in plain transformers, float32.

    Args:
        checkpoint: of a class with a language head.

    Raises:
        PlainError: it has no language head, or a weight is missing.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        from transformers import AutoModelForCausalLM

        if not checkpoint.architecture.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")):
            raise PlainError(
                f"{checkpoint.folder.name}: {checkpoint.architecture or 'a model without architecture'} has no "
                "language head (lm_head), whose tokens this form reads; use the form of its own head"
            )
        self._checkpoint = checkpoint
        self._model = load_float32(AutoModelForCausalLM, checkpoint.folder)
        self._output = self._model.get_output_embeddings()
        if self._output is None:
            raise PlainError(f"{checkpoint.folder.name}: the model has no lm_head, whose tokens this form reads")

    def make_head(self, rows: Sequence[int], rule: HeadRule) -> StoredHead:
        """Make a head of the language head.

        Args:
            rows: ids of the tokens to read, in this order.
            rule: what a reward is; its softcap is the model's.

        Raises:
            PlainError: the model changes its logits in a way that is not known here.
        """
        chosen = torch.tensor(list(rows))
        scale = self._find_scale()
        tensors = {"0.weight": self._output.weight.detach()[chosen].float() * scale}
        bias = getattr(self._output, "bias", None)
        if bias is not None:
            tensors["0.bias"] = bias.detach()[chosen].float() * scale
        head = make_head(self._checkpoint, tensors, rule)
        self._check_head(head, chosen)
        return head

    @property
    def vocabulary(self) -> int:
        """The number of tokens that the model can write."""
        return len(self._output.weight)

    @property
    def softcap(self) -> float | None:
        """The bound of the logits, as Gemma 2 has."""
        found: float | None = getattr(self._model.config.get_text_config(), "final_logit_softcapping", None)
        return found or None

    def _find_scale(self) -> float:
        config, scale = self._model.config.get_text_config(), 1.0
        for name in (*SCALES, *DIVISORS):
            found = getattr(config, name, None)
            if isinstance(found, int | float) and found:
                scale = scale / found if name in DIVISORS else scale * found
        return scale

    def _check_head(self, head: StoredHead, chosen: Tensor) -> None:
        ids = torch.arange(1, 9).unsqueeze(0)
        with torch.inference_mode():
            hidden = self._model.base_model(input_ids=ids)[0][0, -1]
            logits = self._model(input_ids=ids).logits[0, -1][chosen]
        wanted, found = apply_output(logits, head.rule.model_copy(update={"softcap": None})), head(hidden)
        if not torch.allclose(found, wanted, rtol=CLOSE, atol=CLOSE):
            raise PlainError(
                f"{self._checkpoint.folder.name}: {self._checkpoint.architecture} changes its logits after lm_head in "
                "a way that is not known here, so its tokens cannot be read"
            )

    def read_tokens(self, rows: Sequence[int], rule: HeadRule) -> FormReading:
        """Read the rewards in the logits of tokens.

        Args:
            rows: ids of the tokens, in the order of the rule.
            rule: what a reward is, before the model's softcap.

        Raises:
            PlainError: as :meth:`make_head`.
        """
        rule = rule.model_copy(update={"softcap": self.softcap})
        return FormReading(
            labels=(),
            open_reference=lambda: self.open_reference(rows, rule),
            rule=rule,
            head=self.make_head(rows, rule),
            extra_keys=(),
        )

    def open_reference(self, rows: Sequence[int], rule: HeadRule) -> Reference:
        """Return the function that scores ids by the model's own logits at the last one."""
        chosen = torch.tensor(list(rows))
        uncapped = rule.model_copy(update={"softcap": None})  # the logits are capped already

        def score(ids: Sequence[int]) -> list[float]:
            with torch.inference_mode():
                logits = self._model(input_ids=torch.tensor([list(ids)])).logits[0, -1]
            values: list[float] = apply_output(logits[chosen], uncapped).tolist()
            return values

        return score
