"""Which records and answers become a run's probes, by which its saved model is compared with the trained one. Pure."""

from collections.abc import Sequence

from tureen.records.schema import Record
from tureen_core.manifest import Probe
from tureen_train.records.rendering import make_probe
from tureen_train.records.run_data import RunData


def choose_probe_records(data: RunData) -> Sequence[Record]:
    """Return the records of the first evaluation file, or the training records if there is none."""
    return next(iter(data.eval.values()), data.train)


def choose_answer_probes(data: RunData, count: int) -> list[Probe]:
    """Make at most ``count`` probes, without scores: the first two answers to each prompt, in the records' order."""
    pairs = [(record, answer) for record in choose_probe_records(data) for answer in record.answers[:2]]
    return [make_probe(record, answer) for record, answer in pairs[:count]]
