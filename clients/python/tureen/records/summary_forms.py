"""OpenAI's summarize_from_feedback: summaries that are compared, and summaries that are rated."""

import math
from collections.abc import Mapping

from tureen.records.columns import Columns, is_empty
from tureen.records.draft import Draft, make_unlabelled_scores
from tureen.records.fields import check_type
from tureen.records.schema import BadRecord


def read_summaries(columns: Columns) -> Draft:
    """Read comparisons: a post or an article, two summaries, and which one was chosen."""
    texts = [_text_of(each, f"summaries[{index}]") for index, each in enumerate(columns["summaries"])]
    choice = columns["choice"]
    if isinstance(choice, bool) or not isinstance(choice, int) or not 0 <= choice < len(texts):
        raise BadRecord("bad score", f"`choice` must be the number of a summary, from 0, is {choice!r}")
    prompt = ({"role": "user", "content": _write_post(columns["info"])},)
    answers = tuple(({"role": "assistant", "content": text.strip()},) for text in texts)
    return Draft(prompt, answers, tuple(float(index == choice) for index in range(len(texts))))


def read_summary_ratings(columns: Columns) -> Draft:
    """Read the axis files: one summary and its ratings."""
    summary = columns["summary"]
    axes = check_type(summary.get("axes"), dict, "summary.axes")
    rated = {
        name: (math.nan if value is None else float(value),)
        for name, value in axes.items()
        if value is None or isinstance(value, int | float)
    }
    answer = {"role": "assistant", "content": check_type(summary.get("text"), str, "summary.text").strip()}
    prompt = ({"role": "user", "content": _write_post(columns["info"])},)
    return Draft(prompt, ((answer,),), make_unlabelled_scores(1), attributes=rated)


def _text_of(value: object, name: str) -> str:
    return check_type(check_type(value, dict, name).get("text"), str, f"{name}.text")


def _write_post(info: Mapping[str, object]) -> str:
    """Write the request as the published code does."""
    if not is_empty(info.get("article")):
        return f"Article: {info['article']}\n\nTL;DR:"
    post = check_type(info.get("post"), str, "info.post")
    heads = [f"SUBREDDIT: r/{info['subreddit']}"] if not is_empty(info.get("subreddit")) else []
    heads += [f"TITLE: {info['title']}"] if not is_empty(info.get("title")) else []
    return "\n\n".join([*heads, f"POST: {post}", "TL;DR:"])
