"""Reward scores a second of the transformers runtime: padded, packed, packed and compiled, beside the device's ceiling.

    python tests/gpu/bench_packed.py --shape 0.6b
    python tests/gpu/bench_packed.py --shape 8b --samples 1024

Weights are random, in the shape's real sizes: speed does not depend on their values. Batches are the server's own.
The ceiling counts the layers' matrices only, at the rate of one large product measured in the same run.
"""

import argparse
import random
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from bench.shapes import SHAPES, Ceiling, ids, measure_ceiling, mixed_lengths, precision, table
from bench.shapes import device as found_device
from transformers import AutoModel

from tureen_core.heads import LinearHead
from tureen_core.packed.exactness import find_packing_obstacle
from tureen_serve.inference.batcher import Batcher
from tureen_serve.runtimes.contract import BatchLimits, Rewards, Row, Scorer
from tureen_serve.runtimes.on_transformers.models import copy_module_tree
from tureen_serve.runtimes.on_transformers.packed_scorer import PackedScorer
from tureen_serve.runtimes.on_transformers.scorer import TransformersScorer
from tureen_serve.runtimes.readout import ReadOut

BLEND = (("reward", 1.0),)


def main() -> None:
    """Measure every scorer on every workload and print."""
    asked = arguments()
    device = torch.device(asked.device)
    dtype = precision(device)
    backbone = build(asked.shape, device, dtype)
    ceiling = measure_ceiling(backbone, device)
    print(f"{asked.shape}, {dtype}, {device}: {ceiling.flops / 1e12:.3g} TFLOP/s in one product", flush=True)
    workloads = {
        f"{asked.samples} samples of {asked.mean} tokens on average": mixed(asked.samples, asked.mean),
        f"{asked.prompts} prompts of {asked.prompt} × {asked.answers} answers of {asked.answer}": groups(asked),
    }
    limits = BatchLimits(asked.batch_tokens, asked.batch_rows)
    scorers = dict(build_scorers(backbone, limits, asked.scorers))
    for title, rows in workloads.items():
        print(f"\n## {title}\n\n{compare(rows, scorers, limits, ceiling)}", flush=True)


def arguments() -> argparse.Namespace:
    """What to measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shape", choices=SHAPES, default="0.6b")
    parser.add_argument("--device", default=found_device().type)
    parser.add_argument("--scorers", nargs="+", choices=["padded", "packed", "compiled"], default=None)
    for name, default in (
        ("samples", 4096),
        ("mean", 273),
        ("prompts", 64),
        ("prompt", 1024),
        ("answers", 16),
        ("answer", 256),
        ("batch-tokens", 16384),
        ("batch-rows", 128),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    asked.scorers = asked.scorers or ["padded", "packed", "compiled"]
    if asked.device == "cpu":
        asked.prompts, asked.prompt, asked.answer = min(asked.prompts, 4), min(asked.prompt, 128), min(asked.answer, 32)
    return asked


# --------------------------------------------------------------------------- models


def build(shape: str, device: torch.device, dtype: torch.dtype) -> Any:
    """A headless model with random weights, made on its device."""
    torch.manual_seed(0)
    with torch.device(device):
        return AutoModel.from_config(SHAPES[shape](), dtype=dtype, attn_implementation="sdpa").eval()


def build_scorers(backbone: Any, limits: BatchLimits, names: Sequence[str]) -> Iterator[tuple[str, Scorer]]:
    """Each over the same weights, in a module tree of its own."""
    reason = find_packing_obstacle(backbone)
    if reason is not None:
        print(f"not packed: {reason}")
        names = ["padded"]
    hidden = backbone.config.hidden_size
    readouts = {"reward": ReadOut(LinearHead(hidden).to(backbone.device).requires_grad_(False), "eos", True)}
    trees = {name: copy_module_tree(backbone) for name in names}
    for name, tree in trees.items():
        start = time.perf_counter()
        scorer: Scorer
        if name == "padded":
            scorer = TransformersScorer(tree, readouts, None, limits)
        else:
            scorer = PackedScorer(tree, readouts, None, limits, "inductor" if name == "compiled" else None)
        print(f"{name}: {scorer.description} ({time.perf_counter() - start:.1f} s)", flush=True)
        yield name, scorer


# --------------------------------------------------------------------------- workloads


def mixed(count: int, mean: int) -> list[Row]:
    """Texts that share nothing, their lengths log-normal."""
    rng = random.Random(0)
    return [Row(ids(rng, length), BLEND) for length in mixed_lengths(rng, count, mean)]


def groups(asked: argparse.Namespace) -> list[Row]:
    """Several answers to each prompt."""
    rng = random.Random(1)
    prompts = [ids(rng, asked.prompt) for _ in range(asked.prompts)]
    return [
        Row(prompt + ids(rng, asked.answer), BLEND, asked.prompt) for prompt in prompts for _ in range(asked.answers)
    ]


# --------------------------------------------------------------------------- measuring


def compare(rows: Sequence[Row], scorers: dict[str, Scorer], limits: BatchLimits, ceiling: Ceiling) -> str:
    """One line a scorer; its share of the ceiling counts what was computed, not what was asked."""
    heads = ["scorer", "samples/s", "tokens/s", "computed tokens/s", "of the ceiling", "largest difference"]
    lines: list[list[str]] = []
    first: list[Rewards] = []
    for name, scorer in scorers.items():
        seconds, found = timed(scorer, rows, limits)
        first = first or found
        asked = sum(len(row.ids) for row in rows) / seconds
        computed = asked - sum(each.cached for each in found) / seconds
        apart = max(abs(one.values[0] - other.values[0]) for one, other in zip(first, found, strict=True))
        speeds = [f"{len(rows) / seconds:,.1f}", f"{asked:,.0f}", f"{computed:,.0f}"]
        lines.append([name, *speeds, f"{computed / ceiling.tokens:.1%}", f"{apart:.1e}"])
    return table(heads, lines)


def timed(scorer: Scorer, rows: Sequence[Row], limits: BatchLimits) -> tuple[float, list[Rewards]]:
    """Seconds for all rows in the batches that the server would make, after two batches to warm up."""
    batcher = Batcher()
    for row in rows:
        batcher.add(row, "default")
    batches = []
    while len(batcher):
        batches.append(batcher.next_batch(limits))
    for batch in batches[:2]:
        scorer.run(batch)
    found: dict[Row, Any] = {}
    start = time.perf_counter()
    for batch in batches:
        found |= zip(batch, scorer.run(batch), strict=True)
    return time.perf_counter() - start, [found[row] for row in rows]


if __name__ == "__main__":
    main()
