"""Find the prompts that rows of a batch share, so that each is computed once. Pure."""

from collections import Counter
from collections.abc import Container, Mapping, Sequence

from tureen_core.packed.layout import Prompt
from tureen_serve.runtimes.contract import Row


def get_prompt(row: Row) -> Prompt:
    """Return a row's prompt: its shared ids and its blend. Other rows may have the same prompt."""
    return row.ids[: row.shared], row.blend


def find_shared_prompts(rows: Sequence[Row], known: Container[Prompt] = ()) -> dict[int, Prompt]:
    """Find the prompts that are known or that several rows share, by the index of each row that has one."""
    prompts = {index: get_prompt(row) for index, row in enumerate(rows) if 0 < row.shared < len(row.ids)}
    count = Counter(prompts.values())
    return {index: found for index, found in prompts.items() if count[found] > 1 or found in known}


def count_cached_tokens(rows: Sequence[Row], prompts: Mapping[int, Prompt], known: Container[Prompt] = ()) -> list[int]:
    """Count the tokens of each row that were computed for another row: its prompt's, or 0 if it is the first with it.

    Args:
        prompts: the result of :func:`find_shared_prompts`.
        known: prompts that earlier batches computed.
    """
    first: dict[Prompt, int] = {}
    for index, found in prompts.items():
        first.setdefault(found, index)
    spared = {index for index, found in prompts.items() if found in known or first[found] != index}
    return [row.shared if index in spared else 0 for index, row in enumerate(rows)]
