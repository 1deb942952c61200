"""Process and outcome rewards: one pass reads what each prefix alone gives; labels, figures, and a whole run."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from torch.nn import functional
from train.tiny_runs import reward_run

from tureen.records.dialogue import assistant_turn, user_turn
from tureen.records.schema import BadRecord, Record
from tureen_core.artifact import open_artifact
from tureen_core.base import load_tokenizer
from tureen_core.inputs import render_steps
from tureen_core.template import Renderer
from tureen_train.config import RecipeError, StepsLoss
from tureen_train.networks.reward_reader import RewardReader
from tureen_train.records.run_data import RunData
from tureen_train.rewards.encoded_steps import EncodedAnswers, find_step_labels
from tureen_train.rewards.run import train_reward
from tureen_train.rewards.start import make_model
from tureen_train.rewards.steps import StepsMethod, compute_best_of_n, compute_step_metrics

NAN = math.nan
PROMPT = (user_turn("why do leaves fall?"),)
TEXTS = ("the days\n\ngrow short\n\nin autumn", "the quick brown fox", "jumps\n\nover the lazy dog")
ANSWERS = tuple((assistant_turn(text),) for text in TEXTS)
LABELS = ((1.0, 0.25, NAN), (0.0,), (1.0, 1.0))
RECORD = Record(PROMPT, ANSWERS, (1.0, 0.0, NAN), "file:1", steps=LABELS)


class Walk:
    """Makes a method, its recipe, and its model."""

    def __init__(self, base: Path, folder: Path) -> None:
        self.base, self.folder = base, folder
        self.renderer = Renderer(load_tokenizer(base), tiny.reading(base, eos="none"))

    def run(self, **loss: Any) -> Any:
        loss = {"method": "steps", **loss}
        return reward_run(self.base, self.folder, reading={"max_length": 128}, loss=loss, model={"head": "tokens"})

    def __call__(self, **loss: Any) -> StepsMethod:
        return StepsMethod(self.run(**loss), self.renderer)

    def batch(self, method: StepsMethod, *records: Record) -> dict[str, torch.Tensor]:
        encoded = method.encode(records)
        return method.collate([encoded[index] for index in range(len(encoded))], encoded.width)


@pytest.fixture
def walk(base: Path, tmp_path: Path) -> Walk:
    return Walk(base, tmp_path)


# --------------------------------------------------------------------------- labels and batches


def test_every_step_has_its_label_and_an_outcome_the_answers_score_at_its_end() -> None:
    process, outcome = StepsLoss(method="steps"), StepsLoss(method="steps", targets="outcome")
    assert find_step_labels(RECORD, 0, process) == [1.0, 0.25, NAN] or math.isnan(
        find_step_labels(RECORD, 0, process)[2]
    )
    assert [str(label) for label in find_step_labels(RECORD, 0, outcome)] == ["nan", "nan", "1.0"]
    assert find_step_labels(RECORD, 1, outcome) == [0.0]
    assert math.isnan(find_step_labels(RECORD, 2, outcome)[-1])
    plain = Record(PROMPT, ANSWERS[:1], (3.0,), "file:2")
    assert all(map(math.isnan, find_step_labels(plain, 0, process)))
    with pytest.raises(BadRecord, match="file:2: bad score: an outcome's score must be 0"):
        find_step_labels(plain, 0, outcome)


def test_a_batch_says_where_each_step_is_read(walk: Walk) -> None:
    batch = walk.batch(walk(), RECORD)
    for row, text in enumerate(TEXTS):
        read = render_steps(walk.renderer, PROMPT, text.split("\n\n"))
        assert batch["input_ids"][row][batch["attention_mask"][row].bool()].tolist() == read.ids
        assert batch["reads"][row].tolist() == [*(end - 1 for end in read.ends), *[-1] * (3 - len(read.ends))]
    assert batch["targets"].nan_to_num(-1).tolist() == [[1, 0.25, -1], [0, -1, -1], [1, 1, -1]]
    assert batch["answers"].nan_to_num(-1).tolist() == [[0, 1], [0, 0], [0, -1]]
    assert walk().counts(batch).tolist() == [5]


def test_answers_without_a_label_are_left_out_and_so_are_steps_that_do_not_fit(base: Path, tmp_path: Path) -> None:
    walk = Walk(base, tmp_path)
    assert len(walk(targets="outcome").encode([RECORD])) == 2
    with pytest.raises(RecipeError, match="no answer has a label for loss.targets: process"):
        walk().encode([Record(PROMPT, ANSWERS[:1], (1.0,))])
    reads = [render_steps(walk.renderer, PROMPT, text.split("\n\n")) for text in TEXTS]
    longest = max(len(read.ids) - read.shared for read in reads)
    walk.renderer = Renderer(load_tokenizer(base), tiny.reading(base, eos="none", max_length=longest))
    encoded = walk().encode([RECORD])
    assert (encoded.left_out, len(encoded)) == (1, 2)  # one token of the prompt has to stay
    assert encoded.truncated == sum(len(read.ids) > longest for read in reads) - 1


def test_an_answer_with_a_blank_step_is_left_out_and_told(walk: Walk) -> None:
    blank = Record(PROMPT, ((assistant_turn("one\n\n \n\ntwo"),),), (1.0,), "file:3")
    encoded = walk(targets="outcome").encode([blank, RECORD])
    assert (encoded.left_out, len(encoded)) == (1, 2)
    assert encoded.example == "file:3: a step needs text"


def test_what_cannot_be_read_is_no_probe(walk: Walk) -> None:
    blank = Record(PROMPT, ((assistant_turn("one\n\n \n\ntwo"),),), (1.0,))
    found = walk(targets="outcome").probes(RunData([RECORD], {"held": [blank, RECORD]}, {}), 8)
    assert [probe.messages[-1]["content"] for probe in found] == list(TEXTS)


# --------------------------------------------------------------------------- one pass, or a prefix a step


def test_one_pass_reads_what_each_prefix_alone_gives(walk: Walk) -> None:
    method = walk()
    model = make_model(walk.run(), walk.base).eval()
    batch = walk.batch(method, RECORD)
    with torch.no_grad():
        found = method.loss(model, batch, method.counts(batch)).predictions
        for row, text in enumerate(TEXTS):
            for column, prefix in enumerate(render_steps(walk.renderer, PROMPT, text.split("\n\n")).prefixes):
                ids = torch.tensor([prefix.ids])
                alone = model(input_ids=ids, attention_mask=torch.ones_like(ids))["rewards"][0, 0]
                assert float(found[row, column]) == pytest.approx(float(alone), abs=1e-5)
    assert found.isnan().tolist() == [[False] * 3, [False, True, True], [False, False, True]]


def test_before_training_it_is_the_bases_log_odds_of_plus_and_minus(walk: Walk) -> None:
    model = make_model(walk.run(), walk.base).eval()
    read = render_steps(walk.renderer, PROMPT, ["the days", "grow short"])
    plus, minus = (walk.renderer.tokenizer(sign)["input_ids"][0] for sign in "+-")
    ids = torch.tensor([read.ids])
    with torch.no_grad():
        hidden = model.get_base_model().model(input_ids=ids)[0]
        logits = model.get_base_model().lm_head(hidden)[0].double()
        found = model(
            input_ids=ids, attention_mask=torch.ones_like(ids), reads=torch.tensor([[e - 1 for e in read.ends]])
        )
    chances = functional.softmax(logits[[end - 1 for end in read.ends]][:, [plus, minus]], dim=-1)[:, 0]
    assert found["rewards"][0, :, 0].tolist() == pytest.approx(torch.logit(chances).tolist(), abs=1e-5)


def test_the_loss_is_a_mean_over_labelled_steps(walk: Walk) -> None:
    method = walk()
    model = make_model(walk.run(), walk.base)
    batch = walk.batch(method, RECORD)
    outcome = method.loss(model, batch, method.counts(batch))
    known = ~batch["targets"].isnan()
    expected = functional.binary_cross_entropy_with_logits(
        outcome.predictions[known].double(), batch["targets"][known].double()
    )
    assert outcome.loss.item() == pytest.approx(float(expected), abs=1e-6)
    outcome.loss.backward()
    gradients = [each.grad for name, each in model.named_parameters() if name.endswith("lora_B.default.weight")]
    assert all(bool(torch.isfinite(each).all()) and bool(each.any()) for each in gradients)


# --------------------------------------------------------------------------- figures


def test_steps_are_judged_by_the_side_of_a_half() -> None:
    logits = np.array([[2.0, -1.0, NAN], [0.0, 3.0, -2.0]])
    targets = np.array([[1.0, 0.75, NAN], [0.0, NAN, 0.0]])
    figures = compute_step_metrics(logits, targets)
    assert figures["steps"] == 4
    assert figures["accuracy"] == (1 + 0 + 0.5 + 1) / 4
    assert figures["auc"] == pytest.approx(3 / 4)


def test_best_of_n_takes_each_aggregate_at_its_word() -> None:
    logits = np.array([[4.0, -1.0, NAN], [1.0, 1.0, 1.0], [9.0, 9.0, NAN], [0.0, NAN, NAN], [2.0, NAN, NAN]])
    answers = np.array([[0, 1.0], [0, 0.0], [1, 1.0], [1, NAN], [2, 1.0]])
    figures = compute_best_of_n(logits, answers)
    assert figures["mixed"] == 1
    assert figures["chance"] == 0.5
    # means .625 and .731, products .264 and .391, minima .269 and .731: the wrong answer wins each
    assert [figures[f"best_{how}"] for how in ("mean", "product", "min", "last")] == [0, 0, 0, 0]
    turned = compute_best_of_n(logits, np.array([[0, 0.0], [0, 1.0], [1, 1.0], [1, NAN], [2, 1.0]]))
    assert [turned[f"best_{how}"] for how in ("mean", "product", "min", "last")] == [1, 1, 1, 1]
    equal = compute_best_of_n(np.array([[1.0], [1.0]]), np.array([[0, 1.0], [0, 0.0]]))
    assert equal["best_last"] == 0.5
    assert compute_best_of_n(logits[2:], answers[2:]) == {"mixed": 0.0}


# --------------------------------------------------------------------------- a whole run


def rows(folder: Path, count: int = 30) -> Path:
    """Answers whose steps are right where a fox is in them; one answer of each prompt is right throughout."""
    path = folder / "steps.jsonl"
    fox, leaf = "the fox jumps", "leaves fall"
    kept = [
        {"prompt": f"prompt {number}", "completions": list(texts), "labels": [text == fox for text in texts]}
        for number in range(count)
        for texts in ((fox, fox), (fox, leaf), (leaf, leaf, fox)[: 2 + number % 2])
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in kept))
    return path


def test_marks_before_a_step_are_the_labels_in_training_and_plus_when_served(walk: Walk) -> None:
    run = walk.run(context="marks")
    assert run.reading.step_mark == "+"
    renderer = Renderer(load_tokenizer(walk.base), run.reading)
    first, second, *_ = EncodedAnswers([RECORD], renderer, run.loss).items
    steps = TEXTS[0].split("\n\n")
    assert first.ids == render_steps(renderer, PROMPT, steps, marks=["+", "-", "+"]).ids
    assert first.ids != render_steps(renderer, PROMPT, steps).ids
    assert second.ids == render_steps(renderer, PROMPT, [TEXTS[1]]).ids
    with pytest.raises(RecipeError, match=r"context: marks is for targets: process"):
        walk.run(context="marks", targets="outcome")
    with pytest.raises(RecipeError, match=r"reading\.step_mark: loss\.context and loss\.tokens make it ''"):
        reward_run(walk.base, walk.folder, reading={"step_mark": "x"})


@pytest.mark.parametrize(("targets", "context"), [("process", "steps"), ("process", "marks"), ("outcome", "steps")])
def test_a_run_learns_its_steps_and_is_proved(base: Path, tmp_path: Path, targets: str, context: str) -> None:
    run = reward_run(
        base,
        tmp_path,
        data={"train": [{"path": str(rows(tmp_path))}]},
        reading={"max_length": 128},
        loss={"method": "steps", "targets": targets, "context": context},
        model={"head": "tokens"},
        optimisation={"max_steps": 30, "learning_rate": 1e-2},
        watch={"log_every": 10},
    )
    artifact = train_reward(run)
    assert artifact is not None
    manifest = open_artifact(artifact.folder).manifest
    assert manifest.input == "steps"
    assert manifest.reading.step_mark == ("+" if context == "marks" else "")
    figures = manifest.training.metrics["heldout"]
    assert figures["accuracy"] > 0.9
    assert figures["mixed"] > 3
    assert figures["best_last" if targets == "outcome" else "best_min"] > 0.9
    again = RewardReader(artifact.folder, base, manifest.reading).score_probes(manifest.probes, "steps")
    assert [row[0] for row in again] == pytest.approx([each.scores["foxes"] for each in manifest.probes], abs=1e-6)
