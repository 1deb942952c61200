"""Where the tokens of answers are predicted, padded and packed."""

import pytest

from tureen_train.networks.answer_batch import lay_out_answers

FIRST, SECOND, OTHER = [5, 6, 7, 8], [5, 6, 9], [4, 4]


def test_padded_answers_are_predicted_one_token_before() -> None:
    found = lay_out_answers([FIRST, SECOND, OTHER], [2, 2, 1], [0, 0, 1], pad=0)
    assert found.packing is None
    assert found.ids.tolist() == [FIRST, [*SECOND, 0], [*OTHER, 0, 0]]
    assert found.attention_mask.tolist() == [[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]]
    assert found.places.tolist() == [1, 2, 5, 8]
    assert found.targets.tolist() == [7, 8, 9, 4]
    assert found.lengths.tolist() == [2, 1, 1]


def test_answers_that_share_a_prompt_are_predicted_at_its_one_last_token() -> None:
    found = lay_out_answers([FIRST, OTHER, SECOND], [2, 1, 2], [0, 1, 0], pad=0, layout="prompts")
    assert found.packing is not None
    assert found.packing.ids.tolist() == [5, 6, 7, 8, 4, 4, 9]
    assert found.places.tolist() == [1, 2, 4, 1]
    assert found.targets.tolist() == [7, 8, 4, 9]


def test_an_empty_answer_has_no_token() -> None:
    found = lay_out_answers([OTHER, FIRST], [2, 3], [0, 1], pad=0, layout="texts")
    assert found.lengths.tolist() == [0, 1]
    assert found.places.tolist() == [4]
    assert found.targets.tolist() == [8]


@pytest.mark.parametrize("start", [0, 5])
def test_nothing_predicts_a_first_token_and_no_answer_begins_after_its_end(start: int) -> None:
    with pytest.raises(ValueError, match="between the second token of its text and its end"):
        lay_out_answers([FIRST], [start], [0], pad=0)
