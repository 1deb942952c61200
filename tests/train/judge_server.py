"""A stand-in for a language model behind an OpenAI-compatible server: the shorter answer wins."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from client.standin import serving
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

ANSWERS = re.compile(r"<answer_a>\n(.*)\n</answer_a>.*<answer_b>\n(.*)\n</answer_b>", re.DOTALL)


def prefer_shorter(first: str, second: str) -> str:
    """The reply of a judge by length; unclear where an answer says so."""
    if "unclear" in first + second:
        return "Both have their merits."
    if len(first) == len(second):
        return "Equally long.\n\nVerdict: tie"
    return f"I count.\nVerdict: {'A' if len(first) < len(second) else 'B'}"


@dataclass
class JudgeServer:
    """The server's state.

    Attributes:
        decide: makes a reply from both answers.
        bodies: the bodies of all requests.
        status: of the replies; 200 answers.
    """

    decide: Callable[[str, str], str] = prefer_shorter
    url: str = ""
    status: int = 200
    bodies: list[dict[str, Any]] = field(default_factory=list)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Both answers of each request, in the order in which they were asked about."""
        return [answers_of(body) for body in self.bodies]


def answers_of(body: dict[str, Any]) -> tuple[str, str]:
    found = ANSWERS.search(body["messages"][-1]["content"])
    assert found is not None
    return found[1], found[2]


@contextmanager
def judging() -> Iterator[JudgeServer]:
    """A judge that listens while the block runs."""
    judge = JudgeServer()

    async def chat(request: Request) -> Response:
        body = json.loads(await request.body())
        if judge.status != 200:
            return JSONResponse({"error": {"message": "told to fail", "type": "told", "code": "told"}}, judge.status)
        judge.bodies.append(body)
        message = {"role": "assistant", "content": judge.decide(*answers_of(body))}
        return JSONResponse(
            {
                "id": "1",
                "object": "chat.completion",
                "model": body["model"],
                "choices": [{"index": 0, "message": message}],
            }
        )

    with serving(Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])) as url:
        judge.url = url
        yield judge
