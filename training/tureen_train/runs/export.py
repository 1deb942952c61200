"""From a saved run to an artifact: standard files, a manifest with probes scored on those very files."""

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file

from tureen_core.artifact import GATE, HEAD, Artifact, Base, Manifest, Objective, Probe, Steering, Training, seal
from tureen_core.base import CACHE, load_tokenizer, locate, weights_digest
from tureen_core.soup import read_adapter, write_adapter
from tureen_core.template import Reading, Renderer
from tureen_train.config import ExpertRun, RecipeError, RewardRun, Run, dump, read_recipe
from tureen_train.networks.policy_reader import ExpertReader
from tureen_train.networks.quantised import quantisation
from tureen_train.networks.reward_reader import RewardReader
from tureen_train.runs.history import plain

LIBRARIES = ("torch", "transformers", "peft", "trl", "accelerate", "deepspeed")
_OBJECTIVES = TypeAdapter(list[Objective])
_PROBES = TypeAdapter(list[Probe])
log = logging.getLogger("tureen.train")
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json")


def export(folder: Path) -> Artifact:
    """Write ``<folder>/artifact`` from a finished run's folder.

    Raises:
        RecipeError: the run has not finished: a file it should have written is not there.
    """
    run, base = finished(folder)
    out = folder / "artifact"
    if out.exists():
        shutil.rmtree(out)
    out.mkdir()
    manifest = _reward(run, folder, base, out) if isinstance(run, RewardRun) else _expert(run, folder, base, out)
    (out / "README.md").write_text(_card(manifest, run))
    return seal(out, manifest)


def finished(folder: Path) -> tuple[RewardRun | ExpertRun, Path]:
    """A finished run's recipe, and where its base is.

    Raises:
        RecipeError: a file that it should have written is not there.
    """
    missing = [name for name in ("recipe.yaml", "model", "metrics.json", "probes.json") if not (folder / name).exists()]
    if missing:
        raise RecipeError(f"{folder} holds no finished run: {missing[0]} is not there")
    run = read_recipe(str(folder / "recipe.yaml"))
    return run, find_base(run)


def cache_of(run: Run) -> Path:
    """Where a run keeps what other runs can use: converted bases, features of frozen models."""
    return Path(run.cache) if run.cache else CACHE


def find_base(run: Run) -> Path:
    """The folder of a run's base, fetched and converted where it must be."""
    return locate(run.model.base, cache_of(run))


def reward_reader(run: RewardRun, folder: Path, base: Path, as_trained: bool = False) -> RewardReader:
    """Reads a reward run's weights in ``folder``, saved or exported.

    Args:
        as_trained: under the run's autocast, on a base quantised as it was; else in float32 on the whole base.
    """
    quantised = quantisation(run.model) if as_trained else None
    reader = RewardReader(folder, base if run.model.lora else None, run.reading, run.loss.rows, quantised=quantised)
    reader.half = as_trained and run.model.precision == "bf16"
    return reader


def expert_reader(run: ExpertRun, folder: Path | None, base: Path) -> ExpertReader:
    """Reads an expert run's adapter in ``folder``, saved or exported, or its bare base."""
    return ExpertReader(folder, base, reading_of(run, base))


def reading_of(run: ExpertRun, base: Path) -> Reading:
    """How an expert's text becomes ids: the base's own template."""
    plain_reading = Reading(max_length=run.preference.max_length, dtype=_dtype(run))
    return plain_reading.model_copy(update={"template": Renderer(load_tokenizer(base), plain_reading).digest()})


def _reward(run: RewardRun, folder: Path, base: Path, out: Path) -> Manifest:
    """Write a reward model's files; its probes are scored in float32 from them."""
    objectives = _OBJECTIVES.validate_json((folder / "objectives.json").read_bytes())
    spread = max(each.calibration.std for each in objectives)
    lora = run.model.lora is not None
    if lora:
        adapter, heads = read_adapter(folder / "model", run.name, (HEAD,))
        write_adapter(adapter, out, run.model.base, getattr(torch, _dtype(run)), heads, task="SEQ_CLS")
    else:
        write_classifier(folder / "model", out, base)
    gated = (folder / "model" / GATE).is_file()
    if gated:
        shutil.copyfile(folder / "model" / GATE, out / GATE)
    probes = read_probes(folder)
    reader = reward_reader(run, out, base)
    values = reader.values(probes, run.loss.input)
    reader.half = True
    rounding = _farthest(values, reader.values(probes, run.loss.input))
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
        base=Base(model=run.model.base, digest=weights_digest(base)) if lora else None,
        objectives=objectives,
        reading=run.reading.model_copy(update={"dtype": _dtype(run)}),
        tolerance={
            "float32": 1e-3,
            "bfloat16": max(0.1, 0.1 * spread, 2 * rounding),
            "float16": max(0.05, 0.05 * spread, rounding),
        },
        probes=[
            probe.model_copy(update={"scores": {each.name: row[each.column] for each in objectives}})
            for probe, row in zip(probes, values, strict=True)
        ],
        training=_training(run, folder),
    )


def _farthest(values: Sequence[Sequence[float]], others: Sequence[Sequence[float]]) -> float:
    """The largest difference of two tables of rewards."""
    return max(abs(a - b) for row, other in zip(values, others, strict=True) for a, b in zip(row, other, strict=True))


def _expert(run: ExpertRun, folder: Path, base: Path, out: Path) -> Manifest:
    """Write an expert's files; its probes carry the mean log-probability of their last message, in float32."""
    adapter, _ = read_adapter(folder / "model", run.name)
    write_adapter(adapter, out, run.model.base, getattr(torch, _dtype(run)))
    conversations = [probe.messages for probe in read_probes(folder)]
    logprobs = expert_reader(run, out, base).mean_logprobs(conversations)
    return Manifest(
        kind="expert",
        name=run.name,
        base=Base(model=run.model.base, digest=weights_digest(base)),
        objectives=[Objective(name=run.objective)],
        reading=reading_of(run, base),
        steering=Steering(family=run.family),
        tolerance={"float32": 1e-3, "bfloat16": 0.1, "float16": 0.05},
        probes=[Probe(messages=messages, logprob=each) for messages, each in zip(conversations, logprobs, strict=True)],
        training=_training(run, folder),
    )


def _dtype(run: Run) -> Literal["bfloat16", "float32"]:
    return "bfloat16" if run.model.precision == "bf16" else "float32"


def write_report(
    folder: Path, run: RewardRun | ExpertRun, provenance: Mapping[str, Any], metrics: Mapping[str, Any]
) -> None:
    """What the run folder says of itself: ``metrics.json``, ``data.json``, versions, and the resolved recipe."""
    (folder / "metrics.json").write_text(json.dumps(plain(metrics), indent=1) + "\n")
    (folder / "data.json").write_text(json.dumps(provenance, indent=1) + "\n")
    (folder / "versions.json").write_text(json.dumps(libraries(), indent=1) + "\n")
    (folder / "recipe.yaml").write_text(dump(run))


def write_probes(folder: Path, probes: Sequence[Probe]) -> None:
    """``probes.json``: what is read again after saving, after export and when served; without scores."""
    (folder / "probes.json").write_bytes(_PROBES.dump_json(list(probes), exclude_defaults=True) + b"\n")


def read_probes(folder: Path) -> list[Probe]:
    """A run's probes."""
    return _PROBES.validate_json((folder / "probes.json").read_bytes())


def write_objectives(folder: Path, objectives: Sequence[Objective]) -> None:
    """``objectives.json``: names, columns and scales."""
    (folder / "objectives.json").write_bytes(_OBJECTIVES.dump_json(list(objectives), indent=1) + b"\n")


def libraries() -> dict[str, str]:
    """Versions of the libraries that made a run."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except ModuleNotFoundError:
            continue
    return found


def _training(run: Run, folder: Path) -> Training:
    """What the manifest tells of the training; where the data lay on this machine is nobody's business."""
    return Training(
        recipe=run.model_dump(exclude={"output": True, "cache": True, "data": {"root"}}),
        data=json.loads((folder / "data.json").read_text()),
        seed=run.optimisation.seed,
        metrics=_short(plain(json.loads((folder / "metrics.json").read_text()))),
        licences=run.licences,
        libraries=json.loads((folder / "versions.json").read_text()),
    )


def _short(metrics: Mapping[str, Mapping[str, float | None]]) -> dict[str, dict[str, float | None]]:
    """Figures to six decimals."""
    return {
        name: {key: None if value is None else round(value, 6) for key, value in figures.items()}
        for name, figures in metrics.items()
    }


def write_classifier(saved: Path, out: Path, base: Path) -> None:
    """A full checkpoint as Hugging Face's …ForSequenceClassification: no LM head, the architecture renamed.

    Its configuration names the pad token, by which that class finds the last token, and its tokenizer is the base's.
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


def _card(manifest: Manifest, run: RewardRun | ExpertRun) -> str:
    """The model card: what it is, its held-out figures, its licences."""
    lines = [f"# {manifest.name}", "", f"A Tureen {manifest.kind} for `{run.objective}` on `{run.model.base}`.", ""]
    rows = {name: each for name, each in manifest.training.metrics.items() if isinstance(each, dict)}
    if rows:
        keys = sorted({key for each in rows.values() for key in each})
        lines += ["| figure | " + " | ".join(rows) + " |", "|---" * (len(rows) + 1) + "|"]
        lines += [f"| {key} | " + " | ".join(_cell(each.get(key)) for each in rows.values()) + " |" for key in keys]
        lines += [""]
    lines += [f"Licence of what it was trained on: {licence}" for licence in run.licences]
    return "\n".join(lines).rstrip() + "\n"


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "–"
