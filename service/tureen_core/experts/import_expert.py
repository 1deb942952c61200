"""Import an expert that others trained: a plain folder becomes an expert artifact with proven probes.

A plain LoRA is read exactly. For DoRA, other adapters that PEFT can merge, and whole models, the difference from the
base is approximated (:mod:`tureen_core.experts.weight_differences`). PEFT, or the whole model itself, says what the
source gives for the probes, and the artifact's own readings are compared with that.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tureen_core.adapter_files import read_adapter, write_adapter
from tureen_core.artifact import Artifact, Base, Manifest, Objective, Probe, Training, seal_artifact
from tureen_core.base import digest_weights, load_tokenizer
from tureen_core.experts.expert_probes import record_expert_probes
from tureen_core.experts.expert_reader import ExpertReader, compute_mean_logprobs
from tureen_core.experts.low_rank import BY_ENERGY, RankChoice
from tureen_core.experts.opened_models import (
    Method,
    attach_adapter,
    find_method,
    merge_adapter_into,
    open_model,
    read_named_base,
)
from tureen_core.experts.weight_differences import Approximation, approximate_difference
from tureen_core.lora import Adapter, SoupError
from tureen_core.preference import NAME
from tureen_core.reading import Reading
from tureen_core.steering import SoupSteering
from tureen_core.template import Renderer
from tureen_core.tolerance import BARE, LOGPROB, NOISE, compute_difference, get_reading, share_tolerance

log = logging.getLogger(__name__)
TALKS = (
    ("Why do leaves fall in autumn?", "Days grow short, so the tree lets its leaves go and rests until spring."),
    ("Write a function that adds two numbers.", "def add(a, b):\n    return a + b"),
    ("Should I tell my friend the truth?", "Yes. Be kind about it, and listen to what they say."),
    ("Name three colours.", "Red, green and blue!"),
)


@dataclass(frozen=True)
class ExpertCard:
    """What an imported expert is called and what it stands on.

    Attributes:
        name: the artifact's name.
        objective: what its weight is called in requests.
        family: the policy family that it belongs to.
        base: the base as the manifest names it: a folder, or the name of a packaged base.
        digest: of the base's weights; computed if empty.
        licences: of its weights and data.

    Raises:
        SoupError: a name has other letters than those of a name.
    """

    name: str
    objective: str
    family: str
    base: str
    digest: str = ""
    licences: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in (self.name, self.objective, self.family):
            if not NAME.fullmatch(name):
                raise SoupError(f"{name!r} cannot be a name: use 1 to 64 of letters, digits, '_', '.', '-'")


def import_expert(
    source: Path,
    out: Path,
    base: Path,
    card: ExpertCard,
    choice: RankChoice = BY_ENERGY,
    device: str = "cpu",
) -> Artifact:
    """Write a plain folder as a sealed expert artifact.

    Example::

        card = ExpertCard("funny", "funny", "smollm2", "smollm2-135m-instruct")
        import_expert(Path("dora-funny"), Path("artifacts/funny"), locate_base(card.base), card, RankChoice(rank=32))

    Args:
        source: a PEFT adapter, or a whole model of the base's architecture.
        out: an empty folder, or one that does not exist.
        base: the base's folder.
        choice: the ranks, where the expert is approximated.
        device: where the models run. A whole model needs 8 bytes of memory for each parameter.

    Raises:
        SoupError: the source cannot be an expert on this base, or an approximation captures too little of it.
        ArtifactError: the probes cannot show that the expert is there.
        BaseError: the base's tokenizer cannot be used.
    """
    method = find_method(source, card.name)
    digest = card.digest or digest_weights(base)
    _check_named_base(source, card, digest)
    plain = Reading()
    renderer = Renderer(load_tokenizer(base), plain)
    _compare_templates(source, renderer, card.name)
    probes = [Probe(messages=_make_talk(question, answer)) for question, answer in TALKS]
    found, wanted = _read_source(method, source, base, card.name, choice, torch.device(device), renderer, probes)
    write_adapter(found.adapter, out, card.base)
    manifest = Manifest(
        kind="expert",
        name=card.name,
        base=Base(model=card.base, digest=digest),
        objectives=[Objective(name=card.objective)],
        reading=plain.model_copy(update={"template": renderer.digest()}),
        steering=SoupSteering(family=card.family),
        probes=probes,
        training=_describe_import(source, method, card, choice),
    )
    manifest = record_expert_probes(manifest, ExpertReader(out, base, manifest.reading, device=device))
    figures = {**found.figures, **_compare_readings(manifest, wanted, method)}
    log.info("%s: its log-probabilities differ from the source's by %.3g nats", card.name, figures["difference"])
    training = manifest.training.model_copy(update={"metrics": {"import": figures}})
    return seal_artifact(out, manifest.model_copy(update={"training": training}))


def _make_talk(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _describe_import(source: Path, method: Method, card: ExpertCard, choice: RankChoice) -> Training:
    ranks = {} if method == "lora" else {"rank": choice.rank, "energy": choice.target, "accept": choice.least}
    return Training(
        recipe={"import": {"source": source.resolve().name, "method": method, **ranks}},
        licences=list(card.licences),
        libraries={name: version(name) for name in ("torch", "transformers", "peft")},
    )


def _check_named_base(source: Path, card: ExpertCard, digest: str) -> None:
    """Refuse an adapter whose configuration names another base that is on this machine; tell one that is not."""
    named = read_named_base(source)
    if named is None or named == card.base:
        return
    folder = Path(named).expanduser()
    if not any(folder.glob("*.safetensors")):
        log.info("%s: it was trained on %s, which is not on this machine to be compared", card.name, named)
    elif digest_weights(folder) != digest:
        raise SoupError(f"{card.name}: it was trained on {named}, whose weights are not those of {card.base}")


def _compare_templates(source: Path, renderer: Renderer, name: str) -> None:
    """Warn of a chat template beside the source that is not the base's."""
    own, config = source / "chat_template.jinja", source / "tokenizer_config.json"
    template = own.read_text(encoding="utf-8") if own.is_file() else None
    if template is None and config.is_file():
        template = json.loads(config.read_text(encoding="utf-8")).get("chat_template")
    if isinstance(template, str) and template != renderer.tokenizer.chat_template:
        log.warning("%s: its folder has another chat template than the base, whose template is used", name)


def _read_source(
    method: Method,
    source: Path,
    base: Path,
    name: str,
    choice: RankChoice,
    device: torch.device,
    renderer: Renderer,
    probes: Sequence[Probe],
) -> tuple[Approximation, list[float]]:
    """Read the source as an adapter, and read the probes by the source itself."""
    bare = open_model(base, name, device)
    if method == "lora":
        adapter, _ = read_adapter(source, name, base=bare.state_dict())
        _check_modules(adapter, bare)
        found = Approximation(adapter, {"energy": 1.0})
        tuned = attach_adapter(bare, source, name)
    else:
        whole = open_model(source if method == "full" else base, name, device)
        tuned = whole if method == "full" else merge_adapter_into(whole, source, name)
        found = approximate_difference(bare, tuned, choice, name)
    return found, compute_mean_logprobs(tuned, renderer, probes)


def _check_modules(adapter: Adapter, model: Any) -> None:
    """Refuse an adapter of a module that the base lacks or has otherwise, or with a value that is not finite."""
    modules: Mapping[str, nn.Module] = dict(model.named_modules())
    for path, pair in adapter.modules.items():
        module = modules.get(path)
        if module is None:
            headless = f"{model.base_model_prefix}.{path}" in modules
            how = "save it from AutoModelForCausalLM" if headless else "give its own base"
            raise SoupError(f"{adapter.name}: it adapts {path}, and the base has no such module: {how}")
        if not isinstance(module, nn.Linear):
            raise SoupError(f"{adapter.name}: {path} is a {type(module).__name__}; only Linear modules can be souped")
        shape, own = [pair.b.shape[0], pair.a.shape[1]], [module.out_features, module.in_features]
        if own != shape:
            raise SoupError(f"{adapter.name}: it adapts {path} as {shape}, and the base has {own}: give its own base")
        if not bool(pair.a.isfinite().all() and pair.b.isfinite().all()):
            raise SoupError(f"{adapter.name}: {path} holds a value that is not finite")


def _compare_readings(manifest: Manifest, wanted: Sequence[float], method: Method) -> dict[str, float]:
    """Compare the written expert's readings with the source's.

    Raises:
        SoupError: a LoRA reads otherwise than by PEFT, or an approximation is no nearer to the source than the base.
    """
    name, probes = manifest.name, manifest.probes
    found = [probe.logprob or 0.0 for probe in probes]
    bare = [get_reading(probe, LOGPROB, BARE) or 0.0 for probe in probes]
    difference, effect = compute_difference(wanted, found), compute_difference(wanted, bare)
    if method == "lora" and not difference <= share_tolerance(wanted, bare, "float32"):
        raise SoupError(f"{name}: its log-probabilities differ by {difference:.3g} from PEFT's; report this adapter")
    if not difference < max(effect, NOISE):
        raise SoupError(
            f"{name}: its log-probabilities are {difference:.3g} nats from the source's, and the base's only "
            f"{effect:.3g}: capture more energy"
        )
    return {"difference": difference, "effect": effect}
