"""Two answers in an order that a hash draws: even, the same in every process, and blind to the given order."""

import subprocess
import sys
from collections import Counter

from tureen.records.dialogue import assistant_turn, user_turn
from tureen.records.schema import Record
from tureen_train.judge.comparisons import Comparison, draw_order, make_comparison

PROMPT = (user_turn("why?"),)
DRAW = """
from tureen_train.judge.comparisons import Comparison, draw_order
pairs = [Comparison(({"role": "user", "content": "why?"},), f"answer {number}", "another") for number in range(32)]
print("".join(str(int(draw_order(pair) == pair)) for pair in pairs))
"""


def test_the_order_depends_on_the_texts_alone_and_is_even() -> None:
    pairs = [Comparison(PROMPT, f"answer {number}", "another") for number in range(400)]
    assert all(draw_order(pair) == draw_order(pair.turned) for pair in pairs)
    kept = Counter(draw_order(pair) == pair for pair in pairs)
    assert 150 < kept[True] < 250


def test_the_order_is_the_same_in_every_process() -> None:
    """RLPHF seeded its swaps by Python's own hash, which every process salts."""
    drawn = {
        subprocess.run(
            [sys.executable, "-c", DRAW],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    here = [Comparison(PROMPT, f"answer {number}", "another") for number in range(32)]
    assert drawn == {"".join(str(int(draw_order(pair) == pair)) for pair in here) + "\n"}


def test_a_long_answer_is_read_with_its_turns() -> None:
    turns = (assistant_turn("hm"), user_turn("so?"), assistant_turn("yes"))
    pair = make_comparison(Record(PROMPT, (turns, (assistant_turn("no"),)), (1, 0)))
    assert (pair.first, pair.second) == ("[assistant]\nhm\n\n[user]\nso?\n\n[assistant]\nyes", "no")
