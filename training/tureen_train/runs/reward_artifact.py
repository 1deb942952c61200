"""A reward run's saved model: read again, and written as an artifact."""

import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file, save_file

from tureen_core.adapter_files import read_adapter, write_adapter
from tureen_core.artifact import GATE, HEAD, Base, Manifest
from tureen_core.base import digest_weights, load_tokenizer
from tureen_train.config import RewardRun
from tureen_train.runs.artifact_kind import describe_training
from tureen_train.runs.folder import read_objectives, read_probes
from tureen_train.runs.rereading import choose_dtype, open_reward_reader

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json")
log = logging.getLogger("tureen.train")


class RewardArtifact:
    """The :class:`tureen_train.runs.artifact_kind.ArtifactKind` of reward models; a probe's numbers are its rewards."""

    kind: Literal["reward"] = "reward"

    def reread_probes(self, run: RewardRun, folder: Path, base: Path) -> list[float]:
        """The probes' rewards, row after row."""
        reader = open_reward_reader(run, folder / "model", base, as_trained=True)
        return [value for row in reader.score_probes(read_probes(folder), run.loss.input) for value in row]

    def reread_base(self, run: RewardRun, folder: Path, base: Path) -> None:  # noqa: ARG002
        """A base has no score head."""
        return

    def write(self, run: RewardRun, folder: Path, base: Path, out: Path) -> Manifest:
        """Write a reward model's files; its probes are scored in float32 from them."""
        objectives = read_objectives(folder)
        spread = max(each.calibration.std for each in objectives)
        lora = run.model.lora is not None
        gated = _write_weights(run, folder / "model", base, out)
        probes = read_probes(folder)
        reader = open_reward_reader(run, out, base)
        values = reader.score_probes(probes, run.loss.input)
        reader.half = True
        rounding = _farthest(values, reader.score_probes(probes, run.loss.input))
        if rounding > spread / 2:
            log.warning(
                "in bfloat16 rewards are up to %.2g off, of a deviation of %.2g: serve it in float32", rounding, spread
            )
        return Manifest(
            kind="reward",
            input=run.loss.input,
            gated=gated,
            name=run.name,
            weights="lora" if lora else "full",
            base=Base(model=run.model.base, digest=digest_weights(base)) if lora else None,
            objectives=objectives,
            reading=run.reading.model_copy(update={"dtype": choose_dtype(run)}),
            tolerance={
                "float32": 1e-3,
                "bfloat16": max(0.1, 0.1 * spread, 2 * rounding),
                "float16": max(0.05, 0.05 * spread, rounding),
            },
            probes=[
                probe.model_copy(update={"scores": {each.name: row[each.column] for each in objectives}})
                for probe, row in zip(probes, values, strict=True)
            ],
            training=describe_training(run, folder),
        )


def _farthest(values: Sequence[Sequence[float]], others: Sequence[Sequence[float]]) -> float:
    """The largest difference of two tables of rewards."""
    return max(abs(a - b) for row, other in zip(values, others, strict=True) for a, b in zip(row, other, strict=True))


def _write_weights(run: RewardRun, saved: Path, base: Path, out: Path) -> bool:
    """Write the adapter or the classifier, and the gate where there is one. Returns whether there is."""
    if run.model.lora is not None:
        adapter, heads = read_adapter(saved, run.name, (HEAD,))
        write_adapter(adapter, out, run.model.base, getattr(torch, choose_dtype(run)), heads, task="SEQ_CLS")
    else:
        write_classifier(saved, out, base)
    gated = (saved / GATE).is_file()
    if gated:
        shutil.copyfile(saved / GATE, out / GATE)
    return gated


def write_classifier(saved: Path, out: Path, base: Path) -> None:
    """Write a full checkpoint as Hugging Face's …ForSequenceClassification: without LM head, the architecture renamed.

    Its configuration names the pad token, by which that class finds the last token. Its tokenizer is the base's.
    """
    for shard in set(saved.glob("*.safetensors")) - {saved / GATE}:
        kept = {name: tensor for name, tensor in load_file(shard).items() if not name.startswith("lm_head.")}
        if kept:
            save_file(kept, out / shard.name, metadata={"format": "pt"})
    index = saved / "model.safetensors.index.json"
    if index.is_file():
        content = json.loads(index.read_text())
        content["weight_map"] = {k: v for k, v in content["weight_map"].items() if not k.startswith("lm_head.")}
        (out / index.name).write_text(json.dumps(content, indent=1) + "\n")
    for name in TOKENIZER:
        if (base / name).is_file():
            shutil.copyfile(base / name, out / name)
    config = json.loads((saved / "config.json").read_text())
    causal = config["architectures"][0].removeprefix("Reward")
    config["architectures"] = [causal.replace("ForCausalLM", "ForSequenceClassification")]
    config["pad_token_id"] = load_tokenizer(base).pad_token_id
    config.pop("tureen_reading", None)
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")
