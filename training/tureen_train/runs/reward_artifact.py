"""A reward run's saved model: read again, and written as an artifact."""

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from safetensors.torch import load_file, save_file

from tureen_core.adapter_files import read_adapter, write_adapter
from tureen_core.artifact import GATE, HEAD, Base, Manifest
from tureen_core.base import digest_weights, load_tokenizer
from tureen_core.probe_readings import (
    Readings,
    Rows,
    check_range,
    choose_readings,
    select_column,
    state_tolerances,
)
from tureen_core.tolerance import SERVED, compute_difference, name_reading, share_tolerance
from tureen_train.config import RewardRun
from tureen_train.networks.reward_reader import RewardReader
from tureen_train.runs.artifact_kind import describe_training
from tureen_train.runs.folder import read_objectives, read_probes
from tureen_train.runs.probe_readings import read_at_weights
from tureen_train.runs.rereading import choose_dtype, choose_saved_dtype, open_reward_reader

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json")
log = logging.getLogger("tureen.train")


class RewardArtifact:
    """The :class:`tureen_train.runs.artifact_kind.ArtifactKind` of reward models; a probe's numbers are its rewards."""

    kind: Literal["reward"] = "reward"

    def reread_probes(self, run: RewardRun, folder: Path, base: Path) -> Readings:
        """The probes' rewards."""
        reader = open_reward_reader(run, folder / "model", base, as_trained=True)
        probes = read_probes(folder)
        return read_at_weights(reader.model, lambda: reader.score_probes(probes, run.loss.input))

    def write(self, run: RewardRun, folder: Path, base: Path, out: Path) -> Manifest:
        """Write a reward model's files; its probes are scored in float32 from them."""
        lora = run.model.lora is not None
        gated = _write_weights(run, folder / "model", base, out)
        manifest = Manifest(
            kind="reward",
            input=run.loss.input,
            gated=gated,
            name=run.name,
            weights="lora" if lora else "full",
            base=Base(model=run.model.base, digest=digest_weights(base)) if lora else None,
            objectives=read_objectives(folder),
            reading=run.reading.model_copy(update={"dtype": choose_dtype(run)}),
            probes=read_probes(folder),
            training=describe_training(run, folder),
        )
        return record_probes(manifest, open_reward_reader(run, out, base), trained=not run.loss.frozen)


def record_probes(manifest: Manifest, reader: RewardReader, trained: bool = True) -> Manifest:
    """Read a reward model's probes from its files in float32, and write readings and tolerances into its manifest.

    Args:
        trained: whether the run trained the adapter; one that it did not may be zero.

    Raises:
        ArtifactError: the probes are too alike to tell, or read the same without the adapter.
    """
    probes, names = manifest.probes, {each.column: each.name for each in manifest.objectives}

    def read_all(weight: float, half: bool) -> Rows:
        reader.half = half
        (rows,) = read_at_weights(reader.model, lambda: reader.score_probes(probes, manifest.input), [weight]).values()
        return rows

    if manifest.weights == "lora":
        readings = choose_readings(read_all, names, trained)
    else:
        readings = {SERVED: read_all(SERVED, False)}
    served = readings[SERVED]
    check_range(served, names)
    _warn_of_rounding(served, read_all(SERVED, True), names)
    recorded = [
        probe.model_copy(
            update={
                "scores": {
                    name_reading(name, weight): rows[number][column]
                    for weight, rows in readings.items()
                    for column, name in names.items()
                }
            }
        )
        for number, probe in enumerate(probes)
    ]
    return manifest.model_copy(update={"probes": recorded, "tolerance": state_tolerances(served, names)})


def _warn_of_rounding(served: Rows, halves: Rows, names: Mapping[int, str]) -> None:
    """Tell where bfloat16 would take a reward beyond its tolerance."""
    for column, name in names.items():
        values = select_column(served, column)
        rounding = compute_difference(values, select_column(halves, column))
        allowed = share_tolerance(values, (), "bfloat16")
        if rounding > allowed:
            log.warning(
                "%s: bfloat16 moves it by up to %.2g, ±%.2g is allowed: serve it in float32", name, rounding, allowed
            )


def _write_weights(run: RewardRun, saved: Path, base: Path, out: Path) -> bool:
    """Write the adapter or the classifier, and the gate where there is one. Returns whether there is."""
    if run.model.lora is not None:
        adapter, heads = read_adapter(saved, run.name, (HEAD,))
        write_adapter(adapter, out, run.model.base, choose_saved_dtype(run), heads, task="SEQ_CLS")
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
