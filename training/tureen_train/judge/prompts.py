"""What a judge is asked, and how its verdicts are read. Pure."""

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

from tureen_train.judge.comparisons import Comparison, write_request
from tureen_train.judge.configuration import Choice, Demonstration, JudgeConfiguration

FIELD = re.compile(r"\{(criterion|examples|count|number|request|first|second)\}")
BEFORE = r"(?:(?:the |my )?(?:final |better |preferred )?(?:verdict|answer|output|choice)\s*[:=]\s*)?"
OPEN, CLOSE = r"[\s>*_`\"'\[(-]*", r"[\s*_`\"'\]).!]*"

Messages = list[dict[str, Any]]


def write_messages(configuration: JudgeConfiguration, comparisons: Sequence[Comparison]) -> Messages:
    """Write the messages that ask for the verdicts on some comparisons. Demonstrations are earlier turns."""
    shown = [each for each in configuration.demonstrations if each.verdict in configuration.labels]
    messages: Messages = []
    if configuration.system:
        messages.append({"role": "system", "content": _fill(configuration.system, criterion=configuration.criterion)})
    for start in range(0, len(shown), configuration.batch):
        part = shown[start : start + configuration.batch]
        asked = _write_task(configuration, [(each.request, each.first, each.second) for each in part])
        messages.append({"role": "user", "content": asked})
        messages.append({"role": "assistant", "content": _write_reply(configuration, part)})
    asked = _write_task(configuration, [(write_request(each.prompt), each.first, each.second) for each in comparisons])
    return [*messages, {"role": "user", "content": asked}]


def _write_task(configuration: JudgeConfiguration, pairs: Sequence[tuple[str, str, str]]) -> str:
    examples = [
        _fill(configuration.example, number=str(number), request=request, first=first, second=second)
        for number, (request, first, second) in enumerate(pairs, start=1)
    ]
    return _fill(
        configuration.task, examples="\n\n".join(examples), count=str(len(pairs)), criterion=configuration.criterion
    )


def _write_reply(configuration: JudgeConfiguration, shown: Sequence[Demonstration]) -> str:
    labels = [configuration.labels[each.verdict] for each in shown]
    if configuration.reasons:
        return f"{shown[0].reasons}\n\n{labels[0]}".lstrip()
    return "\n".join(f"{number}. {label}" for number, label in enumerate(labels, start=1))


def _fill(template: str, **values: str) -> str:
    """Replace the fields of a template once, so that braces in a text are never taken for a field."""
    return FIELD.sub(lambda match: values.get(match[1], match[0]), template)


def parse_verdicts(configuration: JudgeConfiguration, text: str, count: int, cut: bool = False) -> list[Choice] | None:
    """Read the verdicts of a reply.

    With reasons the last line must be a label, so that a heading inside the reasons is never taken for the verdict; a
    reply that was cut has none. Without reasons each line that is a label counts, with or without a number. The numbers
    must be 1 to ``count``, and decide which pair a line is about.

    Args:
        count: the number of pairs that were asked about.
        cut: whether the reply ended at ``max_tokens``.

    Returns:
        A verdict for each pair; None if the reply has another number of verdicts, and no pair has one then.
    """
    labels = {f"label{at}": choice for at, choice in enumerate(configuration.labels)}
    words = "|".join(f"(?P<{group}>{_match_label(configuration.labels[choice])})" for group, choice in labels.items())
    if configuration.reasons:
        lines = [line for line in text.splitlines() if line.strip()]
        found = re.fullmatch(f"{OPEN}{BEFORE}{OPEN}(?:{words}){CLOSE}", lines[-1], re.IGNORECASE) if lines else None
        return None if found is None or cut or count != 1 else [labels[str(found.lastgroup)]]
    line = re.compile(rf"{OPEN}(?:(?:example\s*)?(?P<number>\d+)\s*[.):]\s*)?{OPEN}(?:{words}){CLOSE}", re.IGNORECASE)
    matches = [match for match in map(line.fullmatch, text.splitlines()) if match]
    numbers = [int(match["number"]) for match in matches if match["number"]]
    if len(matches) != count or (numbers and sorted(numbers) != list(range(1, count + 1))):
        return None
    verdicts = [next(labels[group] for group in labels if match[group]) for match in matches]
    return [verdicts[numbers.index(place)] for place in range(1, count + 1)] if numbers else verdicts


def _match_label(label: str) -> str:
    """A pattern of a label: white space of any length matches white space, and round brackets may be missing."""
    return re.sub(r"\\[()]", lambda bracket: f"{bracket[0]}?", r"\s+".join(map(re.escape, label.split())))


def digest_question(configuration: JudgeConfiguration, model: str, comparison: Comparison) -> str:
    """Hash all that the verdict on a comparison depends on: model, settings, wording, criterion, prompt, answers."""
    told = [model, write_messages(configuration, [comparison]), configuration.settings, configuration.batch]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]
