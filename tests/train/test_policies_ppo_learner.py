"""The learner on one process: exact ratios, sums that do not depend on the split, guards, groups of the optimiser."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from train.tiny_ppo import make_learner, make_texts, ppo_run

from tureen_train.config import ExpertRun, Packed, PpoPolicy
from tureen_train.networks.packing import switch_to_packed
from tureen_train.policies.encoding import EncodedAnswer
from tureen_train.policies.ppo.experience import Experience, make_experience
from tureen_train.policies.ppo.learner import PpoLearner
from tureen_train.policies.ppo.losses import Clips, average_sums
from tureen_train.policies.ppo.plan import Update, plan_passes

CLIPS = Clips(0.2, 0.2, 0.1)
SCORES = [1.0, 0.0, 2.0, -1.0, 0.5]
OWNERS = [0, 0, 1, 0, 1]


@pytest.fixture(autouse=True)
def _no_state_is_left() -> Iterator[None]:
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def run(base: Path, tmp_path_factory: pytest.TempPathFactory) -> ExpertRun:
    return ppo_run(base, tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def texts() -> list[EncodedAnswer]:
    return make_texts([(7, 5), (7, 3), (4, 1), (7, 4), (4, 6)])


def plan(batch: int, parts: int = 1) -> list[list[Update]]:
    return plan_passes(OWNERS, 2, parts, batch, 1, "1")


def read(learner: PpoLearner, texts: Sequence[EncodedAnswer], updates: Sequence[Update], run: ExpertRun) -> Experience:
    shares = [shares for update in updates for shares in update.micro_batches]
    figures, reference = (learner.read(texts, shares, role) for role in ("watched", "reference"))
    lengths = [len(text.answer) for text in texts]
    assert isinstance(run.policy, PpoPolicy)
    return make_experience(figures, reference.logprobs, SCORES, lengths, run.policy, 0.1)


def weights_of(learner: PpoLearner) -> dict[str, torch.Tensor]:
    return {name: each.detach().clone() for name, each in learner.model.named_parameters() if each.requires_grad}


@pytest.mark.parametrize("layout", ["off", "texts", "prompts"])
def test_the_first_ratio_is_exactly_one(layout: Packed, run: ExpertRun, base: Path, texts: list[EncodedAnswer]) -> None:
    learner = make_learner(run, base, 0.2, layout)
    if layout != "off":
        for each in learner.model.list_models():
            assert switch_to_packed(each, 64)
    updates = plan(batch=2)[0]
    learnt = learner.learn(texts, updates[0], read(learner, texts, updates, run).known, CLIPS, 10.0)
    assert int(learnt.watched[0]) == sum(len(text.answer) for text in texts)
    found = average_sums(learnt.watched)
    assert (found["ratio"], found["moved"], found["approx_kl"], found["clip_share"]) == (1, 0, 0, 0)
    again = learner.learn(texts, updates[0], read(learner, texts, updates, run).known, CLIPS, 10.0)
    assert average_sums(again.watched)["ratio"] == 1


def test_figures_do_not_depend_on_batches_and_padding(run: ExpertRun, base: Path, texts: list[EncodedAnswer]) -> None:
    learner = make_learner(run, base, 0.2)
    together = learner.read(texts, [[[0, 1, 2, 3, 4]]], "watched")
    alone = learner.read(texts, [[[each]] for each in (3, 1, 4, 0, 2)], "watched")
    for one, other in zip(together, alone, strict=True):
        assert one.shape == (5, 6)
        assert torch.allclose(one, other, atol=1e-5)
    assert not together.logprobs[2, 1:].any()


def test_the_reference_is_the_policy_without_its_adapter(
    run: ExpertRun, base: Path, texts: list[EncodedAnswer]
) -> None:
    learner = make_learner(run, base, 0.2)
    reference = learner.read(texts, [[[0, 1, 2, 3, 4]]], "reference").logprobs
    with learner.model.policy.disable_adapter():
        off = learner.read(texts, [[[0, 1, 2, 3, 4]]], "learner").logprobs
    assert torch.equal(reference, off)
    assert not torch.allclose(reference, learner.read(texts, [[[0, 1, 2, 3, 4]]], "learner").logprobs, atol=0.1)


def test_an_update_does_not_depend_on_its_micro_batches(run: ExpertRun, base: Path, texts: list[EncodedAnswer]) -> None:
    """Their lengths differ, so a mean of means would be another number."""
    found = []
    for batch in (5, 2):
        learner = make_learner(run, base, 0.2)
        updates = plan(batch)[0]
        learnt = learner.learn(texts, updates[0], read(learner, texts, updates, run).known, CLIPS, 10.0)
        found.append((learnt, weights_of(learner)))
    (whole, after), (parts, other) = found
    assert parts.watched.tolist() == pytest.approx(whole.watched.tolist(), abs=1e-4)
    assert parts.norm == pytest.approx(whole.norm, rel=1e-4)
    for name, weight in after.items():
        assert torch.allclose(weight, other[name], atol=2e-4), name


def test_a_second_pass_is_clipped_where_the_first_went_far(
    run: ExpertRun, base: Path, texts: list[EncodedAnswer]
) -> None:
    learner = make_learner(run, base, 0.2)
    passes = plan(batch=5)
    known = read(learner, texts, passes[0], run).known
    first, second = (learner.learn(texts, updates[0], known, CLIPS, 10.0) for updates in passes)
    assert average_sums(first.watched)["clip_share"] == 0
    assert average_sums(second.watched)["clip_share"] > 0


def spoil(known: torch.Tensor, row: int, value: float) -> None:
    known[row, 0] = value


@pytest.mark.parametrize(
    ("spoiled", "skipped"),
    [([0], 1), ([4], 1), ([0, 4], 2)],
    ids=["the first batch", "the last batch", "both"],
)
@pytest.mark.parametrize("value", [-50.0, math.nan], ids=["ratio beyond the limit", "no number"])
def test_bad_micro_batches_are_left_out_and_counted(
    spoiled: list[int],
    skipped: int,
    value: float,
    run: ExpertRun,
    base: Path,
    texts: list[EncodedAnswer],
) -> None:
    """The other one alone makes the gradient; without any, the weights stay."""
    learner = make_learner(run, base, 0.2)
    update = Update([[[0, 1, 3]], [[2, 4]]])
    known = read(learner, texts, [update], run).known
    for row in spoiled:
        spoil(known.logprobs, row, value)
    before = weights_of(learner)
    learnt = learner.learn(texts, update, known, CLIPS, 10.0)
    assert learnt.skipped == skipped
    assert learnt.changed == (skipped == 1)
    kept = sum(len(texts[each].answer) for each in ([0, 1, 3] if spoiled == [4] else [2, 4])) if skipped == 1 else 0
    assert int(learnt.watched[0]) == kept
    after = weights_of(learner)
    assert all(bool(each.isfinite().all()) for each in after.values())
    changed = any(not torch.equal(before[name], after[name]) for name in before)
    assert changed == (skipped == 1)


def test_a_gradient_that_is_no_number_changes_nothing(
    run: ExpertRun, base: Path, texts: list[EncodedAnswer], monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = make_learner(run, base, 0.2)
    update = Update([[[0, 1, 2, 3, 4]]])
    known = read(learner, texts, [update], run).known
    weight = next(each for each in learner.model.parameters() if each.requires_grad)
    weight.register_hook(lambda gradient: gradient * math.nan)
    before = weights_of(learner)
    learnt = learner.learn(texts, update, known, CLIPS, 10.0)
    assert not learnt.changed
    assert math.isnan(learnt.norm)
    assert all(torch.equal(each, weights_of(learner)[name]) for name, each in before.items())


@pytest.mark.parametrize(
    ("part", "other", "change"),
    [
        ("policy.", "critic.", {"optimisation": {"learning_rate": 1e-9}, "policy": {"critic_learning_rate": 1e-2}}),
        ("critic.", "policy.", {"optimisation": {"learning_rate": 1e-2}, "policy": {"critic_learning_rate": 1e-9}}),
    ],
    ids=["policy slow", "critic slow"],
)
def test_policy_and_critic_have_their_own_rates(
    part: str,
    other: str,
    change: dict[str, dict[str, float]],
    base: Path,
    tmp_path: Path,
    texts: list[EncodedAnswer],
) -> None:
    run = ppo_run(base, tmp_path, **change)
    learner = make_learner(run, base, 0.2)
    update = Update([[[0, 1, 2, 3, 4]]])
    before = weights_of(learner)
    learner.learn(texts, update, read(learner, texts, [update], run).known, CLIPS, 10.0)
    after = weights_of(learner)
    moves = {name: float((after[name] - before[name]).abs().max()) for name in before}
    assert max(move for name, move in moves.items() if name.startswith(part)) < 1e-7
    assert max(move for name, move in moves.items() if name.startswith(other)) > 1e-3


def test_the_rate_is_a_share_of_the_recipe_s(base: Path, tmp_path: Path) -> None:
    learner = make_learner(ppo_run(base, tmp_path, policy={"critic_learning_rate": 4e-4}), base)
    learner.set_rate(0.5)
    assert {group["lr"] for group in learner.optimiser.param_groups} == {2.5e-3, 2e-4}
    learner.set_rate(0.25)
    assert {group["lr"] for group in learner.optimiser.param_groups} == {1.25e-3, 1e-4}


def test_only_matrices_decay(base: Path, tmp_path: Path) -> None:
    learner = make_learner(ppo_run(base, tmp_path, optimisation={"weight_decay": 0.1}), base)
    groups = learner.optimiser.param_groups
    decayed = [each for group in groups if group["weight_decay"] for each in group["params"]]
    free = [each for group in groups if not group["weight_decay"] for each in group["params"]]
    assert {each.ndim for each in decayed} == {2}
    assert [list(each.shape) for each in free] == [[1]]
    assert len(decayed) + len(free) == len(weights_of(learner))
