"""A score head to start from: linear probing on frozen features, before anything else is trained.

A random head spends the first steps of a small data set on finding a direction that the base knows already, and bends
the features meanwhile; probing first and fine-tuning after avoids both (Kumar et al., arXiv 2202.10054).
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tureen_train.rewards.collate import EncodedRecords
from tureen_train.rewards.features import load_or_compute
from tureen_train.rewards.losses import find_comparable


def start_from_probe(model: Any, records: EncodedRecords, decay: float, base: str, cache: Path) -> None:
    """Set ``model.score`` to the ridge-penalised ranking head of the frozen model's pooled hidden states.

    Args:
        model: before it is adapted; the head's first row is set.
        records: what will be trained on.
        decay: λ of λ/2·‖w‖² on features of unit spread; 0.1 leaves most of what is to learn to the fine-tuning.
        base: digest of the model's weights.
        cache: features of the same texts are kept here, for the next objective on them.
    """
    path = cache / "features" / f"{_name(model, records, base)}.safetensors"
    features = _features(model, records, path)
    spread = features.std(0).mean().clamp(min=1e-6)  # equal features have none, and a head of zero
    gaps = _gaps(features / spread, records)
    if not len(gaps):
        return  # nothing compares, so nothing is learnt
    weight = fit_ranking_head(gaps, decay) / spread
    with torch.no_grad():
        model.score.weight[0] = weight


def _gaps(features: Tensor, records: EncodedRecords) -> Tensor:
    """Better minus worse of every comparable pair, ``[P, H]``."""
    scores = torch.tensor([score for item in records.items for score in item.scores])
    gaps, start = [], 0
    for item in records.items:
        own = slice(start, start + len(item.ids))
        better, worse = find_comparable(scores[own], torch.zeros(len(item.ids))).nonzero(as_tuple=True)
        gaps.append(features[own][better] - features[own][worse])
        start = own.stop
    return torch.cat(gaps)


def fit_ranking_head(gaps: Tensor, decay: float) -> Tensor:
    """argmin over w of mean −ln σ(gaps·w) + λ/2·‖w‖², by L-BFGS; ``gaps [P, H]``, returns ``[H]``."""
    weight = torch.zeros(gaps.shape[1], requires_grad=True)
    solver = torch.optim.LBFGS([weight], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        value = functional.softplus(-(gaps @ weight)).mean() + decay / 2 * weight.square().sum()
        value.backward()
        return value

    solver.step(loss)
    return weight.detach()


def _features(model: Any, records: EncodedRecords, path: Path) -> Tensor:
    """``[answers, H]`` float32, in the records' order."""
    return load_or_compute(path, lambda: {"features": _read(model, records)})["features"]


def _read(model: Any, records: EncodedRecords) -> Tensor:
    seen: list[Tensor] = []
    hook = model.score.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].float().cpu()))
    try:
        with torch.inference_mode():
            for item in records.items:
                for ids in item.ids:
                    row = torch.tensor([ids], device=model.device)
                    model(input_ids=row, attention_mask=torch.ones_like(row))
    finally:
        hook.remove()
    return torch.cat(seen)


def _name(model: Any, records: EncodedRecords, base: str) -> str:
    """One name for the same texts read the same way by the same weights."""
    quantised = str(getattr(model.config, "quantization_config", None))
    seen = [base, model.config.tureen_reading, str(model.dtype), quantised]
    digest = hashlib.sha256(json.dumps(seen, sort_keys=True).encode())
    for item in records.items:
        digest.update(json.dumps(item.ids).encode())
    return digest.hexdigest()[:24]
