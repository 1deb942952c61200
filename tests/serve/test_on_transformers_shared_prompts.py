"""Which rows share a prompt, and what each was spared."""

from tureen_serve.runtimes.contract import Row
from tureen_serve.runtimes.on_transformers.shared_prompts import count_cached_tokens, find_shared_prompts, get_prompt

KIND, WIT = (("kind", 1.0),), (("wit", 1.0),)


def test_a_prompt_is_shared_if_two_rows_have_it_under_one_blend() -> None:
    rows = [
        Row((1, 2, 3), KIND, 2),
        Row((1, 2, 4), WIT, 2),
        Row((1, 2, 5), KIND, 2),
        Row((1, 2, 3), KIND),
        Row((1, 2, 3, 4), KIND, 3),
    ]
    assert find_shared_prompts(rows) == {0: ((1, 2), KIND), 2: ((1, 2), KIND)}


def test_a_row_that_is_all_prompt_shares_nothing() -> None:
    """It has no token of its own that could be read after the prompt is computed."""
    rows = [Row((1, 2), KIND, 2), Row((1, 2), KIND, 2)]
    assert find_shared_prompts(rows) == {}


def test_the_first_row_of_a_prompt_pays_for_it() -> None:
    rows = [Row((7,), KIND), *(Row((1, 2, last), blend, 2) for last in (3, 4, 5) for blend in (KIND, WIT))]
    assert count_cached_tokens(rows, find_shared_prompts(rows)) == [0, 0, 0, 2, 2, 2, 2]


def test_rows_that_run_whole_are_spared_nothing() -> None:
    rows = [Row((1, 2, 3), KIND, 2), Row((1, 2, 4), KIND, 2)]
    assert count_cached_tokens(rows, {}) == [0, 0]


def test_a_prompt_is_ids_and_blend() -> None:
    assert get_prompt(Row((1, 2, 3), WIT, 2)) == ((1, 2), WIT)
