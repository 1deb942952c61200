"""A stand-in for a language model behind an OpenAI-compatible server: the shorter answer wins."""

import json
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from client.standin import serving
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

ANSWERS = re.compile(r"### Output \(a\)\n(.*?)\n\n### Output \(b\)\n(.*?)(?=\n\n##)", re.DOTALL)
READ, WRITTEN = 100, 7  # tokens that each reply is said to have cost

Pair = tuple[str, str]


def prefer_shorter(first: str, second: str) -> str:
    """The verdict of a judge by length; unclear where an answer says so."""
    if "unclear" in first + second:
        return "Both have their merits."
    if len(first) == len(second):
        return "TIE"
    return "Output (a)" if len(first) < len(second) else "Output (b)"


def say_verdicts(pairs: list[Pair], decide: Callable[[str, str], str]) -> str:
    """A reply as the judge is asked for it: reasons and one verdict, or a line for each pair."""
    if len(pairs) == 1:
        return f"I count.\n\n{decide(*pairs[0])}"
    return "\n".join(f"{number}. {decide(*pair)}" for number, pair in enumerate(pairs, start=1))


@dataclass
class Failure:
    """A reply without an answer."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = '{"error": {"message": "told to fail", "type": "told", "code": "told"}}'


@dataclass
class JudgeServer:
    """The server's state.

    Attributes:
        decide: makes a verdict of both answers.
        say: makes a reply to all pairs of a request.
        bodies: the bodies of all requests that were answered.
        calls: the number of all requests.
        status: of the replies; 200 answers.
        failures: what the next requests get, before others are answered.
        finish: why replies end.
        counts: whether it tells the tokens.
    """

    decide: Callable[[str, str], str] = prefer_shorter
    say: Callable[[list[Pair], Callable[[str, str], str]], str] = say_verdicts
    url: str = ""
    status: int = 200
    bodies: list[dict[str, Any]] = field(default_factory=list)
    calls: int = 0
    failures: deque[Failure] = field(default_factory=deque)
    finish: str = "stop"
    counts: bool = True

    @property
    def pairs(self) -> list[Pair]:
        """Both answers of each pair that was asked about, in the order in which they were asked about."""
        return [pair for body in self.bodies for pair in pairs_of(body)]

    def reply(self, body: dict[str, Any]) -> dict[str, Any]:
        """The reply to a request."""
        message = {"role": "assistant", "content": self.say(pairs_of(body), self.decide)}
        usage = {"prompt_tokens": READ, "completion_tokens": WRITTEN, "total_tokens": READ + WRITTEN}
        return {
            "id": "1",
            "object": "chat.completion",
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": self.finish}],
            **({"usage": usage} if self.counts else {}),
        }


def pairs_of(body: dict[str, Any]) -> list[Pair]:
    """Both answers of each pair that a request asks about."""
    found = [(each[1], each[2]) for each in ANSWERS.finditer(body["messages"][-1]["content"])]
    assert found
    return found


@contextmanager
def judging() -> Iterator[JudgeServer]:
    """A judge that listens while the block runs."""
    judge = JudgeServer()

    async def chat(request: Request) -> Response:
        body = json.loads(await request.body())
        judge.calls += 1
        failure = judge.failures.popleft() if judge.failures else Failure(judge.status)
        if failure.status != 200 or failure.headers:
            return Response(failure.body, failure.status, dict(failure.headers), "application/json")
        judge.bodies.append(body)
        return JSONResponse(judge.reply(body))

    with serving(Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])) as url:
        judge.url = url
        yield judge
