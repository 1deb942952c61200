"""What a grammar costs: eight texts in one batch, without one, half of them with one, each with one of its own."""

import string
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2

ROWS, TOKENS, ROUNDS = 8, 32, 3


def make_bodies(bound: int, kind: str) -> list[dict[str, Any]]:
    """Eight requests; so many of them are bound to grammars, no two of which are the same."""
    bodies = []
    for row in range(ROWS):
        body: dict[str, Any] = {
            "model": "smollm2",
            "prompt": f"Describe morning number {row} by the sea.",
            "max_tokens": TOKENS,
            "temperature": 0,
            "logit_bias": {"2": -100},  # no end of text: every row makes all its tokens
        }
        if row < bound:
            more = string.ascii_letters[: 26 + row]
            body["structured_outputs"] = (
                {"regex": f"[{more} ,.]*"}
                if kind == "regex"
                else {"json": {"type": "array", "items": {"type": "string", "minLength": 1000 + row}}}
            )
        bodies.append(body)
    return bodies


def ask(url: str, bodies: list[dict[str, Any]]) -> float:
    """Tokens a second of requests that are sent at once."""

    def post(body: dict[str, Any]) -> int:
        reply = httpx2.post(f"{url}/v1/completions", json=body, timeout=600).raise_for_status()
        return int(reply.json()["usage"]["completion_tokens"])

    with ThreadPoolExecutor(ROWS) as pool:
        began = time.perf_counter()
        written = sum(pool.map(post, bodies))
        return written / (time.perf_counter() - began)


def main(url: str) -> list[str]:
    """The table's lines. Grammars are compiled before anything is measured."""
    cases = {
        "no grammar": make_bodies(0, "regex"),
        "a pattern for four of them": make_bodies(4, "regex"),
        "a pattern for each": make_bodies(ROWS, "regex"),
        "a JSON schema for each": make_bodies(ROWS, "json"),
    }
    for bodies in cases.values():
        ask(url, bodies)
    speeds = dict.fromkeys(cases, 0.0)
    for _ in range(ROUNDS):  # in turn, since machines are noisy
        speeds = {name: max(speeds[name], ask(url, bodies)) for name, bodies in cases.items()}
    lines = ["| eight texts in one batch | tokens/s | of those without |", "|---|---|---|"]
    plain = speeds["no grammar"]
    return lines + [f"| {name} | {speed:.1f} | {speed / plain:.0%} |" for name, speed in speeds.items()]
