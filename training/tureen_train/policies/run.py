"""A policy's run from recipe to artifact, step by step from top to bottom. The methods are in :mod:`.methods`."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tureen_core.artifact import Artifact
from tureen_core.base import load_tokenizer
from tureen_core.experts.expert_reader import compute_mean_logprobs
from tureen_core.manifest import Probe
from tureen_core.probe_readings import Readings
from tureen_core.template import Renderer
from tureen_core.tolerance import BARE, SERVED
from tureen_train.config import ExpertRun, PromptPreferences, RecipeError
from tureen_train.networks.new_tokens import extend_base
from tureen_train.networks.sharded import gather_for_generation
from tureen_train.policies.chosen_probes import choose_probes
from tureen_train.policies.method import Task, TrainedPolicy
from tureen_train.policies.methods import find_method
from tureen_train.policies.preference_sentences import add_preferences
from tureen_train.policies.probe_answers import write_probe_answers
from tureen_train.policies.rollouts.crew import Crew
from tureen_train.records.run_data import RunData, load_data
from tureen_train.reports.plots import plot_curves
from tureen_train.reports.policy_plot import plot_policy
from tureen_train.runs.expert_artifact import ExpertArtifact
from tureen_train.runs.folder import ROUNDS, find_base, write_probes, write_results
from tureen_train.runs.movement import check_movement
from tureen_train.runs.probe_readings import read_at_weights
from tureen_train.runs.proof import finish_run
from tureen_train.runs.rereading import make_expert_reading

log = logging.getLogger("tureen.train")


def train_policy(run: ExpertRun, resume: bool = False) -> Artifact | None:
    """Train by the recipe's method, evaluate, prove the save, and export.

    Returns:
        The artifact in ``<output>/artifact``; None on the launcher's other ranks.

    Raises:
        RecipeError: the method is not built, there is nothing to train on or to resume, or no answer is short enough
            for a probe.
        StandstillError: training changed nothing.
        ProofError: the saved policy gives other likelihoods than the trained one.
    """
    train, folder, base = find_method(run.policy.method), Path(run.output), find_base(run)
    if run.new_tokens:
        base = Crew().lead(lambda: extend_base(base, run.new_tokens, folder / ROUNDS / "base"))
    data = load_data(run.data, prompts=not run.policy.uses_answers)
    if not data.train:
        needs = ", which need two answers with different scores" if run.data.pairs_per_prompt else ""
        raise RecipeError(f"data.train: no record is left to train on{needs}; look at the files and data.holdout")
    data = state_preferences(data, run.preferences)
    renderer = Renderer(load_tokenizer(base), make_expert_reading(run, base))
    probes = choose_probes(data, renderer, run.probes)
    trained = train(Task(run, base, data, renderer, resume))
    check_movement(trained.history, trained.moved)
    probes = list(trained.probes) or probes
    if not probes:
        with gather_for_generation(trained.model, trained.policy, run.scale.zero == 3):
            probes = write_probe_answers(trained.policy, renderer, data, run.probes)
    live = _live_logprobs(trained, renderer, probes)
    trained.save(folder / "model")
    artifact = None
    if trained.accelerator.is_main_process:
        plot_curves(list(trained.history), folder)
        plot_policy(list(trained.history), folder)
        write_results(folder, run, data.provenance, trained.metrics)
        write_probes(folder, probes)
        artifact = finish_run(folder, ExpertArtifact(), live, sharded=run.scale.zero > 0)
    trained.accelerator.end_training()
    return artifact


def state_preferences(data: RunData, preferences: PromptPreferences) -> RunData:
    """Add preference sentences to the prompts of all records, and say how many prompts that makes.

    Raises:
        BadRecord: a prompt has no turn of the user.
    """
    if preferences.add == "nothing":
        return data
    train = add_preferences(data.train, preferences)
    log.info("preferences are added to %d prompts, which makes %d", len(data.train), len(train))
    held = {name: add_preferences(records, preferences) for name, records in data.eval.items()}
    return replace(data, train=train, eval=held)


def _live_logprobs(trained: TrainedPolicy, renderer: Renderer, probes: Sequence[Probe]) -> Readings:
    """Mean log-probabilities of the probes at several weights of the adapter. Every rank must call it."""
    model = trained.model
    model.eval()
    live = read_at_weights(model, lambda: [[each] for each in compute_mean_logprobs(model, renderer, probes)])
    if BARE in live:
        before, after = (sum(row[0] for row in live[weight]) / len(probes) for weight in (BARE, SERVED))
        log.info("mean log-probability of the probes: %.3f before, %.3f after", before, after)
    return live
