"""Training's speed on a GPU with long prompts: ours, packed by FlashAttention, and TRL's RewardTrainer, in bfloat16.

    python tests/gpu/bench_training.py --shape 0.6b
    python tests/gpu/bench_training.py --shape 8b --prompts 2

Weights are random in the shape's real sizes, texts are random tokens; the rest is ``tests/bench/training.py``, which on
a GPU also runs as it is, on DSP's own texts.
"""

import argparse
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import tiny
import torch
from bench import training
from bench.shapes import SHAPES, ids
from transformers import AutoModelForCausalLM

from tureen_train.rewards.collate import EncodedRecord

SCORES = [1.0, 0.0, 0.0, 0.0, 0.0]


def main() -> None:
    """Train and print."""
    asked = arguments()
    with tempfile.TemporaryDirectory() as folder:
        asked.base = str(build(asked.shape, Path(folder)))
        training.compare(asked, list(prompts(asked)))


def arguments() -> argparse.Namespace:
    """What to train."""
    parser = training.parser(__doc__)
    parser.set_defaults(precision="bf16", prompts=4, steps=10, max_length=4096)
    parser.add_argument("--shape", choices=SHAPES, default="0.6b")
    parser.add_argument("--prompt", type=int, default=1024)
    parser.add_argument("--answer", type=int, default=256)
    return parser.parse_args()


def build(shape: str, folder: Path) -> Path:
    """A checkpoint of random weights, with a tokenizer that only has to have a pad token."""
    torch.manual_seed(0)
    config = SHAPES[shape]()
    config.pad_token_id = 2
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


def prompts(asked: argparse.Namespace) -> Iterator[EncodedRecord]:
    """Five answers each; lengths vary by a half."""
    rng = random.Random(7)
    for _ in range(training.needed(asked)):
        prompt = list(ids(rng, rng.randint(asked.prompt // 2, 3 * asked.prompt // 2)))
        answers = [list(ids(rng, rng.randint(asked.answer // 2, 3 * asked.answer // 2))) for _ in SCORES]
        yield EncodedRecord([prompt + answer for answer in answers], [len(prompt)] * len(SCORES), SCORES)


if __name__ == "__main__":
    main()
