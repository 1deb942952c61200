"""Souped text in vLLM on a GPU: the rank gate, a LoRA for each weight vector, no adapter, in one run.

    python tests/gpu/bench_soups.py --shape 8b
    python tests/gpu/bench_soups.py --shape 8b --runner v2 --stock
    python tests/gpu/bench_soups.py --shape tiny --requests 8 --prompt 16 --tokens 8 --vectors 1 8 --stock 1 8

Weights and the four experts of rank 16 are random: speed does not depend on their values. Every engine compiles and
captures its graphs anew, an 8B one in a minute or two: ``--stock`` without numbers leaves the ordinary LoRAs out.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tureen_serve.process_environment import stay_offline
from tureen_serve.vllm_settings import VllmSettings

GOAL = 0.95
MEASURED = {
    ("plain", "no adapter"): 20_840.0,
    ("LoRA, 1 slot", "1 vector, warm"): 12_377.0,
    ("LoRA, 8 slots", "8 vectors, cold"): 5_089.0,
    ("LoRA, 8 slots", "8 vectors, warm"): 11_534.0,
    ("LoRA, 64 slots", "64 vectors, cold"): 1_194.0,
    ("LoRA, 64 slots", "64 vectors, warm"): 5_756.0,
    ("LoRA, 256 slots", "256 vectors, cold"): 335.0,
    ("LoRA, 256 slots", "256 vectors, warm"): 895.0,
    ("gate", "no adapter"): 18_949.0,
    ("gate", "256 vectors"): 15_801.0,
}  # 8b on one H200: vLLM 0.25.0, V1 runner, 256 requests of 128 + 128 tokens


def main() -> None:
    """Measure and print."""
    asked = arguments()
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    stay_offline()
    if asked.runner != "auto":
        os.environ["VLLM_USE_V2_MODEL_RUNNER"] = str(int(asked.runner == "v2"))
    from bench.shapes import SHAPES, experts  # all that imports vLLM comes after what vLLM reads
    from bench.souping import Kitchen, Model, Work, against, summary, told

    from tureen_core.soup import concatenate_adapters

    work, context = Work(asked.requests, asked.prompt, asked.tokens), asked.prompt + asked.tokens
    settings = VllmSettings(cache_gib=0.5, rows=asked.requests, step_tokens=8192, context=context)
    config = SHAPES[asked.shape]()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "base"
        config.save_pretrained(folder)
        extra = {"load_format": "dummy", "skip_tokenizer_init": True}
        model = Model(folder, concatenate_adapters(experts(config, 4, 16)), Path(scratch), extra)
        lines = told(Kitchen(model, work, settings, asked.rounds).measure(asked.vectors, asked.stock, alike=True))
    figures = MEASURED if asked.shape == "8b" else {}
    print(f"\n## {asked.shape}, runner {asked.runner}, {work}\n\n{summary(lines, figures)}\n")
    for size in asked.vectors:
        print(against(lines, size))
    print(f"goal: {GOAL} of no adapter in the gate's engine")


def arguments() -> argparse.Namespace:
    """What to measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shape", choices=["tiny", "0.6b", "8b"], default="8b")
    parser.add_argument("--runner", choices=["auto", "v1", "v2"], default="auto", help="vLLM's model runner")
    for name, default in (("requests", 256), ("prompt", 128), ("tokens", 128), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--vectors", type=int, nargs="+", default=[1, 8, 64, 256], help="distinct ones under the gate")
    parser.add_argument("--stock", type=int, nargs="*", default=[1, 8, 64, 256], help="LoRAs, and slots for them")
    return parser.parse_args()


if __name__ == "__main__":
    main()
