"""Open a plain reward model: recognise its form, make its manifest in memory, and score it by plain transformers."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tureen.errors import Unprocessable
from tureen_core import base
from tureen_core.artifact import Artifact, PlainParts
from tureen_core.inputs import render_probe
from tureen_core.manifest import Base, Manifest, Objective, Probe
from tureen_core.plain.bases import attach_base, compute_base_digest
from tureen_core.plain.checkpoint import Checkpoint, read_checkpoint
from tureen_core.plain.conversations import make_conversations, make_probes
from tureen_core.plain.digests import digest_files, digest_head
from tureen_core.plain.form import FormReading
from tureen_core.plain.forms import choose_form
from tureen_core.plain.options import NO_OPTIONS, PlainError, PlainOptions, count_nouns
from tureen_core.plain.quantised import dequantise_folder
from tureen_core.plain.run_parts import refuse_run_part
from tureen_core.plain.templates import choose_frame
from tureen_core.plain.tokenizer import load_plain_tokenizer, prepare_tokenizer
from tureen_core.reading import Reading
from tureen_core.template import Renderer

LONGEST = 32768  # tokens, where the configuration names no limit
NAMELESS = "reward"


@dataclass(frozen=True)
class DescribedReward:
    """A plain reward model as its small files and the headers of its weights describe it.

    Attributes:
        checkpoint: its configuration and tensors.
        form: the name of its form.
        read: what the form says.
        tokenizer: with the template that texts are rendered with.
        manifest: without digests and probes.
    """

    checkpoint: Checkpoint
    form: str
    read: FormReading
    tokenizer: Any
    manifest: Manifest


def describe_plain_reward(
    folder: Path,
    options: PlainOptions = NO_OPTIONS,
    name: str | None = None,
    unnamed: str = NAMELESS,
    download: bool = True,
    cache: Path = base.CACHE,
) -> DescribedReward:
    """Describe a folder without a manifest. Its weights are neither loaded nor digested.

    Args:
        options: what the files do not tell.
        name: the name of the artifact; by default the folder's.
        unnamed: the name of a reward that the files do not name; several are numbered.
        download: whether the base of an adapter may be fetched and dequantised.
        cache: the folder for copies whose weights are converted.

    Raises:
        PlainError: the form is unknown, or something must be told by an option.
    """
    folder = folder.expanduser().resolve()
    refuse_run_part(folder)
    checkpoint = attach_base(read_checkpoint(folder, cache), options, download)
    form = choose_form(checkpoint, options)
    tokenizer = load_plain_tokenizer(checkpoint, options)
    read = form.read(checkpoint, options, tokenizer)
    if read.own_template:
        tokenizer.chat_template = None
    if not read.prepared:
        prepare_tokenizer(tokenizer, checkpoint, options, read.template)
    reading = _make_reading(checkpoint, options, read, tokenizer)
    try:
        renderer = make_plain_renderer(tokenizer, reading)
    except ValueError as error:
        raise PlainError(f"{checkpoint.folder.name}: {error}; name another one with --tokenizer") from error
    _check_end(renderer, read, options, checkpoint)
    manifest = Manifest(
        kind="reward",
        input=read.input,
        gated=read.gate is not None,
        head=read.rule,
        name=name or clean_name(checkpoint.folder.name),
        weights="full" if read.base is None else "lora",
        base=read.base and Base(model=str(read.base), digest=""),
        objectives=_make_objectives(read, options, checkpoint, unnamed),
        reading=reading.model_copy(update={"template": renderer.digest()}),
    )
    return DescribedReward(checkpoint, form.name, read, tokenizer, manifest)


def open_plain_reward(
    folder: Path, options: PlainOptions = NO_OPTIONS, name: str | None = None, cache: Path | None = None
) -> Artifact:
    """Open a folder without a manifest as an artifact in memory. Its rewards are not calibrated.

    A dozen conversations are scored by plain transformers in float32. Their scores are the probes of the manifest. If
    the weights are quantised, the artifact is a copy with dequantised weights, see :mod:`tureen_core.plain.quantised`.

    Example::

        artifact = open_plain_reward(Path("checkpoints/trl-reward"))
        print(artifact.plain.form, [objective.name for objective in artifact.manifest.objectives])

    Args:
        options: what the files do not tell.
        name: the name of the artifact; by default the folder's.
        cache: the folder for copies whose weights are converted; None for the default one.

    Raises:
        PlainError: the form is unknown, a weight is missing, or something must be told by an option.
    """
    cache, folder = cache or base.CACHE, folder.expanduser().resolve()
    refuse_run_part(folder)
    found = describe_plain_reward(dequantise_folder(folder, cache), options, name, cache=cache)
    read, checkpoint = found.read, found.checkpoint
    checkpoint.refuse_codes()
    manifest = found.manifest.model_copy(
        update={
            "base": read.base and Base(model=str(read.base), digest=compute_base_digest(read.base)),
            "files": {**digest_files(checkpoint.folder), **digest_head(read.head)},
            "probes": _score_probes(found),
        }
    )
    manifest = manifest.model_copy(update={"version": manifest.identity()[:12]})
    parts = PlainParts(found.form, found.tokenizer, read.head, read.gate, read.extra_keys)
    return Artifact(read.convert() if read.convert else checkpoint.folder, manifest, parts)


def make_plain_renderer(tokenizer: Any, reading: Reading) -> Renderer:
    """Make the renderer of a plain model. Its pad token may be EOS: Tureen masks padding by length, not by id."""
    return Renderer(tokenizer, reading, own_pad=False)


def _check_end(renderer: Renderer, read: FormReading, options: PlainOptions, checkpoint: Checkpoint) -> None:
    """Ask where the reward is read, if texts end with the token that is also padding."""
    ends_with_pad = renderer.render_conversation(make_conversations()[0]).ids[-1] == read.skipped_token
    if ends_with_pad and options.pooling is None:
        mark = renderer.tokenizer.decode(read.skipped_token)
        raise PlainError(
            f"{checkpoint.folder.name}: texts end with {mark!r}, which is also the pad token of config.json. "
            "transformers and TRL then read the reward at the token before it, and other servers at it: choose "
            "--pooling last (before it) or --pooling eos (at it)"
        )


def clean_name(text: str) -> str:
    """Make a name of a folder's name: characters that a name cannot have become ``-``."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.")[:64] or NAMELESS


def _make_reading(checkpoint: Checkpoint, options: PlainOptions, read: FormReading, tokenizer: Any) -> Reading:
    config = checkpoint.text_config
    positions = read.positions or config.get("max_position_embeddings")
    limits = [positions, tokenizer.model_max_length]
    limit = min([each for each in limits if isinstance(each, int) and 8 <= each < 10**9], default=LONGEST)
    if options.max_length is not None and options.max_length > limit:
        raise PlainError(
            f"max_length: {checkpoint.folder.name} reads at most {limit} tokens, not {options.max_length}; leave it "
            "out or give a smaller number"
        )
    if read.eos == "append" and tokenizer.eos_token_id is None:
        raise PlainError(f"{checkpoint.folder.name}: this form ends texts with EOS, and the tokenizer has none")
    return Reading(
        pooling=read.pooling,
        bos=read.bos,
        eos=read.eos,
        max_length=options.max_length or limit,
        step_mark=read.step_mark,
        step_layout=read.step_layout,
        step_break=read.step_break,
        frame=choose_frame(options.template, read.framed, ends_itself=read.bos != "none" or read.eos != "none"),
    )


def _make_objectives(read: FormReading, options: PlainOptions, checkpoint: Checkpoint, unnamed: str) -> list[Objective]:
    """Name the columns of the head by the options, by the labels of the files, or by ``unnamed``."""
    columns = list(read.columns or range(_count_columns(read)))
    if read.gate is not None:
        columns.append(len(columns))
    labels = [] if list(read.labels) == _number_names(NAMELESS, len(columns)) else read.labels
    names: Sequence[str] = options.objectives or labels or _number_names(unnamed, len(columns))
    if len(names) != len(columns):
        raise PlainError(
            f"objectives: {checkpoint.folder.name} has {count_nouns(len(columns), 'reward')} and was given "
            f"{count_nouns(len(names), 'name')}"
        )
    cleaned = [clean_name(each) for each in names]
    if len(set(cleaned)) < len(cleaned):
        alike = next(each for each in cleaned if cleaned.count(each) > 1)
        if options.objectives:
            raise PlainError(f"objectives: two are called {alike!r}; give each a name of its own")
        raise PlainError(f"{checkpoint.folder.name}: two labels are called {alike!r}; name all with --objectives")
    return [
        Objective(name=each, column=column, calibration=None) for each, column in zip(cleaned, columns, strict=True)
    ]


def _number_names(name: str, count: int) -> list[str]:
    return [name] if count == 1 else [f"{name}-{index}" for index in range(count)]


def _count_columns(read: FormReading) -> int:
    if read.head is not None:
        return read.head.rewards
    if not read.labels:
        raise ValueError("a form without a head names its labels")
    return len(read.labels)


def _score_probes(found: DescribedReward) -> list[Probe]:
    """Score the conversations by plain transformers."""
    read, manifest, name = found.read, found.manifest, found.checkpoint.folder.name
    renderer = make_plain_renderer(found.tokenizer, manifest.reading)
    score = read.open_reference()
    probes, refused = [], ""
    for probe in make_probes(read.input):
        try:
            ids = render_probe(renderer, read.input, probe).ids
        except Unprocessable as error:  # a template of pairs does not read longer conversations
            refused = str(error)
            continue
        values = score(ids)
        if not all(map(math.isfinite, values)):
            raise PlainError(f"{name}: a reward is {values}; a weight may be damaged, copy it again")
        named = {each.name: values[each.column] for each in manifest.objectives if each.column < len(values)}
        probes.append(probe.model_copy(update={"scores": named}))
    if not probes:
        raise PlainError(f"{name}: {refused}")
    return probes
