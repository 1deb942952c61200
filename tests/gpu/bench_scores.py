"""Reward scores over HTTP: this project's server beside vLLM's own, vLLM without a server, and the device's ceiling.

    python tests/gpu/bench_scores.py --shape 0.6b
    python tests/gpu/bench_scores.py --shape 8b --runtimes vllm transformers
    python tests/gpu/bench_scores.py --shape tiny --samples 32 --prompts 2 --answers 4 --prompt 64 --answer 16

A checkpoint with random weights is made, and served by one after the other in the same precision with the same engine
settings. All are sent the same conversations, new ones in every case; vLLM gets them rendered. Tokens count what was
asked. The ceiling counts the layers' matrices only, at the rate of one large product measured in the same run, and
what a group's texts begin with once.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.flood import Flood

from tureen_serve.process_environment import stay_offline
from tureen_serve.vllm_settings import VllmSettings

CONTEXT = 4096
BATCH = 128
DEFAULTS = {"tiny": (128, 100), "0.6b": (8192, 273), "8b": (1024, 512)}  # samples, and their mean tokens
GOALS = "goals: 0.6b 2,500 samples/s one sample a request; 8b 0.90 of the ceiling; groups 200,000 tokens/s"


@dataclass(frozen=True)
class Case:
    """What is asked, how much of it at a time, and how large it is."""

    title: str
    requests: Any
    in_flight: int
    texts: int
    tokens: int
    once: int


@dataclass(frozen=True)
class Result:
    """Who took how long for a case, and each of its requests; None where there were no requests."""

    who: str
    case: Case
    seconds: float
    rewards: Sequence[float]
    latencies: Sequence[float] | None


def main() -> None:
    """Measure and print."""
    asked = arguments()
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    stay_offline()
    from bench.rewarding import Speech, checkpoint, tokenizer
    from bench.shapes import SHAPES, device, hollow, measure_ceiling

    on, tokens = device(), tokenizer(asked.tokenizer)
    ceiling = measure_ceiling(hollow(SHAPES[asked.shape]()), on)
    print(f"# {asked.shape}, {on}: {ceiling.flops / 1e12:.3g} TFLOP/s in one product", flush=True)
    speech = Speech(tokens)
    warm, cases = made(asked, speech, "warm-up"), made(asked, speech, "")
    with tempfile.TemporaryDirectory() as scratch, Flood(asked.processes) as flood:
        artifact = checkpoint(asked.shape, tokens, on, CONTEXT, Path(scratch) / "reward")
        free()
        results = list(measured(asked, artifact.folder, speech, flood, warm, cases))
    for case in cases:
        here = [result for result in results if result.case is case]
        print(f"\n## {case.title}\n\n{compared(here, ceiling.tokens)}", flush=True)
    print(f"\n{GOALS}")


def arguments() -> argparse.Namespace:
    """What to measure."""
    cores = os.cpu_count() or 2
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shape", choices=DEFAULTS, default="0.6b")
    parser.add_argument("--runtimes", nargs="*", choices=["vllm", "transformers"], default=["vllm"])
    parser.add_argument("--peers", nargs="*", choices=["server", "offline"], default=["server", "offline"])
    parser.add_argument("--in-flight", type=int, nargs="+", default=[64, 512])
    parser.add_argument("--samples", type=int, help="by default as many as suit the shape")
    parser.add_argument("--mean", type=int, help="their tokens on average")
    for name, default in (("prompts", 64), ("prompt", 1024), ("answers", 16), ("answer", 256)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--batch-tokens", type=int, default=16384, help="of a batch of the transformers runtime")
    parser.add_argument("--batch-rows", type=int, default=128)
    parser.add_argument("--rows", type=int, default=256, help="of a step of vLLM")
    parser.add_argument("--step-tokens", type=int, default=8192)
    parser.add_argument("--processes", type=int, default=max(1, min(8, cores // 2)), help="that ask")
    parser.add_argument("--tokenizer", type=Path, help="a folder; by default SmolLM2's, if its package is installed")
    asked = parser.parse_args()
    asked.samples, asked.mean = asked.samples or DEFAULTS[asked.shape][0], asked.mean or DEFAULTS[asked.shape][1]
    return asked


def made(asked: argparse.Namespace, speech: Any, part: str) -> list[Case]:
    """The cases, with conversations of their own; a sixteenth of them for the ``part`` that warms up."""
    from bench.rewarding import sizes

    number = max(1, asked.samples // 16) if part else asked.samples
    groups = max(1, asked.prompts // 16) if part else asked.prompts
    found = [
        (f"one sample a request, {flying} in flight", speech.singles(number, asked.mean, 1), flying)
        for flying in asked.in_flight
    ]
    found += [
        (f"{BATCH} samples a request, 8 in flight", speech.singles(number, asked.mean, BATCH), 8),
        (
            f"groups: {asked.prompt} tokens with {asked.answers} answers of {asked.answer}, 16 in flight",
            speech.groups(groups, asked.prompt, asked.answers, asked.answer),
            16,
        ),
    ]
    return [Case(title, requests, flying, *sizes(speech, requests)) for title, requests, flying in found]


def measured(
    asked: argparse.Namespace,
    folder: Path,
    speech: Any,
    flood: Flood,
    warm: Sequence[Case],
    cases: Sequence[Case],
) -> Iterator[Result]:
    """Everybody's results: first the peer's, then ours."""
    from bench.scorers import ours, vllm_offline, vllm_server

    settings = VllmSettings(context=CONTEXT, rows=asked.rows, step_tokens=asked.step_tokens, cache_gib=1.0)
    limits = {"batch_tokens": asked.batch_tokens, "batch_rows": asked.batch_rows}
    sites = [vllm_server(folder, settings, speech)] if "server" in asked.peers else []
    sites += [ours(folder, runtime, settings, limits) for runtime in asked.runtimes]
    for opened in sites:
        with opened as site:
            for case in [*warm, *cases]:
                answers, rewards = site.ask(flood, case.requests, case.in_flight)
                yield Result(site.name, case, answers.seconds, rewards, answers.latencies)
    if "offline" in asked.peers:
        with vllm_offline(folder, settings) as classify:
            for case in [warm[-1], *cases[-2:]]:
                texts = [text for request in case.requests for sample in request for text in speech.texts(sample)]
                yield Result("vLLM offline", case, *classify(texts), None)


def compared(results: Sequence[Result], ceiling: float) -> str:
    """One line for each who took part."""
    from bench.shapes import table

    heads = ["who", "samples/s", "tokens/s", "p50 ms", "p99 ms", "of vLLM's server", "of the ceiling", "apart"]
    peer, rows = next((each for each in results if each.who.startswith("vLLM's server")), None), []
    for result in results:
        case = result.case
        speeds = [f"{case.texts / result.seconds:,.1f}", f"{case.tokens / result.seconds:,.0f}"]
        ratio = f"{peer.seconds / result.seconds:.2f}" if peer else "–"
        pairs = zip(results[0].rewards, result.rewards, strict=True)
        apart = max(abs(one - other) for one, other in pairs)
        share = f"{case.once / result.seconds / ceiling:.1%}"
        rows.append([result.who, *speeds, *waits(result.latencies), ratio, share, f"{apart:.1e}"])
    return table(heads, rows)


def waits(latencies: Sequence[float] | None) -> list[str]:
    """Milliseconds that half of the requests and that all but a hundredth took at the most."""
    if latencies is None or len(latencies) < 2:
        return ["–", "–"]
    hundredths = statistics.quantiles(latencies, n=100, method="inclusive")
    return [f"{1000 * hundredths[49]:,.0f}", f"{1000 * hundredths[98]:,.0f}"]


def free() -> None:
    """Give back the GPU memory that the checkpoint was made in: engines want nine tenths of it."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
