"""A reward model that others trained, as its artifact describes it, in float32."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from tureen_core.artifact import Artifact, read_head
from tureen_core.base import load_tokenizer
from tureen_core.capped_attention import keep_attention_cap
from tureen_core.heads import pool_hidden_states
from tureen_core.plain.class_heads import read_at_end, takes_segments
from tureen_core.special_tokens import TokenizerFrame
from tureen_core.stored_head import apply_output

IMPORT = "import"  # the key of a manifest's recipe


class ImportedModel(nn.Module):
    """Computes ``rewards`` ``[B, K]`` of texts that are padded on the right.

    Attributes:
        base_model: the backbone, which returns hidden states; or the class that computes the rewards itself.
    """

    def __init__(self, artifact: Artifact) -> None:
        from transformers import AutoModel, AutoModelForSequenceClassification

        super().__init__()
        manifest = artifact.manifest
        self.reading, self.rule = manifest.reading, manifest.head
        whole = manifest.head.kind == "model"
        kind: Any = AutoModelForSequenceClassification if whole else AutoModel
        model = kind.from_pretrained(
            artifact.folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False, use_safetensors=True
        )
        self.base_model = keep_attention_cap(model)
        self.head = None if whole else read_head(artifact)
        self.frame = _make_frame(artifact, self.base_model) if whole else None
        if whole:
            read_at_end(self.base_model)
        self.eval().requires_grad_(False)

    def _make_segments(self, text: Tensor) -> dict[str, Tensor]:
        if self.frame is None:
            return {}
        return {"token_type_ids": torch.tensor([self.frame.list_segments(text[0].tolist())], device=text.device)}

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        """Compute the rewards of a batch."""
        if self.head is None:
            # without padding, since some classes look for the last token by the pad id
            lengths = attention_mask.sum(1).tolist()
            texts = [row[:length][None] for row, length in zip(input_ids, lengths, strict=True)]
            logits = [self.base_model(text, **self._make_segments(text)).logits[0] for text in texts]
            return SimpleNamespace(rewards=apply_output(torch.stack(logits).float(), self.rule))
        hidden = self.base_model(input_ids=input_ids, attention_mask=attention_mask)[0]
        pooled = pool_hidden_states(hidden, attention_mask, self.reading.pooling, self.reading.eos == "append")
        return SimpleNamespace(rewards=self.head(pooled))


def _make_frame(artifact: Artifact, model: Any) -> TokenizerFrame | None:
    """Make what tells the ``token_type_ids`` of a text; None for a model or a tokenizer without them."""
    frame, tokenizer = artifact.manifest.reading.frame, load_tokenizer(artifact.folder, own_pad=False)
    if frame == "none" or not takes_segments(model, tokenizer):
        return None
    return TokenizerFrame(tokenizer, pair=frame == "pair")
