"""Checkpoints whose own class for sequence classification computes the rewards: encoders, encoder-decoders, others."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tureen_core.head_rule import HeadRule
from tureen_core.plain.checkpoint import Checkpoint
from tureen_core.plain.form import Form, FormReading, Reference
from tureen_core.plain.linear_heads import OUTPUTS, load_float32, read_labels
from tureen_core.plain.options import PlainError, PlainOptions, count_nouns
from tureen_core.plain.templates import choose_frame
from tureen_core.special_tokens import TokenizerFrame

NO_TOKEN = -1  # some configurations refuse None as the pad token
SUFFIX = "ForSequenceClassification"
SEES_PAGES = {"layoutlm", "layoutlmv2", "layoutlmv3", "lilt", "markuplm", "tapas"}
# their first position is the one after the padding's, so they have as many fewer (create_position_ids_from_input_ids)
OFFSET_POSITIONS = {
    *("camembert", "data2vec-text", "esm", "ibert", "jina_embeddings_v3", "longformer", "luke", "mpnet", "roberta"),
    *("roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"),
}
LAST_LAYERS = ("classifier.out_proj.weight", "classification_head.out_proj.weight", "classifier.weight", "score.weight")


def reads_last_token(kind: type) -> bool:
    """Whether a class reads the last token that is no padding, as decoders do. Encoders read the first, or all."""
    return "pad_token_id" in inspect.unwrap(kind.forward).__code__.co_names  # type: ignore[attr-defined]


def read_at_end(model: Any) -> None:
    """Make a decoder read the last token of a text that stands alone in its batch, also where that is the pad token."""
    if reads_last_token(type(model)):
        model.config.get_text_config().pad_token_id = NO_TOKEN


def list_arguments(model: Any) -> set[str]:
    """List the names of the arguments that a class takes."""
    return set(inspect.signature(type(model).forward).parameters)


def takes_segments(model: Any, tokenizer: Any) -> bool:
    """Whether the tokenizer gives ``token_type_ids`` and the model takes them."""
    return "token_type_ids" in tokenizer.model_input_names and "token_type_ids" in list_arguments(model)


def _open_class(
    checkpoint: Checkpoint, rule: HeadRule, tokenizer: Any, frame: TokenizerFrame | None, skips_pad: bool
) -> Reference:
    """Open the checkpoint's own class, which scores one text at a time, unpadded.

    Args:
        skips_pad: whether a decoder reads the last token that is not the pad token; else it reads the last one.
    """
    from transformers import AutoModelForSequenceClassification

    model = load_float32(AutoModelForSequenceClassification, checkpoint.folder)
    if not skips_pad:
        read_at_end(model)
    segments = frame if takes_segments(model, tokenizer) else None

    def compute(ids: Sequence[int]) -> Tensor:
        given = {"input_ids": torch.tensor([list(ids)])}
        if segments is not None:
            given["token_type_ids"] = torch.tensor([segments.list_segments(ids)])
        try:
            with torch.inference_mode():
                logits: Tensor = model(**given).logits[0]
        except (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            name, reason = checkpoint.folder.name, " ".join(str(error).split())[:200]
            raise PlainError(f"{name}: transformers itself cannot run this model on a text: {reason}") from error
        return logits

    def score(ids: Sequence[int]) -> list[float]:
        logits = compute(ids)
        if not torch.equal(logits, compute(ids)):
            raise PlainError(
                f"{checkpoint.folder.name}: {checkpoint.architecture} gives a text another number each time"
            )
        if rule.output == "log-odds":
            logits = logits[1::2] - logits[0::2]
        found = {"sigmoid": torch.sigmoid, "softmax": lambda each: torch.softmax(each, -1)}.get(rule.output)
        values: list[float] = (found(logits) if found else logits).tolist()
        return values

    return score


def _read_class(checkpoint: Checkpoint, options: PlainOptions, tokenizer: Any) -> FormReading:
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

    config = _read_config(checkpoint)
    if config.model_type in SEES_PAGES:
        raise PlainError(
            f"{checkpoint.folder.name}: {checkpoint.architecture} reads pages or tables, not conversations"
        )
    output = options.output or OUTPUTS.get(config.problem_type, "value")
    rule = HeadRule(kind="model", output=output)
    decodes = reads_last_token(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)])
    if options.pooling is not None and not decodes:
        raise PlainError(f"pooling: {checkpoint.architecture} reads where its own code says; leave it out")
    frame = _make_frame(tokenizer, choose_frame(options.template, framed=not decodes), checkpoint)
    return FormReading(
        labels=_name_rewards(checkpoint, config.num_labels, options, rule),
        open_reference=lambda: _open_class(checkpoint, rule, tokenizer, frame, skips_pad=options.pooling == "last"),
        rule=rule,
        pooling=options.pooling or "eos",
        skipped_token=config.get_text_config().pad_token_id if decodes else None,
        framed=not decodes,
        positions=_count_positions(config),
    )


def _read_config(checkpoint: Checkpoint) -> Any:
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as KNOWN

    kind = checkpoint.config.get("model_type")
    if kind not in KNOWN:
        raise PlainError(f"{checkpoint.folder.name}: the installed transformers has no class of {kind!r} for rewards")
    return AutoConfig.from_pretrained(checkpoint.folder, local_files_only=True, trust_remote_code=False)


def _make_frame(tokenizer: Any, frame: str, checkpoint: Checkpoint) -> TokenizerFrame | None:
    try:
        return None if frame == "none" else TokenizerFrame(tokenizer, pair=frame == "pair")
    except ValueError as error:
        raise PlainError(f"{checkpoint.folder.name}: {error}; choose another --template or --tokenizer") from error


def _name_rewards(checkpoint: Checkpoint, labels: int, options: PlainOptions, rule: HeadRule) -> tuple[str, ...]:
    """Name the rewards by the labels of the configuration, or by numbers."""
    last = checkpoint.find_tensor(*LAST_LAYERS)
    rows = labels if last is None else checkpoint.shapes[last][0]
    if rows != labels:
        raise PlainError(
            f"{checkpoint.folder.name}: config.json has {count_nouns(labels, 'label')} and {last} has "
            f"{count_nouns(rows, 'row')}; correct `id2label`"
        )
    if rule.output == "log-odds":
        if rows % 2:
            raise PlainError(f"output: log-odds need two labels for each reward, and the head has {rows}")
        rows //= 2
        named: tuple[str, ...] = ()
    else:
        named = read_labels(checkpoint, rows, options)
    return named or (("reward",) if rows == 1 else tuple(f"reward-{index}" for index in range(rows)))


def _count_positions(config: Any) -> int | None:
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(positions, int) or config.model_type not in OFFSET_POSITIONS:
        return positions if isinstance(positions, int) else None
    return positions - 1 - (1 if config.pad_token_id is None else int(config.pad_token_id))


def _fits_class(checkpoint: Checkpoint) -> bool:
    return checkpoint.architecture.endswith(SUFFIX)


CLASSIFIER_CLASS = Form(
    "classifier-class",
    "any other `...ForSequenceClassification` in config.json: encoders (BERT, RoBERTa, DeBERTa, ModernBERT), "
    "encoder-decoders (T5, BART), and decoders whose head has a bias or several layers",
    _fits_class,
    _read_class,
)
