"""Agreement of labels: by hand, blind to the order of the answers, and the rule for ties. Pure."""

import math

import numpy as np
import pytest

from tureen.records.dialogue import assistant_turn, user_turn
from tureen.records.schema import UNLABELLED, Record
from tureen_train.judge.agreement import (
    collect_labels,
    compute_credit,
    compute_decided,
    measure_label_agreement,
    read_verdicts,
)
from tureen_train.judge.comparisons import Judgement
from tureen_train.measures.agreement import compute_symmetric_kappa


def record(prompt: str, answers: str, *scores: float) -> Record:
    turns = tuple((assistant_turn(answer),) for answer in answers)
    return Record((user_turn(prompt),), turns, scores)


def test_credit_and_kappa_by_hand() -> None:
    """Verdicts 1 1 1 -1 0 0 against 1 1 -1 -1 0 1: four agree, one is opposite, one tie meets a decision.

    Credit: (4 + ½) / 6. Decided: 3 of 4. In both orders the shares of the verdicts are 4/12, 4/12 and 4/12 here, and
    5/12, 5/12 and 2/12 there: chance is (4·5 + 4·5 + 4·2) / 144 = 1/3, and 4 of 6 are equal, so kappa is ½.
    """
    first, second = np.array([1.0, 1, 1, -1, 0, 0]), np.array([1.0, 1, -1, -1, 0, 1])
    assert compute_credit(first, second) == pytest.approx(4.5 / 6)
    assert compute_decided(first, second) == 0.75
    assert compute_symmetric_kappa(first, second) == pytest.approx(0.5)
    turn = np.array([-1, 1, -1, 1, -1, 1])
    assert compute_symmetric_kappa(first * turn, second * turn) == pytest.approx(0.5)


def test_without_ties_kappa_is_twice_the_accuracy_less_one() -> None:
    """Also where all labels prefer the first answer, as in files of chosen and rejected, where kappa was undefined."""
    first, second = np.ones(10), np.array([1.0] * 8 + [-1.0] * 2)
    assert compute_symmetric_kappa(first, second) == pytest.approx(2 * 0.8 - 1)
    assert compute_symmetric_kappa(first, first) == 1
    assert math.isnan(compute_symmetric_kappa(np.zeros(3), np.zeros(3)))


def test_labels_are_found_in_any_order_of_the_answers_and_annotators_vote() -> None:
    one = collect_labels([record("p", "ab", 1, 0), record("q", "cd", 0.5, 0.5), record("r", "ef", 0, 1)])
    other = collect_labels([record("r", "fe", 1, 0), record("p", "ba", 0, 1), record("q", "dc", 2, 2)])
    assert one.verdicts == other.verdicts
    assert sorted(one.verdicts.values()) == [-1.0, 0.0, 1.0]
    votes = collect_labels([record("p", "ab", 1, 0), record("p", "ba", 1, 0), record("p", "ab", 1, 0)])
    assert list(votes.verdicts.values()) == [1.0]
    even = collect_labels([record("p", "ab", 1, 0), record("p", "ba", 1, 0)])
    assert list(even.verdicts.values()) == [0.0]


def test_a_record_of_many_answers_has_all_its_pairs_and_what_has_no_label_is_counted() -> None:
    found = collect_labels([record("p", "abc", 3, 1, UNLABELLED), record("p", "xyz", 1, 2, 3)])
    assert len(found.verdicts) == 4
    assert found.unlabelled == 2
    assert all(math.isnan(each.scores[0]) for each in found.records.values())


def test_only_pairs_that_both_have_count_and_the_figures_have_intervals() -> None:
    first = collect_labels([record(f"p{number}", "ab", 1, 0) for number in range(8)])
    keys = list(first.verdicts)
    judged = [Judgement(0.9), Judgement(0.2), Judgement(0.5), Judgement(None, "lost"), *[Judgement(1.0)] * 3]
    second = read_verdicts(keys[:7], judged)
    found = measure_label_agreement(first.verdicts, second)
    assert found["agreement"].n == 6
    assert found["agreement"].value == pytest.approx(4.5 / 6)
    assert (found["decided"].value, found["decided"].n) == (0.8, 5)
    assert found["second_ties"].value == pytest.approx(1 / 6)
    assert found["agreement"].low < 0.75 < found["agreement"].high
    turned = measure_label_agreement(second, first.verdicts)
    assert turned["kappa"] == found["kappa"]
    assert (turned["first_ties"], turned["second_ties"]) == (found["second_ties"], found["first_ties"])
    assert measure_label_agreement(first.verdicts, {})["agreement"].n == 0


def test_a_few_pairs_that_all_agree_are_not_certain_and_the_pairs_of_a_prompt_are_drawn_together() -> None:
    apart = collect_labels([record(f"p{number}", "ab", 1, 0) for number in range(6)]).verdicts
    found = measure_label_agreement(apart, apart)
    assert (found["agreement"].value, found["agreement"].high) == (1, 1)
    assert found["agreement"].low == pytest.approx(6 / (6 + 1.959964**2), abs=1e-6)  # Wilson's bound for 6 of 6
    together = collect_labels([record("p", "abc", 3, 2, 1), record("q", "xyz", 3, 2, 1)]).verdicts
    turned = {key: -verdict if key[0] == min(together)[0] else verdict for key, verdict in together.items()}
    shared = measure_label_agreement(together, turned)
    assert (shared["agreement"].value, shared["agreement"].low, shared["agreement"].high) == (0.5, 0, 1)
    assert (shared["decided"].value, shared["decided"].n) == (0.5, 6)
