"""Files in, records out, with a report of what was left out and why."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path

from tureen.records.containers import compute_digest, read_rows
from tureen.records.forms import check_form, parse_record
from tureen.records.pairing import split_into_pairs
from tureen.records.schema import BadOption, BadRecord, Record

EXAMPLES = 3


@dataclass
class ReadingReport:
    """What a reading saw.

    ``dropped`` counts records and ``dropped_answers`` answers of kept records, both by reason; ``examples`` has the
    first few messages of each reason; ``comparable`` counts the kept records' comparable pairs; ``files`` has the
    SHA-256 of every path.
    """

    read: int = 0
    kept: int = 0
    comparable: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    dropped_answers: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)

    def keep(self, record: Record, left_out: dict[str, int]) -> None:
        """Count a record that is used."""
        self.kept += 1
        self.comparable += len(record.pairs)
        for reason, count in left_out.items():
            if count:
                self.dropped_answers[reason] = self.dropped_answers.get(reason, 0) + count

    def drop(self, error: BadRecord) -> None:
        """Count a record that is not."""
        self.dropped[error.reason] = self.dropped.get(error.reason, 0) + 1
        seen = self.examples.setdefault(error.reason, [])
        if len(seen) < EXAMPLES:
            seen.append(str(error))

    def lines(self) -> list[str]:
        """The report in words: one line of counts, one a reason, and the examples below it."""
        told = [f"read {self.read} records, kept {self.kept} with {self.comparable} comparable pairs"]
        told += [f"answers left out, {reason}: {count}" for reason, count in self.dropped_answers.items()]
        for reason, count in self.dropped.items():
            told += [f"records dropped, {reason}: {count}", *(f"  {example}" for example in self.examples[reason])]
        return told


@dataclass
class Reading:
    """The records of some files, in order: iterate over it, then look at ``report``. Each iteration reads afresh.

    Args:
        paths: JSON lists, JSON Lines, gzip of both, Parquet, or folders that ``datasets`` saved; one or several.
        form: a name of :data:`tureen.records.forms.FORMS`; ``auto`` looks at each record's fields.
        domain: DSP only: its answer scores 1 and the others 0. Without it DSP's answers are unlabelled.
        exclude: DSP only: domains whose answers are left out, as ``normal``.
        pairs: give one record a comparable pair, the better answer first.
        split: which split of a saved ``DatasetDict``.
        strict: the first bad record is fatal; else it is counted, named in the report, and skipped.

    Raises:
        BadOption: no paths, an unknown form, or ``domain`` in ``exclude``; while iterating, a domain or split that the
            data do not have.
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
        for path in map(Path, paths):
            self.report.files[str(path)] = compute_digest(path)
            for source, item in read_rows(path, self.split):
                record = self._record(source, item)
                if record is not None:
                    yield record

    def _record(self, source: str, item: object) -> Record | None:
        self.report.read += 1
        try:
            record, left_out = self._finished(source, item)
        except BadRecord as error:
            named = error.at(source)
            if self.strict:
                raise named from error
            self.report.drop(named)
            return None
        self.report.keep(record, left_out)
        return record

    def _finished(self, source: str, item: object) -> tuple[Record, dict[str, int]]:
        if isinstance(item, BadRecord):
            raise item
        draft = parse_record(item, self.form)
        if self.exclude:
            draft = draft.drop_names(self.exclude)
        if self.domain is not None:
            draft = draft.prefer_name(self.domain)
        return draft.finish(source)
