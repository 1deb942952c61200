"""Beginnings that prompts share."""

from tureen_serve.runtimes.on_transformers.shared_stems import count_shared, find_stems

STEM = tuple(range(10, 20))


def test_endings_of_one_prompt_have_it_as_their_stem() -> None:
    prompts = [((*STEM, 1, 2), "a"), ((*STEM, 3), "a"), (STEM, "a")]
    assert find_stems(prompts) == ([(STEM, "a")], [0, 0, 0])


def test_prompts_under_other_gates_share_nothing() -> None:
    stems, owners = find_stems([((*STEM, 1), "a"), ((*STEM, 1), "b"), ((*STEM, 2), "a")])
    assert [stems[owner] for owner in owners] == [(STEM, "a"), ((*STEM, 1), "b"), (STEM, "a")]


def test_prompts_that_differ_at_once_run_whole() -> None:
    stems, owners = find_stems([((1, 2), None), ((3, 4), None)])
    assert [stems[owner] for owner in owners] == [((1, 2), None), ((3, 4), None)]


def test_a_short_beginning_in_common_does_not_break_a_long_one() -> None:
    prompts = [((*STEM, 1), 0), ((*STEM, 2), 0), ((*STEM, 3), 0), ((10, 50, 51), 0)]
    stems, owners = find_stems(prompts)
    assert [stems[owner] for owner in owners] == [(STEM, 0)] * 3 + [((10, 50, 51), 0)]


def test_every_prompt_begins_with_its_stem_and_no_token_is_lost() -> None:
    prompts = [((1,), 0), ((1, 2), 0), ((1, 2, 3), 0), ((1, 2, 3, 4, 5), 0), ((1, 2, 3, 4, 6), 0), ((2,), 0)]
    stems, owners = find_stems(prompts)
    for (ids, _), owner in zip(prompts, owners, strict=True):
        assert stems[owner][0]
        assert count_shared(stems[owner][0], ids) == len(stems[owner][0])
    computed = sum(len(ids) for ids, _ in stems) + sum(
        len(ids) - len(stems[owner][0]) for (ids, _), owner in zip(prompts, owners, strict=True)
    )
    assert computed < sum(len(ids) for ids, _ in prompts)
