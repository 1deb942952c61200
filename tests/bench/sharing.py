"""What it saves to compute a prompt once: the server with shared prompts, against transformers on whole texts.

Both in float32 on the same texts with the same adapter and the same number of threads; rewards must agree.
"""

import time
from pathlib import Path

import httpx2
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

from tureen_core.artifact import open_artifact
from tureen_core.base import load_tokenizer, locate_base
from tureen_core.template import Renderer

PROMPTS, CANDIDATES, BATCH = 4, 8, 8
CONTEXT = "Read this and answer. " + "The lake was quiet and the boats lay still in the evening light. " * 12


def texts(round: str) -> list[tuple[str, list[str]]]:
    """Prompts of about 200 tokens with short answers: the shape of a labelling job. No round's prompt is another's."""
    answers = [f"It is calm there, I think, for {number} reasons at least." for number in range(CANDIDATES)]
    return [(f"{CONTEXT} Question {number}, {round}?", answers) for number in range(PROMPTS)]


def ours(url: str, round: str) -> tuple[float, list[float], int]:
    """Seconds, raw rewards, and tokens that were not computed again."""
    items = [{"prompt": prompt, "candidates": answers} for prompt, answers in texts(round)]
    began = time.perf_counter()
    reply = httpx2.post(f"{url}/v1/score", json={"items": items, "rewards": ["helpful"]}, timeout=600)
    reply.raise_for_status()
    seconds = time.perf_counter() - began
    rows = [candidate for item in reply.json()["data"] for candidate in item["candidates"]]
    return seconds, [row["scores"]["helpful"]["raw"] for row in rows], sum(row["cached_tokens"] for row in rows)


def peer(folder: Path, round: str) -> tuple[float, list[float]]:
    """Seconds and rewards of AutoModelForSequenceClassification with PEFT, padded batches of eight whole texts."""
    artifact = open_artifact(folder)
    assert artifact.manifest.base is not None
    base = locate_base(artifact.manifest.base.model)
    tokenizer = load_tokenizer(base)
    plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, dtype=torch.float32)
    model = PeftModel.from_pretrained(plain, folder).eval()
    renderer = Renderer(tokenizer, artifact.manifest.reading)
    rows = []
    for prompt, answers in texts(round):
        for answer in answers:
            turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
            rows.append({"input_ids": renderer.render_conversation(turns).ids})
    rewards: list[float] = []
    began = time.perf_counter()
    with torch.inference_mode():
        for start in range(0, len(rows), BATCH):
            padded = tokenizer.pad(rows[start : start + BATCH], return_tensors="pt")
            rewards += model(**padded).logits[:, 0].tolist()
    return time.perf_counter() - began, rewards


def main(url: str, folder: Path) -> list[str]:
    """The table's lines."""
    ours(url, "to warm up")
    (first, found, cached), (second, wanted) = ours(url, "in earnest"), peer(folder, "in earnest")
    worst = max(abs(a - b) for a, b in zip(found, wanted, strict=True))
    lines = ["| who | seconds | samples/s |", "|---|---|---|"]
    for who, seconds in (("tureen over HTTP, prompts shared", first), ("transformers + PEFT in process", second)):
        lines.append(f"| {who} | {seconds:.2f} | {len(found) / seconds:.1f} |")
    told = f"ratio {second / first:.2f}; {cached} tokens not computed again; largest difference of a reward {worst:.1e}"
    return [*lines, told]
