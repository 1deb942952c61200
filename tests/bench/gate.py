"""The rank gate in vLLM against a LoRA for each weight vector, on this machine, with a real model.

    python tests/bench/gate.py
    python tests/bench/gate.py --experts random
    python tests/bench/gate.py --requests 8 --tokens 8 --rounds 1

Needs vLLM. About five minutes on two quiet cores. The trained experts have rank 8 each, over the attention of two
thirds of the layers; the random ones rank 16, over all linear modules of all layers: stock vLLM copies A and B for each
token on a CPU, so that what the gate saves grows with them.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tureen_serve.process_environment import stay_offline
from tureen_serve.settings import STARTER
from tureen_serve.vllm_settings import VllmSettings

BASE = "smollm2-135m-instruct"
GOAL = 6


def main() -> None:
    """Measure and print."""
    asked = arguments()
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    stay_offline()  # before vLLM is imported
    from bench.souping import Kitchen, Model, Work, against, summary, told

    from tureen_core.base import locate_base

    work, base = Work(asked.requests, asked.prompt, asked.tokens), locate_base(BASE)
    context, most = asked.prompt + asked.tokens, max(asked.vectors)
    settings = VllmSettings(cache_gib=1.0, rows=asked.requests, step_tokens=max(2048, context), context=context)
    with tempfile.TemporaryDirectory() as scratch:
        model = Model(base, stack(base, asked.experts), Path(scratch))
        lines = told(Kitchen(model, work, settings, asked.rounds).measure(asked.vectors, [1, most], alike=False))
    print(
        f"\n## {BASE}, {asked.experts} experts, {work}\n\n{summary(lines, {})}\n\n{against(lines, most)}; goal {GOAL}"
    )


def stack(base: Path, kind: str) -> Any:
    """Four experts, concatenated."""
    from bench.shapes import experts
    from transformers import AutoConfig

    from tureen_core.artifact import open_artifact, read_weights
    from tureen_core.soup import concatenate_adapters

    if kind == "random":
        return concatenate_adapters(experts(AutoConfig.from_pretrained(base), 4, 16))
    artifacts = [open_artifact(path.parent) for path in sorted(STARTER.glob("experts/*/tureen.json"))]
    return concatenate_adapters([read_weights(artifact)[0] for artifact in artifacts])


def arguments() -> argparse.Namespace:
    """What to measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--experts", choices=["trained", "random"], default="trained")
    for name, default in (("requests", 32), ("prompt", 32), ("tokens", 32), ("rounds", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--vectors", type=int, nargs="+", default=[1, 8, 32], help="distinct ones under the gate")
    return parser.parse_args()


if __name__ == "__main__":
    main()
