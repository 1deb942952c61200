"""From a saved run to an artifact: standard files, bf16 weights, a manifest with probes scored on those very files."""

import json
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from safetensors.torch import load_file, save_file

from tureen_core.artifact import HEAD, Artifact, Base, Manifest, Objective, Probe, Steering, Training, seal
from tureen_core.base import CACHE, load_tokenizer, locate, weights_digest
from tureen_core.calibration import Calibration
from tureen_core.soup import read_adapter, write_adapter
from tureen_core.template import Reading, Renderer
from tureen_train.config import ExpertRun, Model, RecipeError, RewardRun, dump, read_recipe
from tureen_train.policies.logprob import ExpertReader
from tureen_train.rewards.score import RewardReader

R = TypeVar("R", RewardRun, ExpertRun)

LIBRARIES = ("torch", "transformers", "peft", "trl", "accelerate", "deepspeed")
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json")


def start_folder(begun: Artifact | None, base: Path, model: Model) -> Path:
    """Which checkpoint a run loads: the base, or an earlier stage's full weights.

    Raises:
        RecipeError: the earlier stage is of another kind of weights, or on another base.
    """
    if begun is None:
        return base
    manifest = begun.manifest
    if (manifest.weights == "lora") != (model.lora is not None):
        raise RecipeError(f"model.start: {begun.name} has {manifest.weights} weights; make model.lora agree")
    if manifest.weights == "full":
        return begun.folder
    if manifest.base is None or manifest.base.digest != weights_digest(base):
        raise RecipeError(f"model.start: {begun.name} stands on another base than {model.base}")
    return base


def export(folder: Path) -> Artifact:
    """Write ``<folder>/artifact`` from a finished run's folder.

    Raises:
        RecipeError: the run has not finished: a file it should have written is not there.
    """
    missing = [name for name in ("recipe.yaml", "model", "metrics.json", "probes.json") if not (folder / name).exists()]
    if missing:
        raise RecipeError(f"{folder} holds no finished run: {missing[0]} is not there")
    kind = read_recipe(str(folder / "recipe.yaml")).kind
    return export_reward(folder) if kind == "reward" else export_expert(folder)


def export_reward(folder: Path) -> Artifact:
    """Write a reward run's artifact; its probes are scored in float32 from the exported files."""
    run, base = _run(folder, RewardRun)
    saved, out = folder / "model", folder / "artifact"
    scale = Calibration.model_validate_json((folder / "calibration.json").read_bytes())
    _clear(out)
    lora = run.model.lora is not None
    if lora:
        adapter, heads = read_adapter(saved, run.name, (HEAD,))
        write_adapter(adapter, out, run.model.base, torch.bfloat16, heads, task="SEQ_CLS")
    else:
        _write_classifier(saved, out, base)
    conversations = json.loads((folder / "probes.json").read_text())
    rewards = RewardReader(out, base if lora else None, run.reading).rewards(conversations)
    manifest = Manifest(
        kind="reward",
        name=run.name,
        weights="lora" if lora else "full",
        base=Base(model=run.model.base, digest=weights_digest(base)) if lora else None,
        objectives=[Objective(name=run.objective, calibration=scale)],
        reading=run.reading.model_copy(update={"dtype": "bfloat16" if run.model.precision == "bf16" else "float32"}),
        tolerance={"float32": 1e-3, "bfloat16": max(0.1, 0.1 * scale.std), "float16": max(0.05, 0.05 * scale.std)},
        probes=[
            Probe(messages=messages, scores={run.objective: row[0]})
            for messages, row in zip(conversations, rewards, strict=True)
        ],
        training=_training(run, folder),
    )
    (out / "README.md").write_text(_card(manifest, run))
    return seal(out, manifest)


def export_expert(folder: Path) -> Artifact:
    """Write an expert run's artifact; its probes carry the mean log-probability of their last message, in float32."""
    run, base = _run(folder, ExpertRun)
    out = folder / "artifact"
    _clear(out)
    adapter, _ = read_adapter(folder / "model", run.name)
    write_adapter(adapter, out, run.model.base, torch.bfloat16)
    conversations = json.loads((folder / "probes.json").read_text())
    reading = reading_of(run, base)
    logprobs = ExpertReader(out, base, reading).mean_logprobs(conversations)
    manifest = Manifest(
        kind="expert",
        name=run.name,
        base=Base(model=run.model.base, digest=weights_digest(base)),
        objectives=[Objective(name=run.objective)],
        reading=reading,
        steering=Steering(family=run.family),
        tolerance={"float32": 1e-3, "bfloat16": 0.1, "float16": 0.05},
        probes=[Probe(messages=messages, logprob=each) for messages, each in zip(conversations, logprobs, strict=True)],
        training=_training(run, folder),
    )
    (out / "README.md").write_text(_card(manifest, run))
    return seal(out, manifest)


def reading_of(run: ExpertRun, base: Path) -> Reading:
    """How an expert's text becomes ids: the base's own template."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16" if run.model.precision == "bf16" else "float32"
    plain = Reading(max_length=run.preference.max_length, dtype=dtype)
    return plain.model_copy(update={"template": Renderer(load_tokenizer(base), plain).digest()})


def _run(folder: Path, kind: type[R]) -> tuple[R, Path]:
    run = read_recipe(str(folder / "recipe.yaml"))
    if not isinstance(run, kind):
        raise RecipeError(f"{folder / 'recipe.yaml'} is a recipe of kind {run.kind}")
    return run, locate(run.model.base, Path(run.cache) if run.cache else CACHE)


def write_report(
    folder: Path,
    run: RewardRun | ExpertRun,
    provenance: Mapping[str, Any],
    metrics: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
) -> None:
    """What the run folder says of itself: ``metrics.json``, ``history.jsonl``, ``data.json``, versions."""
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    (folder / "history.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in history))
    (folder / "data.json").write_text(json.dumps(provenance, indent=1) + "\n")
    (folder / "versions.json").write_text(json.dumps(libraries(), indent=1) + "\n")
    (folder / "recipe.yaml").write_text(dump(run))


def libraries() -> dict[str, str]:
    """Versions of the libraries that made a run."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except ModuleNotFoundError:
            continue
    return found


def _training(run: RewardRun | ExpertRun, folder: Path) -> Training:
    return Training(
        recipe=run.model_dump(exclude={"output", "cache"}),
        data=json.loads((folder / "data.json").read_text()),
        seed=run.optimisation.seed,
        metrics=_finite(json.loads((folder / "metrics.json").read_text())),
        licences=run.licences,
        libraries=json.loads((folder / "versions.json").read_text()),
    )


def _finite(value: Any) -> Any:
    """NaN is no JSON: a figure that is undefined becomes null, other numbers keep six digits."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, float):
        return round(value, 6) if value == value and abs(value) != float("inf") else None
    return value


def _clear(out: Path) -> None:
    if out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True)


def _write_classifier(saved: Path, out: Path, base: Path) -> None:
    """A full checkpoint as Hugging Face's …ForSequenceClassification: no LM head, the architecture renamed."""
    for shard in saved.glob("*.safetensors"):
        kept = {name: tensor for name, tensor in load_file(shard).items() if not name.startswith("lm_head.")}
        save_file(kept, out / shard.name, metadata={"format": "pt"})
    index = saved / "model.safetensors.index.json"
    if index.is_file():
        content = json.loads(index.read_text())
        content["weight_map"] = {k: v for k, v in content["weight_map"].items() if not k.startswith("lm_head.")}
        (out / index.name).write_text(json.dumps(content, indent=1) + "\n")
    config = json.loads((saved / "config.json").read_text())
    causal = config["architectures"][0].removeprefix("Reward")
    config["architectures"] = [causal.replace("ForCausalLM", "ForSequenceClassification")]
    config.pop("tureen_reading", None)
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    for name in TOKENIZER:
        if (base / name).is_file():
            shutil.copyfile(base / name, out / name)


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
