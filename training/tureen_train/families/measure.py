"""Measure a family: the answers at each mix to the same held-out prompts, and their rewards."""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tureen_core.artifact import MANIFEST, Artifact, open_artifact
from tureen_core.base import load_tokenizer, locate_base
from tureen_core.template import Renderer
from tureen_train.config import FamilyRun, RecipeError
from tureen_train.config.rollouts import ArtifactSource, Sampling
from tureen_train.families.answers import AnswerFile, MeasuredAnswer
from tureen_train.families.export import stack_experts
from tureen_train.families.figures import MeasuredFamily
from tureen_train.families.mixes import Mix, name_mix, plan_mixes, plan_sweeps
from tureen_train.families.souped_model import SoupedModel
from tureen_train.networks.reward_reader import ignore_progress
from tureen_train.policies.encoding import encode_prompt
from tureen_train.policies.rollouts.artifact_rewards import complete_source
from tureen_train.policies.rollouts.contract import Prompt, Sample
from tureen_train.policies.rollouts.prompts import collect_prompts
from tureen_train.policies.rollouts.reward_sum import WeightedRewarder
from tureen_train.policies.rollouts.rewards import open_rewarder
from tureen_train.policies.rollouts.sampler import ProcessSampler
from tureen_train.records.run_data import draw_records, load_data

Progress = Callable[[int, int], object]
HELD_AT_ONCE = 8  # answers whose log-probabilities of the whole vocabulary are in memory while the weights change


class FamilyMeasurer:
    """Answers prompts at a mix and rewards the answers.

    Args:
        model: the base with its experts.
        renderer: makes the prompts' ids.
        rewarder: of all objectives and judges.
        judges: the name of each objective's judge, for those that have one.
        prompts: the held-out prompts.
        sampling: one answer to each.
        seed: for the draws of answers.
    """

    def __init__(
        self,
        model: SoupedModel,
        renderer: Renderer,
        rewarder: WeightedRewarder,
        judges: Mapping[str, str],
        prompts: Sequence[Prompt],
        sampling: Sampling,
        seed: int,
    ) -> None:
        self.model = model
        self.renderer = renderer
        self.rewarder = rewarder
        self.judges = judges
        self.prompts = prompts
        self.sampling = sampling
        self.seed = seed

    def measure(self, mix: Mix) -> list[MeasuredAnswer]:
        """Measure one mix.

        The base gets the rewards of all objectives and judges. An expert alone gets those of all objectives and of its
        own judge, and its divergence from the base. A mix of experts gets only the rewards of their objectives.

        Raises:
            RecipeError: an answer has no reward.
        """
        with self.model.at(mix) as model:
            sampler = ProcessSampler(model, self.renderer)
            samples = [row[0] for row in sampler.sample(self.prompts, self.sampling, self.seed, ignore_progress)]
        kls = self._diverge(mix, samples) if len(mix) == 1 else [None] * len(samples)
        rewarder = self.rewarder.narrow(self._choose_rewards(mix))
        rewards = [row[0] for row in rewarder.reward(self.prompts, [[each] for each in samples], ignore_progress)]
        for reward in rewards:
            if reward.total is None:
                raise RecipeError(f"{name_mix(mix)}: an answer has no reward: {reward.error}")
        return [
            MeasuredAnswer(
                name_mix(mix), prompt.id, sample.text, len(sample.ids), sample.finished, dict(reward.values), kl
            )
            for prompt, sample, reward, kl in zip(self.prompts, samples, rewards, kls, strict=True)
        ]

    def _choose_rewards(self, mix: Mix) -> Collection[str]:
        """The names of the rewards that a mix gets."""
        if len(mix) > 1:
            return list(mix)
        others = {judge for name, judge in self.judges.items() if mix and name not in mix}
        return [name for name in self.rewarder.names if name not in others]

    @torch.inference_mode()
    def _diverge(self, mix: Mix, samples: Sequence[Sample]) -> list[float | None]:
        """Compute for each answer the mean over its tokens of KL(mix ‖ base)."""
        texts = [
            ([*encode_prompt(self.renderer, prompt.messages, prompt.template_arguments), *sample.ids], len(sample.ids))
            for prompt, sample in zip(self.prompts, samples, strict=True)
        ]
        found: list[float | None] = []
        for start in range(0, len(texts), HELD_AT_ONCE):
            part = texts[start : start + HELD_AT_ONCE]
            with self.model.at(mix) as model:
                mixed = [_answer_logprobs(model, *text) for text in part]
            for text, own in zip(part, mixed, strict=True):
                bare = _answer_logprobs(self.model.model, *text)
                found.append(float((own.exp() * (own - bare)).sum(-1).mean()))
        return found


def _answer_logprobs(model: Any, ids: Sequence[int], answer: int) -> Tensor:
    """The log-probabilities ``[answer, V]`` of the last ``answer`` tokens' predictions, in float32."""
    row = torch.tensor([ids], device=model.device)
    logits = model(input_ids=row, use_cache=False, logits_to_keep=answer + 1).logits[0, :-1]
    return torch.log_softmax(logits.float(), -1)


def find_prompts(family: FamilyRun, renderer: Renderer) -> list[Prompt]:
    """Draw the held-out prompts by which a family is measured; none that is longer than ``sampling.max_prompt``.

    Raises:
        RecipeError: no prompt is held out, or none is short enough.
    """
    run = family.plan_expert(next(iter(family.objectives)), 0)
    data, measure = family.measure.data or run.data, family.measure
    split = load_data(data.model_copy(update={"eval_limit": None}))
    held = [record for records in split.eval.values() for record in records if record.prompt]
    once = list({record.prompt_key: record for record in held}.values())
    found = collect_prompts(draw_records(once, measure.count, data.seed), renderer, measure.sampling.max_prompt)
    if not found.prompts:
        raise RecipeError("measure: no held-out prompt can be answered: raise data.holdout, or sampling.max_prompt")
    return list(found.prompts)


def list_sources(family: FamilyRun) -> tuple[list[ArtifactSource], Mapping[str, str]]:
    """List the rewards and the second judges of all objectives, named for the measurement. Their sum is not used.

    Returns:
        The sources; and the name of each objective's judge, for those that have one.
    """
    rewards = [each.reward.model_copy(update={"name": name, "weight": 0.0}) for name, each in family.objectives.items()]
    judges = {name: f"{name}-judge" for name, each in family.objectives.items() if each.judge}
    second = [
        each.judge.model_copy(update={"name": judges[name], "weight": 0.0})
        for name, each in family.objectives.items()
        if each.judge
    ]
    return [*rewards, *second], judges


def check_rewards(family: FamilyRun) -> None:
    """Check that all rewards and judges can measure a family, before anything is trained.

    Raises:
        RecipeError: one has no such objective, no calibration, or compares answers, of which there is one to a prompt.
        ArtifactError: a folder is no artifact of a reward model.
    """
    for source in list_sources(family)[0]:
        artifact = open_artifact(Path(source.path))
        reads = artifact.manifest.input
        if reads != "conversation":
            raise RecipeError(
                f"objectives: {source.path} reads a {reads}; name a reward model that reads conversations"
            )
        complete_source(source, artifact.manifest)


def open_base(base: Path, stack: Any) -> SoupedModel:
    """Open the base with its experts: in bfloat16 on a GPU, else in float32."""
    return SoupedModel(base, stack, torch.bfloat16 if torch.cuda.is_available() else torch.float32)


def measure_family(family: FamilyRun, experts: Mapping[str, Path], folder: Path, done: Progress) -> MeasuredFamily:
    """Measure a family, and go on with what an earlier, broken measurement left in ``folder``.

    Args:
        experts: the artifact of each expert.
        folder: for ``answers.jsonl``. What it holds must be of the same experts: its file ``measured.json`` says so.
        done: called with the number of mixes that are measured, and of all.

    Raises:
        RecipeError: no prompt is held out, a reward fails, or ``folder`` holds the answers of other experts.
    """
    artifacts = {name: open_artifact(path) for name, path in experts.items()}
    _claim(folder, family, artifacts)
    sources, judges = list_sources(family)
    reading = next(iter(artifacts.values())).manifest
    assert reading.base is not None  # experts have one
    base = locate_base(reading.base.model)
    renderer = Renderer(load_tokenizer(base), reading.reading)
    prompts = find_prompts(family, renderer)
    measurer = FamilyMeasurer(
        open_base(base, stack_experts(list(artifacts.values()))),
        renderer,
        open_rewarder(sources, folder),
        judges,
        prompts,
        family.measure.sampling,
        seed=0,
    )
    sweeps = plan_sweeps(family.pairs, family.measure.steps)
    mixes = plan_mixes(list(family.objectives), sweeps)
    file = AnswerFile(folder / "answers.jsonl", [each.id for each in prompts])
    answers = file.complete(mixes, measurer.measure, lambda count: done(count, len(mixes)))
    texts = {each.id: str(each.messages[-1]["content"]) for each in prompts}
    return MeasuredFamily(family.name, list(family.objectives), judges, sweeps, answers, texts)


def _claim(folder: Path, family: FamilyRun, artifacts: Mapping[str, Artifact]) -> None:
    """Note what is measured.

    Raises:
        RecipeError: the folder holds a measurement of something else.
    """
    own = {
        "experts": {name: digest_manifest(each) for name, each in artifacts.items()},
        "measure": family.measure.model_dump(mode="json", exclude={"steps"}),
    }
    path = folder / "measured.json"
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != own:
        raise RecipeError(f"{folder} holds a measurement of other experts or prompts: delete it to measure again")
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(own, indent=1) + "\n", encoding="utf-8")


def digest_manifest(artifact: Artifact) -> str:
    """A hash of an artifact's manifest, which names the digests of its files."""
    return hashlib.sha256((artifact.folder / MANIFEST).read_bytes()).hexdigest()[:16]
