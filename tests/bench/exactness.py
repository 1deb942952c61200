"""How far vLLM is from what it should say: soups from explicitly merged checkpoints, scores from transformers, caching.

    python tests/bench/exactness.py

Needs vLLM. SmolLM2 and the packaged artifacts in float32; each soup is merged into a checkpoint on disk, which
transformers loads. About two minutes on two quiet cores. tests/vllm_runtime holds the same, on tiny models too.
"""

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tureen_serve.process_environment import stay_offline
from tureen_serve.runtimes.contract import Row, Weights
from tureen_serve.settings import build_starter_settings
from tureen_serve.vllm_settings import VllmSettings

QUESTION = [{"role": "user", "content": "Why do leaves fall in autumn?"}]
ANSWERS = [
    "Abscission is regulated by ethylene and auxin.",
    "Gold letters let go of the bough, one by one, and nobody reads them.",
    "They fall because the tree stops feeding them when the days grow short.",
]
SOUPS: list[Weights] = [
    (("academy", 1.0),),
    (("entertainment", 1.0),),
    (("academy", 0.5), ("entertainment", 0.5)),
    (("academy", 0.1), ("business", 0.2), ("entertainment", 0.3), ("literature", 0.4)),
    (("academy", 1.5), ("literature", -0.5)),
    (("business", -1.0),),
    (("academy", 0.0), ("literature", 1.0)),
    (),
]


def main() -> None:
    """Load on both runtimes, compare, print."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    stay_offline()  # before vLLM is imported
    from tureen_serve.runtimes.load import LoadOptions, load_models

    given: Any = build_starter_settings()
    settings = VllmSettings(cache_gib=0.5, context=1024, rows=32)
    ours, reference = (
        load_models(
            given["rewards"], given["families"], LoadOptions(runtime=name, dtype="float32", vllm=settings), probes=0
        )
        for name in ("vllm", "transformers")
    )
    try:
        print("\n".join([*soups(ours), "", *scores(ours, reference), "", *caching(ours)]))
    finally:
        ours.close()
        reference.close()


def soups(ours: Any) -> list[str]:
    """Log-probabilities of one answer under eight soups that run in one batch."""
    from concurrent.futures import ThreadPoolExecutor

    (policy,) = ours.policies
    assert policy.family.renderer is not None
    ids = policy.family.renderer.render_conversation([*QUESTION, {"role": "assistant", "content": ANSWERS[1]}]).ids
    start = len(policy.family.renderer.tokenize_prompt(QUESTION))
    with ThreadPoolExecutor(len(SOUPS)) as pool:
        found = list(pool.map(lambda weights: policy.runtime.likelihood(ids, start, weights), SOUPS))
    lines = ["| soup | tokens | largest difference of a log-probability from the merged checkpoint |", "|---|---|---|"]
    for weights, mine in zip(SOUPS, found, strict=True):
        apart = max(abs(a - b) for a, b in zip(mine, merged(policy.family, weights, ids, start), strict=True))
        told = ", ".join(f"{name} {weight:g}" for name, weight in weights) or "the bare base"
        lines.append(f"| {told} | {len(mine)} | {apart:.1e} |")
    return lines


def merged(family: Any, weights: Weights, ids: Sequence[int], start: int) -> list[float]:
    """The same from a checkpoint of its own."""
    import torch
    from serve.experts import causal, logprobs

    from tureen_core.artifact import read_weights
    from tureen_core.base import locate_base
    from tureen_core.checkpoint_merge import merge_checkpoint
    from tureen_core.soup import concatenate_adapters

    stack = concatenate_adapters([read_weights(each)[0] for each in family.experts.values()])
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "merged"
        merge_checkpoint(locate_base(family.base), stack, dict(weights), out, "delta", torch.float32)
        rows = logprobs(causal(out), ids)[start - 1 : -1]
    return rows.gather(1, torch.tensor(ids[start:])[:, None]).flatten().tolist()


def scores(ours: Any, reference: Any) -> list[str]:
    """Every reward of three answers, and a soup of two reward models, in one batch."""
    (backbone,) = ours.backbones
    blends: list[Weights] = [((reward.artifact.name, 1.0),) for reward in backbone.rewards]
    blends.append((("academy", 0.3), ("literature", 0.7)))
    answers = [[{"role": "assistant", "content": answer}] for answer in ANSWERS]
    texts = backbone.rewards[0].renderer.render_candidates(QUESTION, answers)
    rows = [Row(tuple(text.ids), blend, text.shared) for blend in blends for text in texts]
    pairs = list(zip(rows, backbone.scorer.run(rows), reference.backbones[0].scorer.run(rows), strict=True))
    lines = ["| reward | texts | largest difference of a score from transformers |", "|---|---|---|"]
    for blend in blends:
        apart = [abs(a.values[0] - b.values[0]) for row, a, b in pairs if row.blend == blend]
        told = " + ".join(f"{weight:g} {name}" if weight != 1 else name for name, weight in blend)
        lines.append(f"| {told} | {len(apart)} | {max(apart):.1e} |")
    return lines


def caching(ours: Any) -> list[str]:
    """Cached tokens of one text: under other rewards none, asked again whole blocks."""
    (backbone,) = ours.backbones
    ids = tuple(
        backbone.rewards[0]
        .renderer.render_conversation([*QUESTION, {"role": "assistant", "content": " ".join(ANSWERS * 3)}])
        .ids
    )
    first, second = (((reward.artifact.name, 0.9),) for reward in backbone.rewards[:2])
    lines = ["| one text of the same tokens | cached tokens |", "|---|---|"]
    for told, blend in (
        ("first", first),
        ("under another reward", second),
        ("again", first),
        ("the other again", second),
    ):
        (found,) = backbone.scorer.run([Row(ids, blend)])
        lines.append(f"| {told} | {found.cached} of {len(ids)} |")
    return lines


if __name__ == "__main__":
    main()
