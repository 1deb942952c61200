"""The soak in short: all statuses are documented, and memory does not grow by much. ``make soak`` takes longer."""

import os
from pathlib import Path

import pytest
from chaos.sites import run_site, tell, write_config
from chaos.soak import EXPECTED, MIB, soak

pytestmark = pytest.mark.long

SECONDS = float(os.environ.get("TUREEN_TEST_SOAK_SECONDS", "30"))
GROWTH = 64 * MIB  # in the second half; it grows by about 300 MiB in its first minutes, and then no more


def test_a_soak(artifacts: Path) -> None:
    limits = {"kept_scores": 1024, "prompt_mib": 16}
    with run_site(write_config(artifacts, "soak", limits=limits)) as site:
        found = soak(site, SECONDS)
        threads, handles = site.count_threads(), site.count_handles()
    tell(f"soak: {found.tell()}; {threads} threads, {handles} handles")
    assert found.statuses.keys() <= EXPECTED
    assert found.statuses[200] > 50
    assert found.samples[-1][1] - found.samples[len(found.samples) // 2][1] < GROWTH
    assert threads < 40
    assert handles < 100
