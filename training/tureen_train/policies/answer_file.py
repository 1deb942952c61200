"""A file of a policy's answers to the prompts of a recipe, as RLPHF's first step makes it.

A row is an item, ``{id, prompt, candidates}``: ``judge annotate``, ``tureen label`` and ``tureen score`` read it. The
file only grows; a broken run goes on where it stopped.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tureen.records.dialogue import assistant_turn
from tureen_core.base import load_tokenizer
from tureen_core.template import Renderer
from tureen_train.config import ExpertRun, Recipe, RecipeError, format_recipe, read_recipe
from tureen_train.networks.reward_reader import Done, ignore_progress
from tureen_train.policies.opening import open_policy, open_start
from tureen_train.policies.rollouts.contract import Prompt, Sample, Sampler
from tureen_train.policies.rollouts.prompts import check_prompts, collect_prompts
from tureen_train.policies.rollouts.sampler import ProcessSampler
from tureen_train.policies.rollouts.server_sampler import ServerSampler
from tureen_train.policies.run import state_preferences
from tureen_train.records.run_data import load_data
from tureen_train.runs.folder import find_base
from tureen_train.runs.line_file import LineFile
from tureen_train.runs.rereading import make_expert_reading

# the parts of a recipe that decide the prompts and the answers
DECIDING = ("data", "model", "preferences", "sampling")

log = logging.getLogger("tureen.train")


def claim_file(run: ExpertRun, target: Path, overwrite: bool) -> LineFile:
    """Begin a file of answers, or go on with one that the same recipe began.

    Args:
        overwrite: begin anew, whatever stands there.

    Raises:
        RecipeError: another recipe made what stands there.
    """
    beside = target.with_name(f"{target.name}.recipe.yaml")
    if overwrite:
        target.unlink(missing_ok=True)
        beside.unlink(missing_ok=True)
    if beside.is_file():
        before = read_recipe(str(beside))
        changed = next((name for name in DECIDING if _part(before, name) != _part(run, name)), None)
        if changed is not None or before.optimisation.seed != run.optimisation.seed:
            raise RecipeError(
                f"{target} was made by another recipe (not the same: {changed or 'optimisation.seed'}): set it back, or"
                " begin anew with --overwrite"
            )
    elif target.exists():
        raise RecipeError(f"{target} is there already; name another file, or replace it with --overwrite")
    beside.write_text(format_recipe(run), encoding="utf-8")
    return LineFile(target)


def _part(run: Recipe, name: str) -> Any:
    return run.model_dump(mode="json").get(name)


def collect_run_prompts(run: ExpertRun) -> tuple[Sequence[Prompt], Renderer]:
    """Collect the training prompts of a recipe, with its preferences. Returns them and what renders them.

    Raises:
        DataError: a file cannot be read.
        RecipeError: no prompt is left, or too many are left out.
    """
    base = find_base(run)
    renderer = Renderer(load_tokenizer(base), make_expert_reading(run, base))
    data = state_preferences(load_data(run.data, prompts=True), run.preferences)
    found = collect_prompts(data.train, renderer, run.sampling.max_prompt)
    check_prompts(found, run.data.most_dropped)
    told = found.report.reasons or "none"
    log.info("prompts: %d; left out: %s; repeated: %d", found.report.kept, told, found.repeated)
    return found.prompts, renderer


def open_sampler(run: ExpertRun, renderer: Renderer) -> Sampler:
    """Open what writes the answers of a recipe that is not being trained: its base, with ``model.start`` if given.

    Raises:
        RecipeError: the engine is not one for a single model, or the start does not fit the base.
    """
    if run.sampling.engine == "server":
        return ServerSampler(str(run.sampling.url), run.sampling.model, run.sampling.preferences)
    if run.sampling.engine == "vllm":
        raise RecipeError(
            "sampling.engine: answers are written to a file with process or server; serve the model with vLLM, and set"
            " engine: server"
        )
    base = find_base(run)
    model = open_policy(run, base, open_start(run, base))
    return ProcessSampler(model.to("cuda" if torch.cuda.is_available() else "cpu"), renderer)


@dataclass
class AnswerCounts:
    """What became of the answers that were written now: all, and of them the unfinished and the empty ones."""

    prompts: int = 0
    answers: int = 0
    unfinished: int = 0
    empty: int = 0

    def add(self, written: Sequence[Sequence[Sample]]) -> None:
        """Count the answers to some prompts."""
        samples = [sample for row in written for sample in row]
        self.prompts += len(written)
        self.answers += len(samples)
        self.unfinished += sum(not sample.finished for sample in samples)
        self.empty += sum(not sample.text.strip() for sample in samples)


def write_answers(run: ExpertRun, target: Path, overwrite: bool, done: Done) -> AnswerCounts:
    """Write the answers to a recipe's prompts into a file, without those that stand there.

    Args:
        done: called with the number of further prompts that are answered.

    Raises:
        DataError: the data cannot be read.
        RecipeError: there is no prompt, the file is another recipe's, or the policy cannot be opened.
        TureenError: a server fails.
    """
    prompts, renderer = collect_run_prompts(run)
    file = claim_file(run, target, overwrite)
    known = {row["id"] for row in file.rows}
    left = [prompt for prompt in prompts if prompt.id not in known]
    counts = AnswerCounts()
    if not left:
        return counts
    sampler = open_sampler(run, renderer)
    at_once = max(1, run.sampling.batch // run.sampling.count)
    for start in range(0, len(left), at_once):
        part = left[start : start + at_once]
        written = sampler.sample(part, run.sampling, run.optimisation.seed, ignore_progress)
        file.extend(_describe_answers(*each) for each in zip(part, written, strict=True))
        counts.add(written)
        done(len(part))
    return counts


def _describe_answers(prompt: Prompt, samples: Sequence[Sample]) -> dict[str, Any]:
    return {
        "id": prompt.id,
        "prompt": [dict(turn) for turn in prompt.messages],
        # a bare text is stripped when it is read
        "candidates": [[assistant_turn(sample.text)] for sample in samples],
        **prompt.template_arguments,
        "meta": {"finished": [sample.finished for sample in samples]},
    }
