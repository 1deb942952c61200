"""The preference weights that explain a person's choices in a file, by rewards in this process or of servers."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from tureen.choice_files import ChoiceFile
from tureen.records.schema import BadOption
from tureen.settings import SCHEMES
from tureen.wire import FitReply
from tureen_core.calibration import Calibration, check_common_scale, resolve_scale
from tureen_core.weight_fit import describe_fit, fit_weights
from tureen_train.evaluation.items import Item
from tureen_train.evaluation.scorers import Scorer, open_scorer
from tureen_train.networks.reward_reader import Done

Rewards = list[dict[str, float]]


def fit_choices(
    choices: ChoiceFile, models: Sequence[str], level: float, width: float, preset: str, batch: int, done: Done
) -> FitReply:
    """Fit the weights to the choices of a file.

    Args:
        models: for texts, the rewards: folders of artifacts, or servers as ``http://host:8900#reward``; ``#name`` after
            a folder names one of several objectives.
        level, width: see :func:`tureen_core.weight_fit.fit_weights`.
        preset: the name of the preset.
        batch: in process, the texts in one batch; over HTTP, the pairs in one request.
        done: called with the number of further answers that are scored.

    Raises:
        BadOption: rewards are named for a file that has them, too few are named for one with texts, or one compares
            answers.
        Unprocessable: a reward has no calibration.
        FitError: the choices cannot be fitted.
    """
    if choices.has_rewards and models:
        raise BadOption("--reward: the file has rewards already; leave the option out")
    if not choices.has_rewards and len(models) < 2:
        raise BadOption("--reward: name two or more rewards that score the texts, or give a file with rewards")
    chosen, rejected = _read_rewards(choices) if choices.has_rewards else _score(choices, models, batch, done)
    return FitReply(**describe_fit(fit_weights(chosen, rejected, level, width), preset))


def _read_rewards(choices: ChoiceFile) -> tuple[Rewards, Rewards]:
    return [pair["chosen_rewards"] for pair in choices.pairs], [pair["rejected_rewards"] for pair in choices.pairs]


def _score(choices: ChoiceFile, models: Sequence[str], batch: int, done: Done) -> tuple[Rewards, Rewards]:
    items = [
        Item(
            place,
            tuple(pair["prompt"]),
            (tuple(pair["chosen"]), tuple(pair["rejected"])),
            (1.0, 0.0),
            template_arguments={name: pair[name] for name in ("tools", "chat_template_kwargs") if name in pair},
        )
        for place, pair in zip(choices.places, choices.pairs, strict=True)
    ]
    chosen: Rewards = [{} for _ in items]
    rejected: Rewards = [{} for _ in items]
    scales: dict[str, Calibration | None] = {}
    for model in models:
        with _open(model, batch) as scorer:
            name, scale = _read_scale(scorer, model, scales)
            scales[name] = scale
            for number, scored in enumerate(scorer.score(items, done)):
                chosen[number][name], rejected[number][name] = map(resolve_scale(scale).standardise, scored.rewards)
    check_common_scale(scales, scales, "--reward")
    return chosen, rejected


@contextmanager
def _open(model: str, batch: int) -> Iterator[Scorer]:
    """Open the scorer of one objective.

    Raises:
        BadOption: there are several objectives and none is named, or no such one.
    """
    folder, _, objective = model.partition("#")
    with ExitStack() as stack:
        address = model if model.startswith(SCHEMES) else folder
        try:
            scorer = stack.enter_context(open_scorer(address, objective or None, batch=batch))
        except BadOption as error:
            raise BadOption(f"--reward {model}: write the objective after a #: {error}") from error
        yield scorer


def _read_scale(scorer: Scorer, model: str, known: Mapping[str, object]) -> tuple[str, Calibration | None]:
    """The name and the calibration of a scorer's only objective.

    Raises:
        BadOption: it compares answers, or has the name of an earlier one.
    """
    if scorer.compares:
        raise BadOption(f"--reward: {model} compares two answers and gives no reward; name one that scores answers")
    name = scorer.about["objective"]
    if name in known:
        raise BadOption(f"--reward: two are called {name!r}; weights are between rewards with different names")
    scale = scorer.about["calibration"][name]
    return name, None if scale is None else Calibration(**scale)
