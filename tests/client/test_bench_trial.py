"""The figures of a load."""

from tureen.bench.trial import TIMED_OUT, Load, Trial, summarise_trials


def test_figures_of_an_open_loop() -> None:
    trials = [
        Trial(0.0, 0.1, 1.0, 200),
        Trial(1.0, 1.0, 1.5, 200),
        Trial(1.0, 1.0, 1.1, 503, told_when=True),
        Trial(1.0, 1.0, 1.2, 503),
        Trial(1.0, 1.0, 1.2, 422),
        Trial(2.0, 2.0, 4.0, None, TIMED_OUT),
        Trial(2.0, 2.0, 2.1, None, "ConnectError"),
    ]
    found = summarise_trials(Load(rate=3.0), trials, within=0.9)
    assert (found["seconds"], found["sent"], found["answered"]) == (4.0, 7, 2)
    assert (found["sent_rate"], found["goodput"]) == (7 / 4, 1 / 4)
    assert found["latency"] == {"p50": 1.0, "p90": 2.0, "p99": 2.0, "p99_9": 2.0, "max": 2.0}
    assert found["measured"] is None
    assert (found["refusals"], found["refusals_without_retry_after"]) == ({"422": 1, "503": 2}, 1)
    assert found["errors"] == {"ConnectError": 1, TIMED_OUT: 1}
    assert found["lag_p99"] == 0.1


def test_latencies_of_a_closed_loop_are_corrected_with_the_median() -> None:
    trials = [Trial(0.0, 0.0, 1.0, 200), Trial(1.0, 1.0, 2.0, 200), Trial(2.0, 2.0, 6.0, 200)]
    found = summarise_trials(Load(concurrency=1), trials)
    assert found["measured"]["p90"] == 4.0
    assert found["latency"]["p50"] == 1.0  # of 1 1 1 2 3 4
    assert found["goodput"] == 0.5


def test_a_load_without_requests_has_figures() -> None:
    found = summarise_trials(Load(rate=1.0), [])
    assert (found["goodput"], found["latency"]["p50"], found["lag_p99"]) == (0.0, None, 0.0)
