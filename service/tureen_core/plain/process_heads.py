"""Process reward models: the log-odds that a step is right, read at its mark. σ of a reward is its probability."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tureen_core.head_rule import HeadRule
from tureen_core.plain.checkpoint import Checkpoint
from tureen_core.plain.form import Form, FormReading, Reference
from tureen_core.plain.judges import refuse_output
from tureen_core.plain.linear_heads import is_causal, load_float32, make_head
from tureen_core.plain.options import PlainError, PlainOptions, count_nouns
from tureen_core.plain.tokenizer import prepare_tokenizer
from tureen_core.step_texts import find_mark_id
from tureen_core.stored_head import StoredHead

BARE = (  # the question as it is; the turns of a longer prompt are parted by line breaks
    "{% for message in messages %}{% if not loop.first %}{{ '\n' }}{% endif %}{{ message['content'] }}{% endfor %}"
)


def write_bare_template(lead: str) -> str:
    """Write a template for a question without any frame, with ``lead`` before its answer."""
    return f"{BARE}{{% if add_generation_prompt %}}{{{{ {lead!r} }}}}{{% endif %}}"


def set_bare_template(tokenizer: Any, checkpoint: Checkpoint, options: PlainOptions, lead: str) -> None:
    """Give a tokenizer the template that the user chose, or a bare one in the place of its own."""
    tokenizer.chat_template = None
    prepare_tokenizer(tokenizer, checkpoint, options, write_bare_template(lead))


def choose_mark(tokenizer: Any, options: PlainOptions, default: str, alone: bool = False) -> str:
    """Choose the mark of a step.

    Args:
        alone: whether the mark is tokenised on its own.

    Raises:
        PlainError: the tokenizer has no token for it.
    """
    mark = options.step_mark or default
    ids: list[int] = tokenizer(mark, add_special_tokens=False)["input_ids"]
    if tokenizer.unk_token_id in ids or not ids or (not alone and find_mark_id(tokenizer, mark) is None):
        raise PlainError(
            f"step_mark: {mark!r} does not end with one token of its own in this tokenizer; name the mark that the "
            "model was trained with by --step-mark"
        )
    return mark


def open_backbone(folder: Path, read: Callable[[Tensor], Tensor]) -> Reference:
    """Open a backbone by plain transformers; ``read`` computes rewards ``[K]`` of its last hidden state ``[H]``."""
    from transformers import AutoModel

    model = load_float32(AutoModel, folder)

    def score(ids: Sequence[int]) -> list[float]:
        with torch.inference_mode():
            found: list[float] = read(model(input_ids=torch.tensor([list(ids)])).last_hidden_state[0, -1]).tolist()
        return found

    return score


def _check_labels(checkpoint: Checkpoint, name: str) -> None:
    if name not in checkpoint.shapes:
        raise PlainError(f"{checkpoint.folder.name}: the tensor {name} is missing; this form reads its labels from it")
    rows = checkpoint.shapes[name][0]
    if rows != 2:
        raise PlainError(
            f"{checkpoint.folder.name}: {name} has {count_nouns(rows, 'label')}; a process reward model has 2, for a "
            "wrong and for a right step"
        )


def _read_parts(head: StoredHead, mark: str, open_reference: Callable[[], Reference], prefix: str) -> FormReading:
    """Read steps that are tokenised on their own after a BOS, each at the mark after it.

    Args:
        prefix: what the names of the head's tensors begin with.
    """
    return FormReading(
        labels=(),
        open_reference=open_reference,
        rule=head.rule,
        head=head,
        input="steps",
        bos="add",
        prepared=True,
        step_mark=mark,
        step_layout="parts",
        extra_keys=(prefix,),
    )


# --------------------------------------------------------------------------- Qwen


def _read_qwen(checkpoint: Checkpoint, options: PlainOptions, tokenizer: Any) -> FormReading:
    """Qwen2.5-Math-PRM (arXiv 2501.07301): two layers, two labels, the mark ``<extra_0>`` after each step."""
    refuse_output(options)
    _check_labels(checkpoint, "score.2.weight")
    rule = HeadRule(kind="layers", activations=("relu",), output="log-odds")
    tensors = {
        f"{layer}.{part}": checkpoint.read_tensor(f"score.{place}.{part}").float()
        for layer, place in enumerate((0, 2))
        for part in ("weight", "bias")
    }
    head = make_head(checkpoint, tensors, rule)

    def read(hidden: Tensor) -> Tensor:
        inner = nn.functional.linear(hidden, tensors["0.weight"], tensors["0.bias"]).relu()
        logits = nn.functional.linear(inner, tensors["1.weight"], tensors["1.bias"])
        return logits[1:] - logits[:1]

    return FormReading(
        labels=(),
        open_reference=lambda: open_backbone(checkpoint.folder, read),
        rule=rule,
        head=head,
        input="steps",
        step_mark=choose_mark(tokenizer, options, "<extra_0>"),
        step_layout="text",
    )


def _fits_qwen(checkpoint: Checkpoint) -> bool:
    return checkpoint.architecture.endswith("ForProcessRewardModel") and "score.2.weight" in checkpoint.shapes


# --------------------------------------------------------------------------- TRL


def _read_labelled(checkpoint: Checkpoint, options: PlainOptions, tokenizer: Any) -> FormReading:
    """TRL's PRMTrainer: BOS and the prompt, each step and its separator tokenised alone; label 1 is a right step."""
    refuse_output(options)
    set_bare_template(tokenizer, checkpoint, options, "")
    prefix = _find_classifier(checkpoint) or "score"
    _check_labels(checkpoint, f"{prefix}.weight")
    rule = HeadRule(kind="layers", output="log-odds")
    tensors = {"0.weight": checkpoint.read_tensor(f"{prefix}.weight")}
    if f"{prefix}.bias" in checkpoint.shapes:
        tensors["0.bias"] = checkpoint.read_tensor(f"{prefix}.bias")
    mark = choose_mark(tokenizer, options, "\n", alone=True)
    head = make_head(checkpoint, tensors, rule)
    return _read_parts(head, mark, lambda: _open_token_classifier(checkpoint.folder), f"{prefix}.")


def _open_token_classifier(folder: Path) -> Reference:
    from transformers import AutoModelForTokenClassification

    model = load_float32(AutoModelForTokenClassification, folder)

    def score(ids: Sequence[int]) -> list[float]:
        with torch.inference_mode():
            wrong, right = model(input_ids=torch.tensor([list(ids)])).logits[0, -1].tolist()
        return [right - wrong]

    return score


def _find_classifier(checkpoint: Checkpoint) -> str | None:
    found = checkpoint.find_tensor("score.weight", "classifier.weight")
    return found and found.removesuffix(".weight")


def _fits_labelled(checkpoint: Checkpoint) -> bool:
    return (
        checkpoint.architecture.endswith("ForTokenClassification")
        and _find_classifier(checkpoint) is not None
        and is_causal(checkpoint)
    )


# --------------------------------------------------------------------------- Skywork


def _read_skywork(checkpoint: Checkpoint, options: PlainOptions, tokenizer: Any) -> FormReading:
    """Skywork-o1-Open-PRM: the value after each step and its line break is the step's logit."""
    refuse_output(options)
    if tokenizer.bos_token_id is None:
        raise PlainError(f"{checkpoint.folder.name}: this form begins with a BOS, and the tokenizer has none")
    set_bare_template(tokenizer, checkpoint, options, "\n")
    tensors = {f"0.{part}": checkpoint.read_tensor(f"v_head.summary.{part}").float() for part in ("weight", "bias")}
    mark = choose_mark(tokenizer, options, "\n", alone=True)
    head = make_head(checkpoint, tensors, HeadRule(kind="layers"))

    def read(hidden: Tensor) -> Tensor:
        return nn.functional.linear(hidden, tensors["0.weight"], tensors["0.bias"])

    return _read_parts(head, mark, lambda: open_backbone(checkpoint.folder, read), "v_head.")


def _fits_skywork(checkpoint: Checkpoint) -> bool:
    return checkpoint.architecture.endswith("ForPrmModel") and "v_head.summary.weight" in checkpoint.shapes


QWEN_PRM = Form(
    "process-reward",
    "`...ForProcessRewardModel` in config.json, and `score.0.weight` and `score.2.weight` (Qwen2.5-Math-PRM)",
    _fits_qwen,
    _read_qwen,
    ("step_mark",),
)
TRL_PRM = Form(
    "token-classification",
    "`...ForTokenClassification` of a decoder in config.json, with two labels (TRL's `PRMTrainer`)",
    _fits_labelled,
    _read_labelled,
    ("step_mark",),
)
SKYWORK_PRM = Form(
    "process-value",
    "`...ForPrmModel` in config.json, and `v_head.summary.weight` (Skywork-o1-Open-PRM)",
    _fits_skywork,
    _read_skywork,
    ("step_mark",),
)
