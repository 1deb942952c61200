"""Score texts by a checkpoint's own class for sequence classification: encoders, encoder-decoders, and others.

Encoders run in padded batches, if padding provably changes no number. Others run one text at a time: an
encoder-decoder reads its reward at the last EOS, a decoder at the last token that is no padding.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tureen.errors import TureenError, Unprocessable
from tureen_core.artifact import Artifact
from tureen_core.head_rule import HeadRule
from tureen_core.plain.class_heads import list_arguments, read_at_end, reads_last_token, takes_segments
from tureen_core.plain.linear_heads import load_float32
from tureen_core.special_tokens import TokenizerFrame
from tureen_core.stored_head import apply_output
from tureen_serve.runtimes.contract import BatchLimits, Rewards, Row
from tureen_serve.runtimes.on_transformers.accelerator import DeviceRuntime
from tureen_serve.runtimes.on_transformers.padding import PAD, group_by_length, pad_sequences
from tureen_serve.runtimes.on_transformers.release import release_weights

LENGTHS = (7, 12)  # tokens of the texts that show whether padding changes a number
CLOSE = {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}  # relative to the larger of 1 and the number


class ClassScorer(DeviceRuntime):
    """One checkpoint of ``…ForSequenceClassification``.

    Args:
        model: the whole model, on its device.
        rule: what a reward is of the logits.
        frame: tells the ``token_type_ids`` of a text; None if the model has none.
        limits: the limits of one batch.
        skips_pad: whether a decoder reads the last token that is not the pad token; else it reads the last one.
    """

    threads = 1

    def __init__(
        self, model: Any, rule: HeadRule, frame: TokenizerFrame | None, limits: BatchLimits, skips_pad: bool = False
    ) -> None:
        super().__init__()
        self.limits = limits
        self._model = model.eval()
        self._rule = rule
        self._frame = frame
        self._arguments = list_arguments(model)
        pad = model.config.get_text_config().pad_token_id
        self._pad = PAD if pad is None else int(pad)
        self._end = model.config.eos_token_id if model.config.is_encoder_decoder else None
        if not skips_pad:
            read_at_end(model)
        obstacle = self._find_padding_obstacle()
        self._pads = obstacle is None
        self.description = "its own class, padded" if obstacle is None else f"its own class, one by one: {obstacle}"

    def run(self, rows: Sequence[Row], fresh: bool = False) -> list[Rewards | TureenError]:  # noqa: ARG002
        """Score rows, in order.

        Raises:
            Unprocessable: the only text of the batch does not fit into the device's memory.
            Unavailable: the accelerator has failed permanently.
        """
        with self._translate_failures(rows), torch.inference_mode():
            return self._run(rows)

    def close(self) -> None:
        """Free the weights."""
        release_weights(self._model)
        del self._model

    def _run(self, rows: Sequence[Row]) -> list[Rewards | TureenError]:
        found: dict[int, Rewards | TureenError] = {}
        segments: dict[int, list[int]] = {}
        for index, row in enumerate(rows):
            try:
                segments[index] = self._read_segments(row.ids)
            except Unprocessable as error:
                found[index] = error
        lengths = {index: len(rows[index].ids) for index in segments}
        for group in group_by_length(lengths) if self._pads else [[index] for index in lengths]:
            logits = self._compute(
                [rows[index].ids for index in group], [segments[index] for index in group], self._pad
            )
            values = apply_output(logits, self._rule)
            for index, columns in zip(group, values, strict=True):
                weight = rows[index].blend[0][1]
                found[index] = Rewards(tuple((weight * columns).tolist()))
        return [found[index] for index in range(len(rows))]

    def _read_segments(self, ids: Sequence[int]) -> list[int]:
        """Return the ``token_type_ids`` of a text, empty if the model has none.

        Raises:
            Unprocessable: the prompt and the answer cannot be told apart, or there is no EOS to read a reward at.
        """
        if self._end is not None and self._end not in ids:
            message = f"this model reads its reward at EOS, and the ids have none; end them with {self._end}"
            raise Unprocessable(message, code="invalid_token_ids")
        return [] if self._frame is None else self._frame.list_segments(ids)

    def _compute(self, texts: Sequence[Sequence[int]], segments: Sequence[Sequence[int]], pad: int) -> Tensor:
        """Compute logits ``[n, K]`` in float32 of texts that are padded to one length with ``pad``."""
        ids, mask = pad_sequences(texts, "right", self._model.device, pad)
        given = {"input_ids": ids}
        if "attention_mask" in self._arguments:
            given["attention_mask"] = mask
        if self._frame is not None:
            given["token_type_ids"] = pad_sequences(segments, "right", self._model.device)[0]
        logits: Tensor = self._model(**given).logits
        return logits.float()

    def _find_padding_obstacle(self) -> str | None:
        """Say why texts must run one by one; None if they can be padded.

        Whatever tokens the padding has, no number may change by a bit; and a text must have nearly the numbers that it
        has alone.
        """
        if self._end is not None or reads_last_token(type(self._model)):
            return "it reads its reward at a token that padding could move"
        if "attention_mask" not in self._arguments:
            return "it does not mask padding"
        config = self._model.config
        size = int(getattr(config.get_text_config(), "vocab_size", 0) or 256)
        generator = torch.Generator().manual_seed(0)
        texts = [torch.randint(size // 2, size, (each,), generator=generator).tolist() for each in LENGTHS]
        segments = [[0] * each for each in LENGTHS]
        others = [each for each in (size // 3, size // 4) if each != self._pad]
        with torch.inference_mode():
            alone = self._compute(texts[:1], segments[:1], self._pad)[0]
            batched, *changed = [self._compute(texts, segments, pad)[0] for pad in (self._pad, *others)]
        if any(not torch.equal(batched, each) for each in changed):
            return "it reads padding"
        allowed = CLOSE[self._model.dtype] * torch.clamp(alone.abs(), min=1)
        return None if bool(((batched - alone).abs() <= allowed).all()) else "padding changes its numbers"


def load_class_scorer(artifact: Artifact, dtype: torch.dtype, device: torch.device, limits: BatchLimits) -> ClassScorer:
    """Load an artifact whose own class computes the rewards.

    Raises:
        PlainError: a weight is missing, or has another shape than the configuration says.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = load_float32(AutoModelForSequenceClassification, artifact.folder, dtype).to(device)
    tokenizer = (
        artifact.plain.tokenizer
        if artifact.plain
        else AutoTokenizer.from_pretrained(artifact.folder, local_files_only=True, trust_remote_code=False)
    )
    reading = artifact.manifest.reading
    framed = reading.frame != "none" and takes_segments(model, tokenizer)
    frame = TokenizerFrame(tokenizer, reading.frame == "pair") if framed else None
    return ClassScorer(model, artifact.manifest.head, frame, limits, skips_pad=reading.pooling == "last")
