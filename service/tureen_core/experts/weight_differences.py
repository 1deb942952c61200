"""Approximate what a fine-tune changed in its base by one low-rank term for each linear layer.

What it changed elsewhere (norms, biases, embeddings, the output head) cannot be part of a soup. It counts as energy
that is not captured.
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from tureen_core.experts.low_rank import LowRankTerm, RankChoice, approximate_matrix
from tureen_core.lora import Adapter, SoupError

log = logging.getLogger(__name__)
# fields of config.json that do not change what a model computes
INERT = {
    "architectures",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "use_cache",
    "initializer_range",
    "max_position_embeddings",
    "tie_word_embeddings",
    "id2label",
    "label2id",
}


@dataclass(frozen=True)
class Approximation:
    """An adapter that approximates a difference, and its figures.

    Attributes:
        figures: ``energy``, the captured share of the whole difference; ``lowest_module_energy``, that of the module
            with the least; ``outside_energy``, the share that lies outside of linear layers; ``largest_rank``.
    """

    adapter: Adapter
    figures: Mapping[str, float]


def approximate_difference(base: Any, tuned: Any, choice: RankChoice, name: str) -> Approximation:
    """Approximate the difference of two models of one architecture.

    Args:
        base: a Hugging Face causal model.
        tuned: its fine-tune, on the same device.
        name: the expert's, in the result and in errors.

    Raises:
        SoupError: the models differ in shape or settings, or not at all; a value is not finite; or the terms capture
            less energy than ``choice`` accepts.
    """
    _check_settings(base.config.to_dict(), tuned.config.to_dict(), name)
    own, others = base.state_dict(), tuned.state_dict()
    _check_shapes(own, others, name)
    log.info("%s: computing low-rank terms of its difference from the base", name)
    terms, outside = _split_difference(base, own, others, choice)
    total = sum(term.energy for term in terms.values()) + sum(outside.values())
    if not math.isfinite(total):
        raise SoupError(f"{name}: a weight holds a value that is not finite")
    if not terms:
        what = "only in weights that no LoRA holds" if outside else "in nothing"
        raise SoupError(f"{name}: it differs from the base {what}, so there is no expert to serve")
    figures = _measure_terms(terms, outside, total)
    story = _describe_terms(terms, outside, figures)
    log.info("%s: %s", name, story)
    if not choice.accepts(figures["energy"]):
        raise SoupError(f"{name}: {story}; {choice.least:.4g} is asked: {_advise(figures, choice)}")
    return Approximation(Adapter(name, {path: term.pair for path, term in terms.items()}), figures)


def _check_settings(own: Mapping[str, Any], others: Mapping[str, Any], name: str) -> None:
    for key in sorted(own.keys() & others.keys() - INERT):
        if own[key] != others[key] and not key.startswith("_") and not key.endswith(("_token_id", "dropout")):
            raise SoupError(
                f"{name}: {key} in config.json is {others[key]!r}, and the base's is {own[key]!r}: give its own base"
            )


def _check_shapes(own: Mapping[str, Tensor], others: Mapping[str, Tensor], name: str) -> None:
    for key in sorted(own.keys() | others.keys()):
        shapes = [list(tensors[key].shape) if key in tensors else "missing" for tensors in (others, own)]
        if shapes[0] != shapes[1]:
            raise SoupError(f"{name}: {key} is {shapes[0]} and the base's is {shapes[1]}: give its own base")


def _split_difference(
    base: Any, own: Mapping[str, Tensor], others: Mapping[str, Tensor], choice: RankChoice
) -> tuple[dict[str, LowRankTerm], dict[str, float]]:
    """Split the difference into low-rank terms by module path, and the energy of all other tensors by their names."""
    head = base.get_output_embeddings()
    linears = {
        f"{path}.weight": path
        for path, module in base.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }
    terms: dict[str, LowRankTerm] = {}
    outside: dict[str, float] = {}
    seen: set[tuple[int, int]] = set()
    for key, tensor in own.items():
        storage = (tensor.data_ptr(), others[key].data_ptr())
        if storage in seen:  # a tied head is the embedding once more
            continue
        seen.add(storage)
        difference = others[key].double() - tensor.double()
        if key not in linears or not bool(difference.isfinite().all()):
            if energy := float(difference.square().sum()):
                outside[key] = energy
        elif term := approximate_matrix(difference, choice):
            terms[linears[key]] = term
    return terms, outside


def _measure_terms(terms: Mapping[str, LowRankTerm], outside: Mapping[str, float], total: float) -> dict[str, float]:
    return {
        "energy": sum(term.captured for term in terms.values()) / total,
        "lowest_module_energy": min(term.captured / term.energy for term in terms.values()),
        "outside_energy": sum(outside.values()) / total,
        "largest_rank": max(term.pair.rank for term in terms.values()),
    }


def _describe_terms(
    terms: Mapping[str, LowRankTerm], outside: Mapping[str, float], figures: Mapping[str, float]
) -> str:
    """Tell in one clause how much of the energy is captured, and where it is lost."""
    least = min(terms, key=lambda path: terms[path].captured / terms[path].energy)
    story = (
        f"low-rank terms of rank {figures['largest_rank']} at most in {len(terms)} modules capture "
        f"{figures['energy']:.4f} of the difference's energy, and {figures['lowest_module_energy']:.4f} in {least}"
    )
    if outside:
        most = max(outside, key=lambda key: outside[key])
        story += f"; {figures['outside_energy']:.4f} is outside of linear layers, most of it in {most}"
    return story


def _advise(figures: Mapping[str, float], choice: RankChoice) -> str:
    accepted = f"accept it with --accept-energy {math.floor(figures['energy'] * 1000) / 1000:g}"
    if 1 - figures["outside_energy"] < choice.least:
        return f"no rank can capture that; {accepted}"
    return f"raise --rank or --energy, or {accepted}"
