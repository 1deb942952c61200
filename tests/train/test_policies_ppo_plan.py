"""Plans of updates: every text once in each pass, in parts that do not depend on the number of ranks."""

from hypothesis import given
from hypothesis import strategies as st

from tureen_train.policies.ppo.plan import Update, plan_passes

small = st.integers(1, 5)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=20), small, small, small, small)
def test_every_text_is_learnt_from_once_in_each_pass(
    owners: list[int], passes: int, parts: int, batch: int, ranks: int
) -> None:
    planned = plan_passes(owners, passes, parts, batch, ranks, "7:1")
    assert len(planned) == passes
    for updates in planned:
        assert len(updates) == min(parts, len(owners))
        assert sorted(text for update in updates for text in update.texts) == list(range(len(owners)))
        for update in updates:
            assert update.texts
            for shares in update.micro_batches:
                sizes = [len(share) for share in shares]
                assert len(sizes) == ranks
                assert max(sizes) <= batch
                assert max(sizes) - min(sizes) <= 1


@given(st.lists(st.integers(0, 4), min_size=1, max_size=20), small)
def test_two_ranks_have_together_what_one_has(owners: list[int], parts: int) -> None:
    alone = plan_passes(owners, 2, parts, batch=4, ranks=1, seed="7:1")
    together = plan_passes(owners, 2, parts, batch=2, ranks=2, seed="7:1")

    def joined(updates: list[Update]) -> list[list[list[int]]]:
        return [[sum(shares, []) for shares in update.micro_batches] for update in updates]

    assert [joined(each) for each in alone] == [joined(each) for each in together]


def test_the_answers_to_a_prompt_follow_each_other_and_the_order_is_another_one_in_each_pass() -> None:
    owners = [number for number in range(8) for _ in range(3)]
    planned = plan_passes(owners, 4, parts=2, batch=6, ranks=1, seed="7:1")
    orders = [[owners[text] for update in updates for text in update.texts] for updates in planned]
    assert all(order[first : first + 3] == [order[first]] * 3 for order in orders for first in range(0, 24, 3))
    assert len({tuple(order) for order in orders}) == 4


def test_the_order_is_that_of_the_seed() -> None:
    owners = list(range(12))
    plans = [plan_passes(owners, 1, 1, 4, 1, seed) for seed in ("7:1", "7:1", "7:2", "8:1")]
    assert plans[0] == plans[1]
    assert plans[0] != plans[2] != plans[3] != plans[0]
