"""Low-rank terms against a plain singular value decomposition in float64."""

import pytest
import torch

from tureen_core.experts.low_rank import LowRankTerm, RankChoice, approximate_matrix


def matrix(out: int, inside: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(out, inside, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def approximated(whole: torch.Tensor, **choice: float) -> LowRankTerm:
    term = approximate_matrix(whole, RankChoice(**choice))  # type: ignore[arg-type]
    assert term is not None
    return term


@pytest.mark.parametrize(("out", "inside"), [(12, 30), (30, 12), (16, 16)])
def test_a_term_of_a_rank_is_the_truncated_decomposition_and_its_energy_is_exact(out: int, inside: int) -> None:
    whole = matrix(out, inside)
    u, s, v = torch.linalg.svd(whole, full_matrices=False)
    term = approximated(whole, rank=5)
    assert (term.pair.rank, term.pair.scale) == (5, 1.0)
    torch.testing.assert_close(term.pair.b @ term.pair.a, (u[:, :5] * s[:5] @ v[:5]).float(), atol=1e-5, rtol=0)
    assert term.energy == pytest.approx(float(whole.square().sum()), rel=1e-12)
    assert term.captured == pytest.approx(float(s[:5].square().sum()), rel=1e-10)
    lost = (whole - term.pair.b.double() @ term.pair.a.double()).square().sum()
    assert term.captured + float(lost) == pytest.approx(term.energy, rel=1e-6)


@pytest.mark.parametrize("energy", [0.3, 0.5, 0.9, 0.99])
def test_an_energy_takes_the_smallest_rank_that_captures_it(energy: float) -> None:
    whole = matrix(20, 14)
    shares = torch.linalg.svdvals(whole).square().cumsum(0) / whole.square().sum()
    term = approximated(whole, energy=energy)
    assert shares[term.pair.rank - 1] >= energy
    assert term.pair.rank == 1 or shares[term.pair.rank - 2] < energy


@pytest.mark.parametrize("choice", [{"energy": 1.0}, {"rank": 14}, {"rank": 1000}])
def test_all_of_the_energy_gives_the_matrix_again(choice: dict[str, float]) -> None:
    whole = matrix(20, 14)
    term = approximated(whole, **choice)
    assert term.pair.rank == 14
    torch.testing.assert_close(term.pair.b @ term.pair.a, whole.float(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("choice", [{"energy": 1.0}, {"rank": 9}])
def test_a_matrix_of_low_rank_takes_no_more_than_its_rank(choice: dict[str, float]) -> None:
    whole = matrix(20, 3) @ matrix(3, 14, 1)
    assert approximated(whole, **choice).pair.rank == 3


def test_factors_share_the_scale_so_that_neither_vanishes_in_half_precision() -> None:
    pair = approximated(1e-6 * matrix(20, 14), energy=1.0).pair
    for factor in (pair.a, pair.b):
        assert 1e-4 < float(factor.abs().max()) < 1e-1


def test_zeros_have_no_term() -> None:
    assert approximate_matrix(torch.zeros(4, 5), RankChoice()) is None


def test_the_bound_follows_what_is_asked() -> None:
    assert (RankChoice().target, RankChoice().least) == (0.95, 0.95)
    assert RankChoice(rank=8).least == 0.95
    assert RankChoice(energy=0.8).least == 0.8
    assert RankChoice(energy=0.8, accept=0.5).least == 0.5


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ({"rank": 4, "energy": 0.9}, "rank and energy exclude each other"),
        ({"rank": 0}, "rank must be at least 1"),
        ({"energy": 0.0}, "an energy is a share"),
        ({"energy": 1.5}, "an energy is a share"),
        ({"accept": -0.1}, "an energy is a share"),
        ({"energy": float("nan")}, "an energy is a share"),
    ],
)
def test_a_choice_that_cannot_be_is_refused(choice: dict[str, float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        RankChoice(**choice)  # type: ignore[arg-type]
