"""Ten times more requests than a server can answer: it answers as many as before, and refuses the rest at once."""

from pathlib import Path

import pytest
from chaos.sites import run_site, tell, write_config

from tureen.bench.latencies import summarise_latencies
from tureen.bench.loops import Bounds, run_load
from tureen.bench.trial import Load, summarise_trials
from tureen.bench.workloads import Texts, make_workload

pytestmark = pytest.mark.long

CAPACITY = 10.0  # texts a second, of both kinds
KINDS = {
    "short batches": (4, 0.4, 0.0),  # texts, seconds, and seconds for each text
    "batches longer than the deadline": (64, 0.0, 0.1),
}
DEADLINE = 3.0
SPARE = 2.0  # seconds by which a busy machine may be late
WORK = make_workload("score", {"rewards": ["helpful"]}, Texts(8, 1, 0))


@pytest.mark.parametrize("kind", KINDS)
def test_at_ten_times_its_capacity_a_server_answers_as_many_and_refuses_the_rest(artifacts: Path, kind: str) -> None:
    rows, whole, each_row = KINDS[kind]
    limits = {"batch_rows": rows, "deadline_seconds": DEADLINE, "longest_deadline_seconds": DEADLINE}
    best, flood = Load(concurrency=8), Load(rate=10 * CAPACITY)
    config = write_config(artifacts, "overload", limits=limits)
    with run_site(config, pass_seconds=whole, row_seconds=each_row) as site:
        peak = summarise_trials(best, run_load(site.url, WORK, best, Bounds(5, 10_000, 60), 0))["goodput"]
        trials = run_load(site.url, WORK, flood, Bounds(8, 10_000, 60), 0, first=10_000)
        site.wait_until_idle()
    found = summarise_trials(flood, trials)
    refusals = summarise_latencies([each.ended - each.sent for each in trials if each.status == 503])
    late = max(each.ended - each.sent for each in trials if each.status in (200, 504)) - DEADLINE
    p50, p99 = (1000 * (refusals[name] or 0) for name in ("p50", "p99"))
    tell(
        f"at 10 × capacity, {kind}: goodput {found['goodput'] / peak:.0%} of the peak of {peak:.1f}/s; a refusal takes "
        f"{p50:.0f} ms (p50), {p99:.0f} ms (p99); the latest answer is {1000 * late:+.0f} ms after its deadline; "
        f"{found['refusals']}, of which {found['refusals_without_retry_after']} without Retry-After"
    )
    assert found["errors"] == {}
    assert set(found["refusals"]) <= {"503", "504"}
    assert found["refusals_without_retry_after"] == 0
    assert found["goodput"] > 0.8 * peak  # a busy machine sways; without shedding it was a third
    assert late < SPARE
