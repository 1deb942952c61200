"""Which rows of a batch have a prompt in common, so that it is computed once for all of them. Pure."""

from collections import Counter
from collections.abc import Container, Mapping, Sequence

from tureen_core.packed.layout import Prompt
from tureen_serve.runtimes.contract import Row


def get_prompt(row: Row) -> Prompt:
    """What another row may have too: the shared ids, under one blend."""
    return row.ids[: row.shared], row.blend


def find_shared_prompts(rows: Sequence[Row], known: Container[Prompt] = ()) -> dict[int, Prompt]:
    """The prompts of the rows whose prompt is known, or another row's too, by the row's index."""
    prompts = {index: get_prompt(row) for index, row in enumerate(rows) if 0 < row.shared < len(row.ids)}
    count = Counter(prompts.values())
    return {index: found for index, found in prompts.items() if count[found] > 1 or found in known}


def count_cached_tokens(rows: Sequence[Row], prompts: Mapping[int, Prompt], known: Container[Prompt] = ()) -> list[int]:
    """Tokens of each row that were computed for another: its prompt, unless it is the first to have a new one."""
    first: dict[Prompt, int] = {}
    for index, found in prompts.items():
        first.setdefault(found, index)
    spared = {index for index, found in prompts.items() if found in known or first[found] != index}
    return [row.shared if index in spared else 0 for index, row in enumerate(rows)]
