"""Files in, records out, with a report of what was left out and why."""

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path

from tureen.records.answer_keys import find_keys
from tureen.records.containers import compute_digest, read_rows
from tureen.records.draft import Draft
from tureen.records.forms import PROMPT, check_form, parse_record
from tureen.records.pairing import split_into_pairs
from tureen.records.schema import BadOption, BadRecord, Record

EXAMPLES = 3
REFUSED = "records refused for its sake"


def parse_renames(given: Collection[str]) -> dict[str, str]:
    """Parse the renames of a command, ``OLD=NEW`` each. An empty NEW leaves the column out.

    Raises:
        BadOption: one has no equals sign, or names a column twice.
    """
    renamed: dict[str, str] = {}
    for each in given:
        old, equals, new = each.partition("=")
        if not old or not equals:
            raise BadOption(f"--map {each!r}: write OLD=NEW, as question=prompt; OLD= leaves the column out")
        if old in renamed:
            raise BadOption(f"--map names `{old}` twice")
        renamed[old] = new
    return renamed


@dataclass
class ReadingReport:
    """The counts of a reading.

    Attributes:
        dropped: records by reason.
        dropped_answers: answers of kept records by reason.
        examples: the first few messages of each reason.
        comparable: the comparable pairs of the kept records.
        tied: records whose answers are all labelled alike.
        unjudged: records of several answers that nobody compared.
        bare: records that have only a prompt.
        forms: kept records by form.
        columns: for each column that is not one of the form's own, the records by what was done with it.
        files: the SHA-256 of every path.
    """

    read: int = 0
    kept: int = 0
    comparable: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    dropped_answers: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    tied: int = 0
    unjudged: int = 0
    bare: int = 0
    forms: Counter[str] = field(default_factory=Counter)
    columns: dict[str, Counter[str]] = field(default_factory=dict)

    def keep(self, record: Record, draft: Draft, left_out: dict[str, int]) -> None:
        """Count a record that is used."""
        self.kept += 1
        self.comparable += len(record.pairs)
        self.bare += not record.answers
        self.tied += len(record.scores) > 1 and len(set(record.scores)) == 1 and not math.isnan(record.scores[0])
        self.unjudged += len(record.scores) > 1 and not record.pairs and any(map(math.isnan, record.scores))
        self.forms[draft.form] += 1
        for column, treatment in draft.columns.items():
            self.columns.setdefault(column, Counter())[treatment] += 1
        for reason, count in left_out.items():
            if count:
                self.dropped_answers[reason] = self.dropped_answers.get(reason, 0) + count

    def drop(self, error: BadRecord) -> None:
        """Count a record that is left out."""
        self.dropped[error.reason] = self.dropped.get(error.reason, 0) + 1
        if error.column:
            self.columns.setdefault(error.column, Counter())[REFUSED] += 1
        seen = self.examples.setdefault(error.reason, [])
        if len(seen) < EXAMPLES:
            seen.append(str(error))

    def lines(self) -> list[str]:
        """Write the report as lines: counts, reasons with examples, columns, and forms."""
        told = [f"read {self.read} records, kept {self.kept} with {self.comparable} comparable pairs"]
        told += [f"answers left out, {reason}: {count}" for reason, count in self.dropped_answers.items()]
        for reason, count in self.dropped.items():
            told += [f"records dropped, {reason}: {count}", *(f"  {example}" for example in self.examples[reason])]
        if self.tied:
            told.append(f"records whose answers all tie: {self.tied}")
        if self.unjudged:
            told.append(f"records whose answers nobody compared: {self.unjudged}")
        if self.bare:
            told.append(f"records with only a prompt: {self.bare}")
        for column, counted in self.columns.items():
            told += [f"column `{column}`, {treatment}: {count}" for treatment, count in counted.items()]
        if self.forms:
            told.append("read as " + ", ".join(f"{name} {count}" for name, count in self.forms.items()))
        return told


@dataclass
class Reading:
    """The records of some files, in order: iterate over it, then look at ``report``. Each iteration reads afresh.

    Args:
        paths: JSON lists, JSON Lines, CSV, TSV, gzip of these, Parquet, or folders that ``datasets`` saved.
        form: a name of :data:`tureen.records.forms.FORMS`; ``auto`` looks at each record's fields.
        renamed: a column's name in the file → the name that the form knows; an empty name leaves the column out.
        turn_reversed: where the scores contradict which answer is chosen, take the scores; else the record is refused.
        domain: DSP only: its answer scores 1 and the others 0. Without it DSP's answers are unlabelled.
        exclude: DSP only: domains whose answers are left out, as ``normal``.
        pairs: give one record a comparable pair, the better answer first.
        split: which split of a saved ``DatasetDict``.
        strict: the first bad record, or column that is not understood, is fatal; else it is counted and named in the
            report, and a bad record is skipped.
        prompts: read each record for its prompt: it needs one, and no answer. A record of no form with answers is read
            by the form ``prompt``.

    Raises:
        BadOption: no paths, an unknown form, or ``domain`` in ``exclude``; while iterating, a domain, a split or a
            renamed column that the data do not have.
        BadFile: while iterating: a path is missing, damaged, or in no known container.
        BadRecord: while iterating under ``strict``.
    """

    paths: str | Path | Sequence[str | Path]
    _: KW_ONLY
    form: str = "auto"
    domain: str | None = None
    exclude: Collection[str] = ()
    pairs: bool = False
    split: str | None = None
    strict: bool = False
    renamed: Mapping[str, str] = field(default_factory=dict)
    turn_reversed: bool = False
    prompts: bool = False
    report: ReadingReport = field(init=False, default_factory=ReadingReport)

    def __post_init__(self) -> None:
        check_form(self.form)
        if isinstance(self.exclude, str):
            raise BadOption(f"exclude is a list of domains, not the string {self.exclude!r}")
        if self.domain is not None and self.domain in self.exclude:
            raise BadOption(f"domain {self.domain!r} is also excluded")
        if not self.paths:
            raise BadOption("there are no paths to read")

    def __iter__(self) -> Iterator[Record]:
        self.report = ReadingReport()
        return split_into_pairs(self._records()) if self.pairs else self._records()

    def _records(self) -> Iterator[Record]:
        paths = [self.paths] if isinstance(self.paths, str | Path) else self.paths
        unmet, seen = set(self.renamed), set[str]()
        for path in map(Path, paths):
            self.report.files[str(path)] = compute_digest(path)
            for source, item in read_rows(path, self.split):
                if unmet and isinstance(item, Mapping):
                    names = set(item) | (find_keys(item) if any("." in each for each in unmet) else set())
                    unmet -= names
                    seen |= names
                record = self._record(source, item)
                if record is not None:
                    yield record
        if unmet and seen:
            columns = ", ".join(sorted(seen))
            raise BadOption(f"--map: no record has the column `{min(unmet)}`; the columns are {columns}")

    def _record(self, source: str, item: object) -> Record | None:
        self.report.read += 1
        try:
            draft, record, left_out = self._read(item, source)
        except BadRecord as error:
            named = error.at(source)
            if self.strict:
                raise named from error
            self.report.drop(named)
            return None
        self.report.keep(record, draft, left_out)
        return record

    def _read(self, item: object, source: str) -> tuple[Draft, Record, dict[str, int]]:
        """Read a record by its form; for its prompt alone, by the form ``prompt`` where it has no other."""
        try:
            draft = self._draft(item, self.form)
            return draft, *draft.finish(source, self.prompts)
        except BadRecord:
            if not self.prompts or self.form != "auto" or not isinstance(item, Mapping):
                raise
        draft = self._draft(item, PROMPT)
        return draft, *draft.finish(source, self.prompts)

    def _draft(self, item: object, form: str) -> Draft:
        if isinstance(item, BadRecord):
            raise item
        draft = parse_record(item, form, self.renamed, self.strict, self.turn_reversed)
        if self.exclude:
            draft = draft.drop_names(self.exclude)
        if self.domain is not None:
            draft = draft.prefer_name(self.domain)
        return draft
