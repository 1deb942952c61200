"""What it costs to give every request of a batch its own soup: eight texts, by the base, one soup, eight soups."""

import time
from typing import Any

import httpx2

ROWS, TOKENS = 8, 32
EXPERTS = ("academy", "business", "entertainment", "literature")


def ask(url: str, preferences: list[dict[str, float]], soup: dict[str, str]) -> float:
    """Seconds for one sweep request of eight texts."""
    body: dict[str, Any] = {
        "model": "smollm2",
        "messages": [{"role": "user", "content": "Describe a morning by the sea."}],
        "preferences": preferences,
        "soup": soup,
        "max_tokens": TOKENS,
        "temperature": 0,
        "logit_bias": {"2": -100},  # no end of text: every row makes all its tokens
    }
    began = time.perf_counter()
    httpx2.post(f"{url}/v1/chat/completions", json=body, timeout=600).raise_for_status()
    return time.perf_counter() - began


def main(url: str) -> list[str]:
    """The table's lines."""
    same = [{"academy": 0.5, "literature": 0.5}] * ROWS
    distinct = [{name: 1.0 + (row * (place + 3)) % 7 for place, name in enumerate(EXPERTS)} for row in range(ROWS)]
    base = [{"academy": 0.0}] * ROWS
    cases = {
        "the bare base": (base, {"normalize": "none"}),
        "one soup": (same, {"normalize": "simplex"}),
        "eight different soups": (distinct, {"normalize": "simplex"}),
    }
    ask(url, same, {"normalize": "simplex"})
    speeds = {name: ROWS * TOKENS / min(ask(url, *case) for _ in range(2)) for name, case in cases.items()}
    lines = ["| eight texts by | tokens/s | of the base |", "|---|---|---|"]
    plain = speeds["the bare base"]
    return lines + [f"| {name} | {speed:.1f} | {speed / plain:.0%} |" for name, speed in speeds.items()]
