"""Quotas, on a clock of the test."""

import pytest

from tureen.errors import RateLimited
from tureen_serve.security.quotas import Quota


class Clock:
    """Seconds that the test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def refusal(quota: Quota) -> RateLimited:
    with pytest.raises(RateLimited) as caught:
        quota.admit_request("loop")
    return caught.value


def test_requests_of_a_minute_are_there_at_once_and_then_come_back_steadily() -> None:
    clock = Clock()
    quota = Quota(30, None, clock)
    for _ in range(30):
        quota.admit_request("loop")
    refused = refusal(quota)
    assert (refused.status, refused.code, refused.retry_after) == (429, "requests_quota_exceeded", 2.0)
    assert "'loop' has used its quota of 30 requests a minute" in refused.message
    clock.now = 1.9
    assert refusal(quota).retry_after == pytest.approx(0.1)
    clock.now = 2.0
    quota.admit_request("loop")
    refusal(quota)
    clock.now = 1e6  # a long pause gives no more than a minute's worth
    for _ in range(30):
        quota.admit_request("loop")
    refusal(quota)


def test_tokens_are_taken_off_afterwards_and_a_debt_is_waited_for() -> None:
    clock = Clock()
    quota = Quota(None, 600, clock)
    quota.admit_request("loop")
    quota.charge_tokens(900)
    refused = refusal(quota)
    assert refused.code == "tokens_quota_exceeded"
    assert refused.retry_after == pytest.approx(30.1)
    clock.now = 30.2
    quota.admit_request("loop")


def test_a_refused_request_is_not_counted() -> None:
    clock = Clock()
    quota = Quota(2, 60, clock)
    quota.charge_tokens(61)
    for _ in range(5):
        assert refusal(quota).code == "tokens_quota_exceeded"
    clock.now = 2.0
    quota.admit_request("loop")
    quota.admit_request("loop")
