"""Count the outcomes of scored texts, and the labels made of them, in the metrics."""

from collections.abc import Sequence

from tureen.wire import PreferencesReply, RankingLabel
from tureen_serve.api.reward_query import RewardQuery
from tureen_serve.inference.engine import Outcome
from tureen_serve.log_lines import CALLER
from tureen_serve.security.callers import charge_tokens
from tureen_serve.telemetry import Metrics


def count_outcomes(metrics: Metrics, outcomes: Sequence[Outcome], query: RewardQuery) -> None:
    """Count the outcomes of one group: the answers to one prompt, one text, or the steps of one answer."""
    count_read_texts(metrics, list(query.scales), outcomes)
    done = [outcome for outcome in outcomes if outcome.error is None]
    for name in query.scales if done else ():
        _watch_scores(metrics, name, done, query)


def count_read_texts(metrics: Metrics, rewards: Sequence[str], outcomes: Sequence[Outcome]) -> None:
    """Count texts that rewards have read, and charge their tokens to the request's caller."""
    done = sum(outcome.error is None for outcome in outcomes)
    computed = sum(outcome.tokens - outcome.cached for outcome in outcomes)
    metrics.read.inc(len(outcomes))
    for outcome in outcomes:
        if outcome.truncated:
            metrics.truncated.inc()
        if outcome.normalised:
            metrics.count_normalised(outcome.normalised)
    for name in rewards:
        if done:
            metrics.find_texts(name, "scored").inc(done)
        if done < len(outcomes):
            _count_failures(metrics, name, outcomes)
        metrics.find_tokens(name, "in").inc(computed)
        charge_tokens(computed)


def count_labels(metrics: Metrics, reply: PreferencesReply) -> PreferencesReply:
    """Count the labels of a reply by outcome, and return the reply. A mere ranking does not say whether it is a tie."""
    for label in reply.data:
        if label.error is not None:
            outcome = "failed"
        elif isinstance(label, RankingLabel):
            outcome = "ranked"
        else:
            outcome = "tie" if label.tie else "preferred"
        metrics.labels.labels(outcome).inc()
    return reply


def _count_failures(metrics: Metrics, name: str, outcomes: Sequence[Outcome]) -> None:
    errors = [outcome.error for outcome in outcomes if outcome.error is not None]
    metrics.texts.labels(name, "failed").inc(len(errors))
    metrics.nonfinite.labels(name).inc(sum(error.code == "non_finite_score" for error in errors))


def _watch_scores(metrics: Metrics, name: str, done: Sequence[Outcome], query: RewardQuery) -> None:
    scale = query.scales[name]
    if scale is None:
        scores = [outcome.raw[name] for outcome in done]
    else:
        scores = [scale.standardise(outcome.raw[name]) for outcome in done]
        metrics.scores.take_scores(name, scores, CALLER.get())
    if query.reads == "conversation" and not query.soup:
        lengths = [outcome.tokens for outcome in done]
        metrics.scores.take_answers(name, query.fingerprints[name], scores, lengths, scale)
