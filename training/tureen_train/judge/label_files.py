"""Judged pairs as files, in the forms that trainers of reward models and policies read."""

from pathlib import Path
from typing import Any, Literal

from tureen.messages import join_content
from tureen.records.schema import BadRecord, Record
from tureen_train.config.preferences import read_rlphf_sentences
from tureen_train.judge.comparisons import write_answer
from tureen_train.judge.pairs import LabelledPairs
from tureen_train.records.writing import write_pairs_with_ties, write_rows, write_text_score

LabelForm = Literal["trl", "rlphf", "alpaca-farm", "text-score"]


def write_labels(labelled: LabelledPairs, path: Path, form: LabelForm, pole: str, annotator: str) -> int:
    """Write judged pairs.

    ``trl`` has messages: prompt, chosen and rejected, with both scores. ``text-score`` is DSP's. ``rlphf`` has
    user_input with the sentence of the preference, and completion_a, which is the better one; it has no ties, which are
    left out. ``alpaca-farm`` has the pairs in the order of their file, and ``preference`` from 1 (the first is better)
    to 2; 1.5 is a tie.

    Args:
        pole: of RLPHF's preferences, whose sentence ``rlphf`` adds to prompts that do not have it; empty for none.
        annotator: who judged, for ``alpaca-farm``.

    Returns:
        The number of pairs that were written.

    Raises:
        BadRecord: a prompt or an answer has several turns, which the form cannot write.
        BadOption: the folder is missing, or there was nothing to write; ``path`` is left alone.
    """
    if form == "trl":
        return write_pairs_with_ties(labelled.ordered, path)
    if form == "text-score":
        return write_text_score(labelled.ordered, path)
    if form == "alpaca-farm":
        return write_rows((_write_annotation(each, annotator) for each in labelled.records), path)
    sentence = find_sentence(pole)
    decided = (each for each in labelled.ordered if each.scores[0] > each.scores[1])
    return write_rows((_write_completions(each, sentence) for each in decided), path)


def find_sentence(pole: str) -> str:
    """Find RLPHF's sentence of a pole, as P2A; empty for others."""
    poles = {name: text for dimension in read_rlphf_sentences().values() for name, text in dimension.items()}
    return poles.get(pole, "")


def _write_completions(record: Record, sentence: str) -> dict[str, Any]:
    text = _read_prompt(record, "rlphf")
    if " ".join(sentence.split()) not in " ".join(text.split()):
        text = f"{text.rstrip()} {sentence}"
    better, worse = (_read_answer(record, place, "rlphf") for place in (0, 1))
    return {"user_input": text, "completion_a": better, "completion_b": worse}


def _write_annotation(record: Record, annotator: str) -> dict[str, Any]:
    preference = 2 - record.scores[0]
    return {
        "instruction": _read_prompt(record, "alpaca-farm"),
        "input": "",
        "output_1": _read_answer(record, 0, "alpaca-farm"),
        "output_2": _read_answer(record, 1, "alpaca-farm"),
        "annotator": annotator,
        "preference": int(preference) if preference.is_integer() else preference,
    }


def _read_prompt(record: Record, form: str) -> str:
    if len(record.prompt) != 1 or record.prompt[0]["role"] != "user" or record.template_arguments:
        raise _refuse(record, "its prompt is more than one turn of the user", form)
    return join_content(record.prompt[0])


def _read_answer(record: Record, place: int, form: str) -> str:
    if len(record.answers[place]) != 1:
        raise _refuse(record, "an answer has more than one turn", form)
    return write_answer(record.answers[place])


def _refuse(record: Record, why: str, form: str) -> BadRecord:
    return BadRecord("cannot be written", f"{why}, which {form} has no place for: write --as trl", record.source)
