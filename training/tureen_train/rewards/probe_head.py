"""A start for the score head: linear probing on frozen features, before anything else is trained.

With a random head the first steps of training search a direction that the features already have, and distort the
features meanwhile. Probing first and fine-tuning after avoids both (Kumar et al., arXiv 2202.10054).
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tureen_train.networks.tensor_cache import load_or_compute
from tureen_train.rewards.collate import EncodedRecords


def start_from_probe(model: Any, records: EncodedRecords, decay: float, base: str, cache: Path) -> None:
    """Set the first row of ``model.score`` to a ridge-penalised ranking head on the frozen, pooled hidden states.

    Args:
        model: the model before its adapter is added.
        records: the training records.
        decay: λ of λ/2·‖w‖² on features of unit spread. 0.1 leaves most of the learning to the fine-tuning.
        base: the digest of the model's weights.
        cache: where features are cached, for the next objective on the same texts.
    """
    path = cache / "features" / f"{_name(model, records, base)}.safetensors"
    features = _features(model, records, path)
    spread = features.std(0).mean().clamp(min=1e-6)  # 0 for equal features, which give a head of zeros
    gaps = _gaps(features / spread, records)
    if not len(gaps):
        return  # no comparable pair: the head stays random
    weight = fit_ranking_head(gaps, decay) / spread
    with torch.no_grad():
        model.score.weight[0] = weight


def _gaps(features: Tensor, records: EncodedRecords) -> Tensor:
    """Features of the better answer minus those of the worse one, for every comparable pair, ``[P, H]``."""
    gaps, start = [], 0
    for item in records.items:
        own = features[start : start + len(item.ids)]
        gaps += [own[better] - own[worse] for better, worse in item.pairs]
        start += len(item.ids)
    return torch.stack(gaps) if gaps else features[:0]


def fit_ranking_head(gaps: Tensor, decay: float) -> Tensor:
    """Minimise mean −ln σ(gaps·w) + λ/2·‖w‖² over w by L-BFGS. Takes ``gaps [P, H]`` and returns w ``[H]``."""
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
    """Pooled hidden states of all answers, ``[M, H]`` float32, in the order of the records."""
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
    """A digest of the texts, of how they are read, and of the weights."""
    quantised = str(getattr(model.config, "quantization_config", None))
    seen = [base, model.config.tureen_reading, str(model.dtype), quantised]
    digest = hashlib.sha256(json.dumps(seen, sort_keys=True).encode())
    for item in records.items:
        digest.update(json.dumps(item.ids).encode())
    return digest.hexdigest()[:24]
