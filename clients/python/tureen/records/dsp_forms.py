"""The forms of DSP (arXiv 2309.03126), APO and RLPHF: answers by domain, whole dialogues with scores, completions."""

from tureen.records import dialogue
from tureen.records.columns import Columns
from tureen.records.draft import Draft, make_answers, make_unlabelled_scores
from tureen.records.fields import check_type, read_score
from tureen.records.joining import join_texts
from tureen.records.openings import read_opening
from tureen.records.ratings import read_listed_ratings
from tureen.records.schema import BadRecord
from tureen.records.spelling import split_prompt


def read_domains(columns: Columns) -> Draft:
    """Read one answer for each domain, without scores. The caller chooses the preferred domain."""
    responses = {
        name: "" if text is None else check_type(text, str, f"responses.{name}")
        for name, text in columns["responses"].items()
    }
    scores = make_unlabelled_scores(len(responses))
    return Draft(read_opening(columns, "query").turns, make_answers(*responses.values()), scores, tuple(responses))


def read_scored_dialogues(columns: Columns) -> Draft:
    """Read whole dialogues with a score each. A negative score marks padding, whose text is not read."""
    name = "score" if "score" in columns else "scores"
    texts, scores = columns["text"], [read_score(value, f"{name}[{i}]") for i, value in enumerate(columns[name])]
    if len(texts) != len(scores):
        raise BadRecord("lengths differ", f"`text` has {len(texts)} items and `{name}` {len(scores)}")
    kept = [index for index, value in enumerate(scores) if not value < 0]
    if not kept:
        raise BadRecord("no answer", "`text` is empty or all padding")
    dialogues = [
        dialogue.read_dialogue(check_type(texts[index], str, f"text[{index}]"), f"text[{index}]") for index in kept
    ]
    prompt, answers = split_prompt(dialogues)
    rated = {
        name: tuple(values[index] for index in kept)
        for name, values in read_listed_ratings(columns, len(texts)).items()
    }
    return Draft(prompt, answers, tuple(scores[index] for index in kept), (), len(texts) - len(kept), attributes=rated)


def read_completions(columns: Columns) -> Draft:
    """Read RLPHF's pairs. ``completion_a`` is the preferred one."""
    texts = (columns["completion_a"], columns["completion_b"])
    return Draft(*join_texts(read_opening(columns, "user_input"), texts), (1.0, 0.0))
