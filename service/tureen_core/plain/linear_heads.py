"""Checkpoints with one linear layer on the last token's hidden state: transformers, TRL, OpenRLHF, Skywork."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tureen_core.artifact_tensors import HEAD
from tureen_core.capped_attention import keep_attention_cap
from tureen_core.head_rule import HeadRule, Output
from tureen_core.plain.checkpoint import Checkpoint
from tureen_core.plain.form import Form, FormReading, Reference
from tureen_core.plain.options import PlainError, PlainOptions, count_nouns
from tureen_core.stored_head import HeadError, StoredHead

OWN_BATCHES = {"doge", "jamba", "zamba", "zamba2"}  # padding or a replaced layer changes their numbers or fails
OUTPUTS: dict[str | None, Output] = {"multi_label_classification": "sigmoid"}


def read_labels(checkpoint: Checkpoint, rows: int, options: PlainOptions) -> tuple[str, ...]:
    """Return the labels that the configuration names, or () if it names only ``LABEL_0`` and the like.

    Raises:
        PlainError: the configuration has another number of labels than the head has rows.
    """
    named = checkpoint.config.get("id2label")
    if named is not None and len(named) != rows and not options.objectives:
        raise PlainError(
            f"{checkpoint.folder.name}: config.json has {count_nouns(len(named), 'label')} and the head has "
            f"{count_nouns(rows, 'row')}; correct `id2label`, or name {count_nouns(rows, 'objective')} with "
            "--objectives"
        )
    labels = (
        tuple(str(named[str(index)] if str(index) in named else named[index]) for index in range(rows))
        if (named is not None and len(named) == rows)
        else ()
    )
    return () if all(label == f"LABEL_{index}" for index, label in enumerate(labels)) else labels


def make_head(checkpoint: Checkpoint, tensors: dict[str, Tensor], rule: HeadRule) -> StoredHead:
    """Make a head of the checkpoint's tensors.

    Raises:
        PlainError: they do not fit together.
    """
    try:
        head = StoredHead(tensors, rule)
    except HeadError as error:
        raise PlainError(f"{checkpoint.folder.name}: {error}") from error
    size = checkpoint.text_config.get("hidden_size")
    if size is not None and head.hidden != size:
        raise PlainError(f"{checkpoint.folder.name}: the head reads {head.hidden} units and the model has {size}")
    return head


def is_causal(checkpoint: Checkpoint) -> bool:
    """Whether the model type has a causal language model, whose last token has read the whole text."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_MAPPING_NAMES

    kind = checkpoint.config.get("model_type")
    masked = {"bert", "roberta", "xlm-roberta", "electra", "camembert", "deberta", "deberta-v2", "modernbert"}
    return kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind in MODEL_MAPPING_NAMES and kind not in masked


def load_float32(kind: Any, folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """Load a model by plain transformers, in float32 by default, and refuse one that would get random weights.

    Raises:
        PlainError: a weight is missing, or has another shape than the configuration says.
    """
    model, found = kind.from_pretrained(
        folder,
        dtype=dtype,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    missing = sorted(str(key) for key in found["missing_keys"])
    if missing:
        raise PlainError(
            f"{folder.name}: the weight {missing[0]} is missing, and would be newly initialised, at random; save the "
            "whole model again, with its head"
        )
    if found["mismatched_keys"]:
        key, stored, wanted = min(found["mismatched_keys"])
        raise PlainError(f"{folder.name}: {key} is {list(stored)} and config.json asks for {list(wanted)}; correct it")
    return keep_attention_cap(model).eval().requires_grad_(False)


def open_classifier(folder: Path, output: Output, skips_pad: bool = False) -> Reference:
    """Open the checkpoint's own class for sequence classification, which scores one text at a time, unpadded.

    Args:
        skips_pad: whether the class reads the last token that is not the pad token; else it reads the last one.
    """
    from transformers import AutoModelForSequenceClassification

    model = load_float32(AutoModelForSequenceClassification, folder)
    if not skips_pad:
        model.config.get_text_config().pad_token_id = model.config.pad_token_id = None

    def score(ids: Sequence[int]) -> list[float]:
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([list(ids)])).logits[0]
        found = {"sigmoid": torch.sigmoid, "softmax": lambda each: torch.softmax(each, -1)}.get(output)
        values: list[float] = (found(logits) if found else logits).tolist()
        return values

    return score


def open_headed_backbone(folder: Path, weight: Tensor, mean: float = 0.0, std: float = 1.0) -> Reference:
    """Open a backbone by plain transformers, whose last hidden state is multiplied by ``weight [K, H]``."""
    from transformers import AutoModel

    model = load_float32(AutoModel, folder)

    def score(ids: Sequence[int]) -> list[float]:
        with torch.inference_mode():
            state = model(input_ids=torch.tensor([list(ids)])).last_hidden_state[0, -1]
            values: list[float] = ((weight.float() @ state - mean) / std).tolist()
        return values

    return score


def _read_classifier(checkpoint: Checkpoint, options: PlainOptions, tokenizer: Any) -> FormReading:  # noqa: ARG001
    weight = checkpoint.read_tensor(f"{HEAD}.weight")
    output = options.output or OUTPUTS.get(checkpoint.config.get("problem_type"), "value")
    rule = HeadRule(kind="layers", output=output)
    head = make_head(checkpoint, {"0.weight": weight}, rule)
    before_end = options.pooling == "last"
    return FormReading(
        labels=read_labels(checkpoint, head.rows, options),
        open_reference=lambda: open_classifier(checkpoint.folder, output, skips_pad=before_end),
        rule=HeadRule() if output == "value" else rule,
        head=head,
        pooling=options.pooling or "eos",
        eos="append" if before_end else "none",
        skipped_token=checkpoint.text_config.get("pad_token_id", checkpoint.config.get("pad_token_id")),
    )


def _fits_classifier(checkpoint: Checkpoint) -> bool:
    shape = checkpoint.shapes.get(f"{HEAD}.weight", ())
    return (
        checkpoint.architecture.endswith("ForSequenceClassification")
        and len(shape) == 2
        and f"{HEAD}.bias" not in checkpoint.shapes
        and is_causal(checkpoint)
        and _runs_headless(checkpoint)
    )


def _runs_headless(checkpoint: Checkpoint) -> bool:
    """Whether the backbone runs in batches without its head; else its own class runs whole, see ``class_heads``."""
    import transformers

    kind = getattr(transformers, checkpoint.architecture, None)
    return getattr(kind, "_supports_sdpa", False) and checkpoint.config.get("model_type") not in OWN_BATCHES


def _read_openrlhf(checkpoint: Checkpoint, options: PlainOptions, tokenizer: Any) -> FormReading:  # noqa: ARG001
    config = checkpoint.config
    prefix = _find_openrlhf_prefix(checkpoint) or HEAD
    weight = checkpoint.read_tensor(f"{prefix}.weight")
    normalised = bool(config.get("normalize_reward")) and "mean" in config
    mean, std = (float(config["mean"]), float(config["std"])) if normalised else (0.0, 1.0)
    if not std > 0:
        raise PlainError(f"{checkpoint.folder.name}: `std` of config.json is {std}; a deviation is above 0")
    rule = HeadRule(kind="layers")
    tensors = {"0.weight": weight.float() / std}
    if normalised:
        tensors["0.bias"] = torch.full((len(weight),), -mean / std)
    return FormReading(
        labels=("reward",) if len(weight) == 1 else (),
        open_reference=lambda: open_headed_backbone(checkpoint.folder, weight, mean, std),
        rule=rule,
        head=make_head(checkpoint, tensors, rule),
        eos="append",
        extra_keys=(f"{prefix}.",),
    )


def _find_openrlhf_prefix(checkpoint: Checkpoint) -> str | None:
    """The name of OpenRLHF's head: ``value_head_prefix`` of the configuration, ``value_head`` or ``score``."""
    named = checkpoint.config.get("value_head_prefix")
    names = [named] if isinstance(named, str) else ["value_head", HEAD]
    found = checkpoint.find_tensor(*(f"{name}.weight" for name in names))
    return found and found.removesuffix(".weight")


def _fits_openrlhf(checkpoint: Checkpoint) -> bool:
    theirs = checkpoint.architecture == "RewardModel" or "normalize_reward" in checkpoint.config
    return theirs and _find_openrlhf_prefix(checkpoint) is not None


OPENRLHF = Form(
    "openrlhf",
    "`RewardModel` or `normalize_reward` in config.json, and `score.weight`, `value_head.weight` or the tensor that "
    "`value_head_prefix` names",
    _fits_openrlhf,
    _read_openrlhf,
)
CLASSIFIER = Form(
    "sequence-classification",
    "`...ForSequenceClassification` of a decoder in config.json, and `score.weight` without a bias (TRL, Skywork)",
    _fits_classifier,
    _read_classifier,
)
