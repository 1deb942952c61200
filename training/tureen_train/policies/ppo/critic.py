"""The critic of PPO: a reward model that values the text before each token of an answer, and what it starts from."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, set_seed

from tureen_core.artifact import HEAD, Artifact, open_artifact, read_head_tensors, read_weights
from tureen_core.base import BaseError, digest_weights, load_tokenizer, locate_base
from tureen_core.head_rule import HeadRule
from tureen_core.packed.attention import run_packed
from tureen_core.reading import Reading
from tureen_train.config import ArtifactSource, ExpertRun, PpoPolicy, RecipeError
from tureen_train.networks.answer_batch import AnswerBatch
from tureen_train.networks.reward_model import add_lora, load_reward_model
from tureen_train.networks.sharded import gather_weights
from tureen_train.runs.folder import find_cache

NEW = "base"  # of ``policy.critic``: the policy's base with a new head

log = logging.getLogger("tureen.train")


@dataclass(frozen=True)
class CriticStart:
    """What a critic starts from. Its values are ``scale`` · reward + ``shift``.

    Attributes:
        folder: the base, or a full checkpoint of a reward model.
        artifact: the reward model; None for a base with a new head.
        column: of the head, which gives the reward.
        rows: of the head.
    """

    folder: Path
    artifact: Artifact | None = None
    column: int = 0
    rows: int = 1
    scale: float = 1.0
    shift: float = 0.0


class Critic(nn.Module):
    """Values texts: ``scale`` · the reward that its model reads there + a trained ``shift``.

    Args:
        model: of a class of :func:`tureen_train.networks.reward_model.make_reward_class`.
        start: what it started from.
    """

    def __init__(self, model: Any, start: CriticStart) -> None:
        super().__init__()
        self.model = model
        self.column, self.scale = start.column, start.scale
        self.shift = nn.Parameter(torch.tensor([start.shift]))

    def forward(self, answers: AnswerBatch) -> Tensor:
        """Compute the values ``[N]``, in float32, of the texts before each token of the answers."""
        backbone, device = self.model.base_model, self.shift.device
        if answers.packing is None:
            ids, mask = answers.ids.to(device), answers.attention_mask.to(device)
            states = backbone(input_ids=ids, attention_mask=mask, use_cache=False)[0].flatten(0, 1)
        else:
            states = run_packed(backbone, answers.packing, device=device)
        rewards = self.model.score(states.index_select(0, answers.places.to(device)))
        values: Tensor = rewards[:, self.column] * self.scale + self.shift.float()
        return values


def find_critic_start(run: ExpertRun, base: Path) -> CriticStart:
    """Find what the critic starts from: ``policy.critic``, else the first artifact that fits among weighted rewards.

    Call it before DeepSpeed is set up: after that, under ZeRO-3, any model that is opened is sharded.

    Raises:
        RecipeError: ``policy.critic`` names an artifact that cannot be a critic of this policy.
        ArtifactError: an artifact cannot be read.
    """
    assert isinstance(run.policy, PpoPolicy)
    named = run.policy.critic
    sources = [each for each in run.rewards if isinstance(each, ArtifactSource)]
    if named not in (None, NEW):
        alone = ArtifactSource(source="artifact", path=str(named))
        source = next((each for each in sources if _is_same(each.path, alone.path)), alone)
        return open_critic_start(source, run, base)
    for source in [each for each in sources if each.weight] if named is None else []:
        try:
            return open_critic_start(source, run, base)
        except RecipeError as error:
            log.warning("%s", error)
    log.info("the critic is the policy's base with a new head")
    return CriticStart(base)


def _is_same(path: str, other: str) -> bool:
    return Path(path).expanduser().resolve() == Path(other).expanduser().resolve()


def open_critic_start(source: ArtifactSource, run: ExpertRun, base: Path) -> CriticStart:
    """Open the artifact of a source as the start of a critic, with values on the scale of the source's rewards.

    Raises:
        RecipeError: it cannot be a critic of this policy.
        ArtifactError: the artifact cannot be read.
    """
    artifact = open_artifact(Path(source.path))
    manifest = artifact.manifest
    folder = artifact.folder if manifest.weights == "full" else _find_base(artifact, run)
    if reason := _find_obstacle(artifact, folder, base):
        raise RecipeError(f"policy.critic: {artifact.name} cannot be the critic: {reason}; name another, or {NEW}")
    objective = next((each for each in manifest.objectives if each.name == source.objective), manifest.objectives[0])
    rows = _count_rows(artifact)
    if objective.column >= rows:
        raise RecipeError(
            f"policy.critic: {objective.name} of {artifact.name} is made by a gate; name another, or {NEW}"
        )
    scale = objective.calibration if source.scale == "calibrated" else None
    size, mean = (1.0, 0.0) if scale is None else (scale.std, scale.mean)
    log.info("the critic starts from %s of %s", objective.name, artifact.name)
    weight = source.weight or 1.0
    return CriticStart(folder, artifact, objective.column, rows, weight / size, -weight * mean / size)


def _count_rows(artifact: Artifact) -> int:
    """The rows of an artifact's head."""
    full = artifact.manifest.weights == "full"
    head = read_head_tensors(artifact.folder)[f"{HEAD}.weight"] if full else read_weights(artifact)[1]
    assert head is not None  # a verified reward artifact has one
    return len(head)


def _find_base(artifact: Artifact, run: ExpertRun) -> Path:
    stands_on = artifact.manifest.base
    assert stands_on is not None  # a verified LoRA artifact has one
    try:
        folder = locate_base(stands_on.model, find_cache(run))
    except BaseError as error:
        raise RecipeError(f"policy.critic: the base of {artifact.name}: {error}") from error
    if digest_weights(folder) != stands_on.digest:
        raise RecipeError(f"policy.critic: {artifact.name} was trained on other weights than those in {folder}")
    return folder


def _find_obstacle(artifact: Artifact, folder: Path, base: Path) -> str:
    """Say why an artifact over ``folder`` cannot value the texts of a policy on ``base``; empty if it can."""
    manifest = artifact.manifest
    if manifest.kind != "reward" or manifest.input != "conversation":
        return f"it is no reward model of conversations, but a model of kind {manifest.kind} of a {manifest.input}"
    if manifest.head.model_copy(update={"gate_at": "prompt"}) != HeadRule():
        return "its head is not a plain linear one"
    if type(AutoConfig.from_pretrained(folder)) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return "it is not a causal model, so its tokens see the later ones"
    if folder != base and load_tokenizer(folder, own_pad=False).get_vocab() != load_tokenizer(base).get_vocab():
        return "its tokens are others than the policy's"
    return ""


def make_critic(start: CriticStart, run: ExpertRun, reading: Reading) -> Critic:
    """Make the critic: with a LoRA where the policy has one, else with whole weights.

    An artifact's own LoRA is trained on, or merged where whole weights are trained. Its base gets the recipe's LoRA
    where it has none. A new head starts at 0, so that all values do.

    Args:
        reading: the policy's.
    """
    zero, lora = run.scale.zero, run.model.lora
    model = load_reward_model(start.folder, run.model, reading, zero, start.rows)
    if not model.config.tie_word_embeddings:
        model.get_output_embeddings().requires_grad_(False)  # values do not depend on it
    adapted = start.artifact is not None and start.artifact.manifest.weights == "lora"
    if start.artifact is None:
        with gather_weights([model.score.weight], zero == 3), torch.no_grad():
            model.score.weight.zero_()
    if adapted and lora is None:
        assert start.artifact is not None
        merge_artifact(model, start.artifact, zero == 3)
    elif adapted:
        assert start.artifact is not None
        folder = start.artifact.folder
        model = PeftModel.from_pretrained(model, folder, is_trainable=True, autocast_adapter_dtype=zero < 3)
    elif lora is not None:
        set_seed(run.optimisation.seed)  # loading draws other numbers where DeepSpeed shards
        model = add_lora(model, run.model, zero)
    return Critic(model.get_base_model() if isinstance(model, PeftModel) else model, start)


def merge_artifact(model: Any, artifact: Artifact, sharded: bool) -> None:
    """Add a LoRA artifact's adapter to the weights of its base, in float32, and take its head.

    Args:
        model: with a head of as many rows as the artifact's.
        sharded: whether the weights are ZeRO-3's.
    """
    adapter, head = read_weights(artifact)
    assert head is not None  # a verified reward artifact has one
    for path, pair in adapter.modules.items():
        weight = model.get_submodule(path).weight
        with gather_weights([weight], sharded), torch.no_grad():
            weight.copy_(weight.float() + pair.scale * (pair.b.float() @ pair.a.float()).to(weight.device))
    with gather_weights([model.score.weight], sharded), torch.no_grad():
        model.score.weight.copy_(head)
