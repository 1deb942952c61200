"""The forms of Alpaca and AlpacaFarm: an instruction, its input, and outputs; LlamaFactory's ranking of two outputs."""

import math

from tureen.records.columns import Columns
from tureen.records.draft import Draft, make_unlabelled_scores
from tureen.records.fields import Fields, check_type, read_score
from tureen.records.joining import join_texts
from tureen.records.openings import read_opening
from tureen.records.schema import UNLABELLED, BadRecord

TIES = (0.0, 3.0)
SAMPLED = ("generator", "sample_mode", "datasplit")  # what AlpacaFarm's files of samples name


def read_annotated_pair(columns: Columns) -> Draft:
    """Read two outputs and their preference: 1 or 2 is the better output, and a number between leans to one of them.

    1.5 is a tie, and so are 0 (AlpacaFarm's mark of equal outputs) and 3 (a judge's TIE). NaN is a judgement that was
    not understood.

    Raises:
        BadRecord: the preference is another number.
    """
    preference = read_score(columns.get("preference"), "preference")
    if math.isnan(preference):
        scores = (UNLABELLED, UNLABELLED)
    elif preference in TIES:
        scores = (0.5, 0.5)
    elif 1 <= preference <= 2:
        scores = (2 - preference, preference - 1)
    else:
        raise BadRecord("bad score", f"`preference` must be 1 to 2, 0 or 3 for a tie, or null; is {preference:g}")
    return Draft(*join_texts(read_opening(columns, "instruction"), (columns["output_1"], columns["output_2"])), scores)


def read_ranked_pair(columns: Columns) -> Draft:
    """Read LlamaFactory's ranking. The first of two outputs is the better one."""
    return Draft(*join_texts(read_opening(columns, "instruction"), columns["output"]), (1.0, 0.0))


def is_ranked_pair(fields: Fields) -> bool:
    """Whether there are two outputs, and no column says that they were sampled to be judged later."""
    output = fields["output"]
    two = isinstance(output, list) and len(output) == 2 and all(isinstance(text, str) for text in output)
    return two and not any(name in fields for name in SAMPLED)


def read_samples(columns: Columns) -> Draft:
    """Read one output or a list of outputs without scores."""
    output = columns["output"]
    samples = output if isinstance(output, list) else [output]
    names = [f"output[{index}]" for index in range(len(samples))] if isinstance(output, list) else ["output"]
    texts = [check_type(sample, str, name) for sample, name in zip(samples, names, strict=True)]
    return Draft(*join_texts(read_opening(columns, "instruction"), texts), make_unlabelled_scores(len(texts)))
