"""Format replies as tables for a terminal."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import zip_longest

from rich.table import Column, Table
from rich.text import Text

from tureen.batches.batch_flows import STOPPED_EARLY, count_finished_lines
from tureen.openai_wire import ChatChoice, ChatReply
from tureen.wire import (
    Batch,
    CandidateScore,
    ErrorDetail,
    FitReply,
    ModelChange,
    ModelList,
    Score,
    ScoreItem,
    ScoreReply,
    ShadowComparison,
    ShadowReport,
)

LONGEST = 240
BATCH = ("batch", "status", "endpoint", "done", "failed", "created")
SHADOW = (
    "served",
    "texts compared",
    "pairs ordered the same way",
    "rank correlation",
    "mean difference",
    "largest difference",
    "population stability, served",
    "population stability, shadow",
)
SPARED = ("endpoint", "created", "failed", "done")


def tabulate_scores(items: Sequence[ScoreItem], reply: ScoreReply, ids: Sequence[str | int | None] = ()) -> Table:
    """Return a table with one row per candidate: each objective's calibrated and raw reward, and the weighted reward.

    Args:
        ids: the items' ids; an item without one shows its index, from 0.
    """
    table = Table("item", "answer", Column("rewards", no_wrap=True), "reward", "tokens", show_lines=True)
    for item, row, name in zip(items, reply.data, ids or [None] * len(items), strict=True):
        answers = list_texts(item)
        title = Text(str(row.index if name is None else name))
        if row.error:
            table.add_row(title, format_error(row.error))
        for candidate in row.candidates:
            reward = "" if candidate.reward is None else f"{candidate.reward:+.3f}"
            said = format_error(candidate.error) if candidate.error else shorten_text(answers[candidate.index])
            table.add_row(title, said, format_rewards(candidate), reward, str(candidate.tokens))
    return table


def tabulate_fit(fit: FitReply) -> Table:
    """Return a table of fitted weights with their intervals."""
    table = Table("objective", Column("weight", justify="right"), f"{fit.level:.0%} interval")
    for name, weight in sorted(fit.weights.items(), key=lambda each: -each[1]):
        low, high = fit.intervals[name]
        table.add_row(Text(name), f"{weight:.3f}", f"{low:.3f} to {high:.3f}")
    return table


def describe_fit(fit: FitReply) -> list[str]:
    """Return what a fit tells beside its weights, as lines; the last one is a preset in YAML."""
    low, high = fit.decisiveness_interval
    needed = {
        None: f"choices of this kind cannot make the intervals {fit.width:g} wide: send pairs in which one objective "
        "is better and another is worse",
        0: f"all intervals are at most {fit.width:g} wide",
    }
    (name, weights), *_ = fit.preset.items()
    listed = ", ".join(f"{each}: {weight:g}" for each, weight in weights.items())
    return [
        f"{fit.pairs} choices, of which the weights explain {fit.accuracy:.1%}",
        f"log-likelihood {fit.log_likelihood:.2f}; of coin flips {fit.chance_log_likelihood:.2f}",
        f"decisiveness {fit.decisiveness:.2f} ({low:.2f} to {high:.2f}) log-odds for one unit of weighted reward",
        needed.get(fit.pairs_needed, f"about {fit.pairs_needed} more choices make all intervals {fit.width:g} wide"),
        f"presets: {{{name}: {{{listed}}}}}",
    ]


def tabulate_sweep(reply: ChatReply, scores: ScoreReply | None) -> Table:
    """Return a table with one row per choice of a sweep: its weights, its text, and its rewards if it was scored."""
    table = Table("preferences", "text", *([Column("rewards", no_wrap=True)] if scores else []), show_lines=True)
    for choice, candidate in pair_scores(reply, scores):
        weights = choice.preferences if isinstance(choice.preferences, dict) else {}
        cells = (
            format_weights(weights),
            shorten_text(choice.text),
            *([format_rewards(candidate)] if candidate else []),
        )
        table.add_row(*cells)
    return table


def pair_scores(reply: ChatReply, scores: ScoreReply | None) -> list[tuple[ChatChoice, CandidateScore | None]]:
    """Pair each choice with its scores. ``scores`` is the reply for one item whose candidates are the texts."""
    candidates = scores.data[0].candidates if scores else []
    return list(zip_longest(reply.choices, candidates))


def tabulate_models(reply: ModelList) -> Table:
    """Return a table with one row per model. Its column ``loaded`` is left out if all are."""
    on_demand = any(not card.loaded for card in reply.data)
    columns = ("kind", "objectives", "calibrated", "steering", "longest", "version")
    table = Table(Column("model", overflow="fold"), *columns, *(("loaded",) if on_demand else ()))
    for card in reply.data:
        longest = str(card.max_length) if card.max_length else ""
        names, steering = (Text(", ".join(each)) for each in (card.objectives, card.steering))
        calibrated = "" if card.calibrated is None else "yes" if card.calibrated else "no"
        version = Text((card.version or "")[:12])
        state = ("yes" if card.loaded else "no",) if on_demand else ()
        table.add_row(Text(card.id), card.kind, names, calibrated, steering, longest, version, *state)
    return table


def tabulate_change(change: ModelChange) -> Table:
    """Return a table that says what a load or an unload has done."""
    table = Table("reward", "action", "version", "fingerprint", "before", "seconds")
    version, fingerprint = Text((change.version or "")[:12]), change.fingerprint or ""
    seconds = f"{change.seconds:.1f}" if change.seconds else ""
    for name in change.rewards:
        table.add_row(Text(name), change.action, version, fingerprint, change.replaced or "", seconds)
    return table


def tabulate_shadow(report: ShadowReport) -> Table:
    """Return a table of how far a shadow agrees with what is served, one row per number and one column per reward."""
    rows = dict(zip(SHADOW, zip(*map(_compare, report.comparisons), strict=True), strict=True))
    table = Table("", *(Column(Text(each.reward), justify="right") for each in report.comparisons))
    for name, cells in rows.items():
        table.add_row(name, *cells)
    table.add_section()
    facts = {
        "shadow": report.fingerprint,
        "share": f"{report.share:g}",
        "texts dropped, as the server was busy": str(report.dropped),
        "texts that the shadow failed on": str(report.failed),
    }
    for name, fact in facts.items():
        table.add_row(name, fact, *[""] * (len(report.comparisons) - 1))
    return table


def _compare(found: ShadowComparison) -> tuple[str, ...]:
    unit = " σ" if found.unit == "deviations" else ""
    drift = [_number(each.population_stability, ".3f") for each in (found.live_drift, found.shadow_drift)]
    return (
        found.live_fingerprint or "",
        str(found.texts),
        f"{_number(found.pair_agreement, '.1%')} of {found.pairs}",
        _number(found.rank_correlation, ".3f"),
        _number(found.mean_difference, "+.3f", unit),
        _number(found.largest_difference, ".3f", unit),
        *drift,
    )


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "–" if value is None else f"{value:{form}}{unit}"


def tabulate_batches(found: Sequence[Batch], width: int) -> Table:
    """Return a table with one row per batch. To fit, columns of ``SPARED`` are dropped; ids are never cut."""
    columns = dict(zip(BATCH, zip(*map(_batch, found), strict=True) if found else [()] * len(BATCH), strict=True))
    for name in SPARED:
        if 1 + sum(3 + max(map(len, (title, *cells))) for title, cells in columns.items()) > width:
            del columns[name]
    longest = max(map(len, columns["batch"]), default=0)
    table = Table(*(Column(name, overflow="fold", min_width=longest if name == "batch" else None) for name in columns))
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*map(Text, cells))
    return table


def _batch(batch: Batch) -> tuple[str, ...]:
    counts = batch.request_counts
    failed = f"{counts.failed} or not run" if batch.status in STOPPED_EARLY and counts.failed else str(counts.failed)
    created = datetime.fromtimestamp(batch.created_at).strftime("%Y-%m-%d %H:%M:%S")
    return batch.id, batch.status, batch.endpoint, f"{count_finished_lines(batch)} of {counts.total}", failed, created


def format_weights(weights: Mapping[str, float]) -> Text:
    """Return the weights, one a line: ``academy=0.6``."""
    return Text("\n".join(f"{name}={weight:.3g}" for name, weight in weights.items()))


def list_texts(item: ScoreItem) -> list[str]:
    """Return the texts to show for an item: its answers, its steps, or the last message of its conversation."""
    if item.messages is not None:
        return [item.messages[-1].text]
    answers = item.candidates or item.steps or []
    return [answer if isinstance(answer, str) else answer[-1].text for answer in answers]


def shorten_text(text: str) -> Text:
    """Return the text on one line, cut to ``LONGEST`` characters."""
    line = " ".join(text.split())
    return Text(line if len(line) <= LONGEST else line[: LONGEST - 1] + "…")


def format_error(error: ErrorDetail) -> Text:
    """Return the error code and message in red."""
    return Text(f"{error.code}: {error.message}", style="red")


def format_rewards(candidate: CandidateScore) -> Text:
    """Return one line per objective, as ``academy +0.41 (1.83)``: calibrated, and raw in brackets.

    An objective without a calibration has only its raw reward: ``academy (1.83)``.
    """
    scores = candidate.scores or {}
    width = max(map(len, scores), default=0)
    lines = [
        Text.assemble(f"{name:{width}}{_format_calibrated(score)}", (f" ({score.raw:.2f})", "dim"))
        for name, score in scores.items()
    ]
    return Text("\n").join(lines)


def _format_calibrated(score: Score) -> str:
    return "" if score.calibrated is None else f" {score.calibrated:+.2f}"
