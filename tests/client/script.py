"""Drives a flow without a network: a clock that only waits, and answers that were written before."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import httpx2

from tureen import ConnectionFailed
from tureen.calls.request_flows import Flow, Outcome
from tureen.http_requests import HttpRequest

T = TypeVar("T")
LOST = ConnectionFailed("nothing answers")
Answer = Outcome | Callable[[HttpRequest], Outcome]


class Clock:
    """Seconds that grow when somebody adds to ``now``."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def response(status: int = 200, document: Any = None, **headers: str) -> httpx2.Response:
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    request = httpx2.Request("POST", "http://server/v1/score")
    return httpx2.Response(status, json=document, headers=told, request=request)


def refusal(status: int, message: str = "no", **headers: str) -> httpx2.Response:
    return response(status, {"error": {"message": message, "type": "told", "param": None, "code": None}}, **headers)


def play(flow: Flow[T], answers: Sequence[Answer], clock: Clock, takes: float = 0.0) -> tuple[T, list[HttpRequest]]:
    """What the flow returns and what it sent, if its requests are answered so, each after ``takes`` seconds."""
    sent: list[HttpRequest] = []
    coming = iter(answers)
    try:
        send = next(flow)
        while True:
            sent.append(send)
            clock.now += send.delay + takes
            answer = next(coming)
            send = flow.send(answer(send) if callable(answer) else answer)
    except StopIteration as done:
        return done.value, sent
