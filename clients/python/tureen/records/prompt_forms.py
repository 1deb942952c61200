"""A record of which only the prompt is read, as files of prompts and of demonstrations have it."""

from tureen.records.columns import Columns
from tureen.records.draft import Draft
from tureen.records.openings import PROMPTS, read_opening
from tureen.records.schema import BadRecord

ANSWERS = (
    *("completion", "response", "output", "answer", "solution", "answers", "completions", "responses", "reward_model"),
    *("chosen", "rejected", "label", "labels", "score", "scores", "ground_truth", "reference", "target", "extra_info"),
)


def read_prompt(columns: Columns) -> Draft:
    """Read a prompt from any column that holds one. The assistant's turns at its end are answers, and are left out.

    Raises:
        BadRecord: no column holds a prompt, or it has only turns of the assistant.
    """
    turns = list(read_opening(columns).turns)
    if not turns:
        known = ", ".join(PROMPTS)
        raise BadRecord("no prompt", f"no column holds a prompt ({known}): name it with --map COLUMN=prompt")
    while turns and turns[-1]["role"] == "assistant":
        turns.pop()
    if not turns:
        raise BadRecord("no prompt", "there is no turn of the user to be answered")
    return Draft(tuple(turns), (), ())
