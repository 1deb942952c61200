"""The posterior of preference weights, given a person's choices, by importance sampling. Pure, in float64.

In coordinates in which the prior is standard normal, a t distribution is laid over the posterior's mode and adapted to
what it draws, until enough draws count (adaptive importance sampling, Cappé et al., J. Comput. Graph. Stat. 13 (2004)
907-929). All draws have a fixed seed.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

DRAWS = 8192  # in one round
ROUNDS = 12
ENOUGH = 1000.0  # effective draws
SEED = 0
FREEDOM = 6.0  # of the t distribution
CENTRE, SPREAD = math.log(2.0), math.log(4.0)  # of the logarithm of β
ENTRIES = 2**21  # of draws × pairs that are computed at once
TINY = 1e-300


class FitError(ValueError):
    """The choices cannot be fitted; the message says why."""


class Posterior:
    """The posterior of the weights and of β, in coordinates z in which the prior is standard normal.

    Of n objectives, −log Φ of the first n coordinates are n exponential numbers, whose shares are uniform on the
    simplex. The last coordinate is that of log β.
    """

    def __init__(self, gaps: Numbers, go_on: Callable[[], object]) -> None:
        self.gaps = gaps
        self.go_on = go_on
        self.size = gaps.shape[1] + 1

    def sample(self) -> tuple[Numbers, Numbers, Numbers]:
        """Draw weights ``[draws, objectives]``, β ``[draws]``, and the probability of each draw."""
        rng = np.random.default_rng(SEED)
        centre, factor = self._find_mode()
        kept: list[tuple[Numbers, Numbers]] = []
        for _ in range(ROUNDS):
            z, density = _draw_t(rng, centre, factor)
            log_mass = self._log_density(z) - density
            kept.append((z, log_mass))
            mass = _normalise(log_mass)
            if 1 / float(mass @ mass) >= ENOUGH:
                return (*_place(z), mass)
            every, masses = np.concatenate([each for each, _ in kept[-4:]]), _pool([each for _, each in kept[-4:]])
            if 1 / float(masses @ masses) >= ENOUGH and len(kept) >= 4:
                return (*_place(every), masses)
            centre, factor = _adapt(every, masses)
        raise FitError("the posterior cannot be computed: scale the rewards to deviations, or give fewer pairs")

    def _log_density(self, z: Numbers) -> Numbers:
        """The logarithm of the posterior density of rows of z, up to a constant."""
        shares, steepness = _place(z)
        theta = shares * steepness[:, None]
        found = np.empty(len(z))
        step = max(1, ENTRIES // len(self.gaps))
        for start in range(0, len(z), step):
            self.go_on()
            odds = theta[start : start + step] @ self.gaps.T
            found[start : start + step] = -np.logaddexp(0.0, -odds).sum(1)
        density: Numbers = found - 0.5 * (z * z).sum(1)
        return density

    def _find_mode(self) -> tuple[Numbers, Numbers]:
        """The mode, and the factor L of the covariance L Lᵀ there, by damped Newton steps on finite differences."""
        z = np.zeros(self.size)
        value = float(self._log_density(z[None])[0])
        damping = 1.0
        for _ in range(60):
            gradient, hessian = self._differentiate(z)
            step = np.linalg.solve(_make_positive(-hessian) + damping * np.eye(self.size), gradient)
            step *= min(1.0, 1.0 / max(float(np.linalg.norm(step)), 1e-12))
            there = float(self._log_density((z + step)[None])[0])
            if there > value:
                gained, value, z, damping = there - value, there, z + step, damping / 4
                if gained < 1e-6:
                    break
            else:
                damping = max(damping, 1e-3) * 8
        precision = _make_positive(-self._differentiate(z)[1], 0.2)
        return z, np.linalg.cholesky(np.linalg.inv(precision))

    def _differentiate(self, z: Numbers) -> tuple[Numbers, Numbers]:
        """The gradient and the Hessian, by central differences."""
        n, h = self.size, 1e-3
        eye = np.eye(n) * h
        pairs = [(i, j) for i in range(n) for j in range(i)]
        points = [z, *(z + row for row in eye), *(z - row for row in eye)]
        points += [z + eye[i] + eye[j] for i, j in pairs] + [z - eye[i] - eye[j] for i, j in pairs]
        values = self._log_density(np.array(points))
        here, up, down = values[0], values[1 : n + 1], values[n + 1 : 2 * n + 1]
        both, neither = values[2 * n + 1 : 2 * n + 1 + len(pairs)], values[2 * n + 1 + len(pairs) :]
        hessian = np.diag((up - 2 * here + down) / h**2)
        for number, (i, j) in enumerate(pairs):
            crossed = both[number] + neither[number] - up[i] - down[i] - up[j] - down[j] + 2 * here
            hessian[i, j] = hessian[j, i] = crossed / (2 * h**2)
        return (up - down) / (2 * h), hessian


def _place(z: Numbers) -> tuple[Numbers, Numbers]:
    """The weights ``[draws, objectives]`` and β ``[draws]`` of rows of coordinates."""
    sizes = np.maximum(-torch.special.log_ndtr(torch.from_numpy(z[:, :-1])).numpy(), TINY)
    return sizes / sizes.sum(1, keepdims=True), np.exp(np.clip(CENTRE + SPREAD * z[:, -1], -60.0, 60.0))


def _draw_t(rng: np.random.Generator, centre: Numbers, factor: Numbers) -> tuple[Numbers, Numbers]:
    """Draw from the t distribution. Returns the draws and the logarithms of their densities, up to a constant."""
    size = len(centre)
    normal = rng.standard_normal((DRAWS, size)) / np.sqrt(rng.chisquare(FREEDOM, (DRAWS, 1)) / FREEDOM)
    log_density = -0.5 * (FREEDOM + size) * np.log1p((normal * normal).sum(1) / FREEDOM)
    return centre + normal @ factor.T, log_density - float(np.log(np.diag(factor)).sum())


def _normalise(log_mass: Numbers) -> Numbers:
    mass = np.exp(log_mass - log_mass.max())
    found: Numbers = mass / mass.sum()
    return found


def _pool(rounds: Sequence[Numbers]) -> Numbers:
    """The probabilities of the draws of several rounds, each weighed by its own effective number of draws."""
    masses = [_normalise(each) for each in rounds]
    sizes = [1 / float(mass @ mass) for mass in masses]
    total = math.fsum(sizes)
    return np.concatenate([mass * (size / total) for mass, size in zip(masses, sizes, strict=True)])


def _adapt(z: Numbers, mass: Numbers) -> tuple[Numbers, Numbers]:
    """The centre and the factor of the covariance that the draws have."""
    centre = mass @ z
    covariance = ((z - centre) * mass[:, None]).T @ (z - centre)
    covariance += 1e-3 * np.diag(np.diag(covariance)) + 1e-9 * np.eye(len(centre))
    factor: Numbers = np.asarray(np.linalg.cholesky(covariance), dtype=np.float64)
    return centre, factor


def _make_positive(matrix: Numbers, least: float = 1e-3) -> Numbers:
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    found: Numbers = (vectors * np.maximum(values, least)) @ vectors.T
    return found
