"""Label a file of items run by run. Several runs are requested at once; each is committed before the next."""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from copy import deepcopy
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from tureen import item_files
from tureen.errors import Conflict, ServerFault, TureenError
from tureen.item_forms import DEFAULT, RowReading
from tureen.labelling import items
from tureen.labelling.asked_runs import AskedRuns, Fingerprint, LabelRun
from tureen.labelling.held_interrupts import hold_interrupts
from tureen.labelling.items import Line
from tureen.labelling.journal import Journal
from tureen.labelling.preference_data import make_rows
from tureen.labelling.recipe import Recipe
from tureen.labelling.row_forms import Row
from tureen.labelling.tally import Tally
from tureen.wire import MAX_CANDIDATES, ErrorDetail, Label, PreferencesReply

T = TypeVar("T")
LARGEST_MATRICES = 2**20  # numbers in one reply, as servers bound it


@dataclass(frozen=True)
class Plan:
    """The options of a labelling.

    Attributes:
        recipe: how labels become rows.
        asked: the options of the requests, as JSON: rewards, preferences, truncate ...
        spare: write items that cannot be labelled to the error file, instead of stopping at the first.
        size: items in one run, at most.
        ahead: the number of runs that are requested at once.
        reading: how the rows of a file become items.
    """

    recipe: Recipe = Recipe()
    asked: Mapping[str, Any] | None = None
    spare: bool = False
    size: int = 64
    ahead: int = 2
    reading: RowReading = DEFAULT

    @property
    def run(self) -> int:
        """Items in one run, so few that their matrices fit into a reply."""
        return min(self.size, LARGEST_MATRICES // MAX_CANDIDATES**2) if self.recipe.matrix else self.size

    def work(self, source: Path) -> dict[str, Any]:
        """Describe the work, as JSON. Different works have different descriptions.

        Raises:
            Unprocessable: the source cannot be read.
        """
        digest = item_files.compute_digest(source)
        recipe = asdict(self.recipe)
        work = {"source": f"{source.name} sha256:{digest}", "asked": dict(self.asked or {}), "recipe": recipe}
        return {**work, "reading": self.reading.describe()} if self.reading != DEFAULT else work


def label_items(
    ask: LabelRun, source: Path, target: Path, plan: Plan, seen: Callable[[int], None], *, restart: bool = False
) -> Tally:
    """Write the rows of every item of ``source``, in order. An interrupted call is continued.

    Whatever ends it early, also Ctrl-C, all items that were answered by then are kept.

    Args:
        ask: labels a run of items; threads call it.
        source: the items.
        target: where the rows will stand. Until all are there they stand in its ``.part``.
        plan: the options.
        seen: called with the number of finished items: first those of an earlier call, then those of each run.
        restart: discard the results of an earlier call.

    Raises:
        TureenError: an item cannot be labelled and is not to be spared (the message names its place), or nothing can.
        OSError: a file cannot be read or written.
    """
    journal = Journal(target, plan.work(source), restart=restart)
    seen(journal.tally.read)
    if journal.complete:
        return journal.tally
    with closing(journal):
        done = journal.tally.read
        left = islice(items.read_items(source, plan.reading), done, None)
        models = journal.tally.fingerprint or next((each.reply.fingerprint for each in journal.kept), {})
        runs = AskedRuns(ask, left, plan.run, plan.ahead, models, done, journal.kept)
        try:
            while runs.wait():
                with hold_interrupts():
                    _commit_first(runs, journal, plan, seen)
        except BaseException:
            with hold_interrupts():
                _keep_answered(runs, journal, plan, seen)
            raise
        journal.finish()
    return journal.tally


def _commit_first(runs: AskedRuns, journal: Journal, plan: Plan, seen: Callable[[int], None]) -> None:
    lines, reply = runs.take()
    settled = settle_run(lines, reply, plan, journal.tally)
    journal.commit(settled.rows, settled.errors, settled.tally)
    seen(len(lines))


def _keep_answered(runs: AskedRuns, journal: Journal, plan: Plan, seen: Callable[[int], None]) -> None:
    """Commit what is answered from the first run on, and keep the replies behind one that is not."""
    with suppress(TureenError):  # a reply that cannot be used; an error is being raised already
        while runs.is_answered() and runs.first_place == journal.tally.read:
            _commit_first(runs, journal, plan, seen)
    models = journal.tally.fingerprint
    later = [each for each in runs.list_later() if not models or each.reply.fingerprint == models]
    if later:
        journal.keep_replies(later)


def ask_in_runs(
    ask: LabelRun, lines: Iterable[Line], plan: Plan, fingerprint: Fingerprint
) -> Generator[tuple[list[Line], PreferencesReply | None]]:
    """Yield runs of lines with their replies, in order. ``plan.ahead`` runs are requested at once.

    A run without items has no reply.

    Args:
        fingerprint: the models that must answer; if it is empty, those of the first reply.
    """
    runs = AskedRuns(ask, iter(lines), plan.run, plan.ahead, fingerprint)
    while runs.wait():
        yield runs.take()


def split_into_runs(lines: Iterable[T], size: int) -> Iterator[list[T]]:
    """Split lines into lists of ``size``. The last list may be shorter."""
    iterator = iter(lines)
    while some := list(islice(iterator, size)):
        yield some


@dataclass(frozen=True)
class SettledRun:
    """The results of a run: its rows, the lines for the error file, and the new tally."""

    rows: list[Row]
    errors: list[Row]
    tally: Tally


def settle_run(lines: Sequence[Line], reply: PreferencesReply | None, plan: Plan, before: Tally) -> SettledRun:
    """Make the rows of a run.

    Raises:
        TureenError: an item cannot be labelled and is not to be spared, or another model answered than before.
    """
    tally = deepcopy(before)
    if reply is not None:
        _same(reply, tally)
    found = {line.number: each for line, each in match_labels(lines, reply)}
    settled = SettledRun([], [], tally)
    for line in lines:
        _settle(line, found.get(line.number), plan, settled)
    return settled


def match_labels(lines: Iterable[Line], reply: PreferencesReply | None) -> list[tuple[Line, Label]]:
    """Pair each item with its label.

    Raises:
        ServerFault: the reply does not hold them, or not in full.
    """
    asked = [line for line in lines if line.item is not None]
    given = [each for each in reply.data if isinstance(each, Label)] if reply else []
    if len(given) != len(asked):
        raise ServerFault(f"the answer does not hold the labels of {len(asked)} items", code="unreadable_reply")
    return list(zip(asked, given, strict=True))


def _same(reply: PreferencesReply, tally: Tally) -> None:
    if tally.fingerprint and reply.fingerprint != tally.fingerprint:
        raise Conflict("the reward models changed since the first items were labelled; restart with the new ones")
    tally.fingerprint = reply.fingerprint
    tally.preferences = reply.preferences or {}
    tally.prompt_tokens += reply.usage.prompt_tokens


def _settle(line: Line, label: Label | None, plan: Plan, settled: SettledRun) -> None:
    tally = settled.tally
    tally.read += 1
    try:
        made = make_rows(line.id, *_labelled(line, label), plan.recipe)
    except TureenError as error:
        if not plan.spare:
            raise _placed(error, line) from error
        tally.failed += 1
        settled.errors.append(describe_failure(line, error))
        return
    tally.labelled += 1
    for column, treatment in line.columns.items():
        counted = tally.columns.setdefault(column, {})
        counted[treatment] = counted.get(treatment, 0) + 1
    tally.rows += len(made.rows)
    tally.ties += made.ties
    for reason, count in made.dropped.items():
        tally.dropped[reason] = tally.dropped.get(reason, 0) + count
    settled.rows.extend(made.rows)


def _labelled(line: Line, label: Label | None) -> tuple[items.Item, Label]:
    if line.item is None or label is None:
        raise line.error or ServerFault("the line is neither an item nor an error")
    if label.error:
        raise _told(label.error)
    return line.item, label


def _told(error: ErrorDetail) -> TureenError:
    """Convert a label's error. Its field is named from the item on."""
    param = (error.param or "").partition("].")[2] if (error.param or "").startswith("items[") else error.param
    return TureenError(error.message, param=param or None, code=error.code)


def describe_failure(line: Line, error: TureenError) -> Row:
    """Make a line of the error file."""
    detail = {"message": error.message, "param": error.param, "code": error.code}
    return {"line": line.number, "id": line.id, "place": line.place, "error": detail}


def _placed(error: TureenError, line: Line) -> TureenError:
    field = f"{error.param}: " if error.param and not error.message.startswith(error.param) else ""
    return type(error)(f"{line.place}: {field}{error.message}", param=error.param, code=error.code)
