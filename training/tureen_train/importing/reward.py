"""Import a reward model of others as an artifact; :mod:`tureen_core.plain` reads it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tureen_core.artifact import MANIFEST, Artifact, ArtifactError, seal_artifact
from tureen_core.base import load_tokenizer, locate_base
from tureen_core.inputs import render_probe
from tureen_core.manifest import Manifest, Training
from tureen_core.plain.options import PlainError, PlainOptions
from tureen_core.plain.reward import make_plain_renderer, open_plain_reward
from tureen_core.plain.source_text import is_url, parse_hub_name
from tureen_core.tolerance import compute_tolerance
from tureen_train.importing.licences import find_licences
from tureen_train.importing.reward_weights import MERGE, write_adapter_weights, write_full_weights
from tureen_train.networks.imported_model import IMPORT
from tureen_train.networks.reward_reader import RewardReader, open_reader
from tureen_train.runs.reward_artifact import record_probes


@dataclass(frozen=True)
class RewardRequest:
    """What the user says of a reward model.

    Attributes:
        options: what its files do not tell.
        name: the artifact's name; by default the folder's.
        licences: of its weights; by default those that the model card names.
    """

    options: PlainOptions
    name: str | None
    licences: Sequence[str]


def import_reward_artifact(source: str, folder: Path, out: Path, request: RewardRequest) -> Artifact:
    """Write a plain reward model as an artifact with a model card, and prove that both score the probes alike.

    Args:
        source: what the user named.
        folder: the model's folder.
        out: an empty folder.

    Raises:
        PlainError: the model cannot be read.
        ArtifactError: the artifact does not verify, or scores otherwise.
        LicenceError: nobody names a licence.
    """
    if (folder / MANIFEST).exists():
        raise PlainError(f"{source} is an artifact already; copy its folder")
    licences = find_licences(request.licences, [folder])
    plain = open_plain_reward(folder, request.options, request.name)
    parts, manifest = plain.plain, plain.manifest
    assert parts is not None
    lora = manifest.weights == "lora"
    rule = write_adapter_weights(plain, parts, out) if lora else write_full_weights(plain, parts, out)
    training = Training(
        recipe={
            IMPORT: {
                "source": describe_source(source, folder),
                "form": parts.form,
                "options": request.options.model_dump(mode="json", exclude_defaults=True, exclude={"tokenizer"}),
            }
        },
        licences=licences,
    )
    manifest = manifest.model_copy(update={"head": rule, "training": training, "version": "", "files": {}})
    (out / "README.md").write_text(write_card(manifest), encoding="utf-8")
    artifact = seal_artifact(out, manifest)
    _check_texts(artifact, plain)
    reader = open_reader(artifact)
    prove_import(artifact, reader)
    if lora:  # readings without the adapter, by which a server notices that it is lost
        artifact = seal_artifact(out, record_probes(artifact.manifest, reader, trained=False))
    return artifact


def describe_source(source: str, folder: Path) -> str:
    """Describe where a model comes from, without a path of this machine or a password."""
    if is_url(source) and not source.startswith("hf://"):
        return re.sub(r"//[^/@]*@", "//", source)
    name = None if Path(source).expanduser().exists() else parse_hub_name(source)
    return folder.name if name is None else f"{name.repository}@{folder.name}"  # a snapshot is named by its commit


def _check_texts(artifact: Artifact, plain: Artifact) -> None:
    """Check that the saved tokenizer gives the ids of the one that was saved.

    Raises:
        ArtifactError: it does not.
    """
    reading, given = artifact.manifest.reading, artifact.manifest.input
    assert plain.plain is not None
    before = make_plain_renderer(plain.plain.tokenizer, reading)
    base = artifact.manifest.base
    saved = load_tokenizer(artifact.folder, own_pad=False) if base is None else load_tokenizer(locate_base(base.model))
    after = make_plain_renderer(saved, reading)
    same = all(
        render_probe(before, given, each).ids == render_probe(after, given, each).ids
        for each in artifact.manifest.probes
    )
    if not same or after.digest() != reading.template:
        if base is not None:
            raise ArtifactError(f"{artifact.name}: its tokenizer or its template is not that of its base; {MERGE}")
        raise ArtifactError(f"{artifact.name}: its tokenizer reads otherwise after it is saved; save it again")


def prove_import(artifact: Artifact, reader: RewardReader) -> None:
    """Score the probes from the artifact's files, and compare them with those of plain transformers.

    Raises:
        ArtifactError: one differs.
    """
    manifest = artifact.manifest
    rows = reader.score_probes(manifest.probes, manifest.input)
    for number, (probe, row) in enumerate(zip(manifest.probes, rows, strict=True)):
        for objective in manifest.objectives:
            seen = probe.scores.get(objective.name)
            if seen is None:
                continue
            found, allowed = row[objective.column], compute_tolerance(manifest, objective.name, "float32")
            if not abs(found - seen) <= allowed:  # so that NaN is refused, too
                raise ArtifactError(
                    f"{artifact.name}, probe {number}, {objective.name}: {found:.6g} from the artifact, {seen:.6g} by "
                    f"plain transformers, ±{allowed:g} allowed"
                )


def write_card(manifest: Manifest) -> str:
    """Write the model card: source, form, rewards, licences."""
    told = manifest.training.recipe[IMPORT]
    names = ", ".join(f"`{each.name}`" for each in manifest.objectives)
    calibrated = all(each.calibration is not None for each in manifest.objectives)
    scale = "calibrated" if calibrated else "not calibrated: served raw, and not added to other rewards"
    return "\n".join(
        [
            f"# {manifest.name}",
            "",
            f"A Tureen reward model for {names}, imported from `{told['source']}` (form `{told['form']}`).",
            "",
            f"Its rewards are {scale}.",
            "",
            *(f"Licence of the weights: {licence}" for licence in manifest.training.licences),
            "",
        ]
    )
