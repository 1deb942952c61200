"""``tureen-train transform``: filter, augment or label preference data, and write pairs or lists of answers."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from tureen.records.pairing import split_into_pairs
from tureen.records.reading import Reading
from tureen.records.schema import BadOption, Record
from tureen_train.faults import exit_on_user_error
from tureen_train.records.options import FormOf, Renames, Reversed, Strict, open_reading
from tureen_train.records.writing import write_answer_lists, write_pairs_with_ties
from tureen_train.terminal import show_progress
from tureen_train.transforms.augmentation import add_counterfactuals, count_turned, label_by_model
from tureen_train.transforms.filters import TransformResult, keep_alternating, pair_by_mean, pair_by_score_ratio
from tureen_train.transforms.own_answers import gather_answers, oppose_own_answers

transform = typer.Typer(no_args_is_help=True, help="Filter, augment or label preference data, and write pairs to OUT.")

Source = Annotated[Path, typer.Argument(metavar="IN", help="preference data in any known form")]
Target = Annotated[
    Path,
    typer.Argument(metavar="OUT", help="the file for the pairs: a JSON list if it ends in `.json`, else JSON Lines"),
]
Seed = Annotated[int, typer.Option(help="the seed of the random choice")]


@transform.command("rlhflow-filter")
def filter_turns(
    source: Source,
    target: Target,
    form: FormOf = "auto",
    renames: Renames = None,
    reverse: Reversed = "refuse",
    strict: Strict = False,
) -> None:
    """Keep the records that RLHFlow trains on: alternating turns, no empty message, and one context for all answers."""
    with exit_on_user_error():
        reading = open_reading(source, form, renames, reverse, strict)
        kept = keep_alternating(reading)
        _write(TransformResult(list(split_into_pairs(kept.records)), kept.left_out), reading, target)


@transform.command("score-ratio")
def pair_by_ratio(
    source: Source,
    target: Target,
    ratio: Annotated[float, typer.Option(help="the better score must be more than RATIO times the worse one")] = 2.0,
    most: Annotated[int, typer.Option(help="the most pairs of one prompt")] = 5,
    seed: Seed = 0,
    form: FormOf = "auto",
    renames: Renames = None,
    reverse: Reversed = "refuse",
    strict: Strict = False,
) -> None:
    """Keep pairs with a large ratio of scores, a few for each prompt, as RLHFlow does with SHP."""
    with exit_on_user_error():
        reading = open_reading(source, form, renames, reverse, strict)
        _write(pair_by_score_ratio(reading, ratio, most, seed), reading, target)


@transform.command("mean-pairs")
def pair_by_mean_rating(
    source: Source,
    target: Target,
    attribute: Annotated[
        list[str] | None, typer.Option(help="a rating to average; may be repeated; by default all ratings")
    ] = None,
    form: FormOf = "auto",
    renames: Renames = None,
    reverse: Reversed = "refuse",
    strict: Strict = False,
) -> None:
    """Pair rated answers by their mean rating, as RLHFlow does with UltraFeedback and HelpSteer."""
    with exit_on_user_error():
        reading = open_reading(source, form, renames, reverse, strict)
        _write(pair_by_mean(reading, attribute or ()), reading, target)


@transform.command("rrm")
def augment(
    source: Source,
    target: Target,
    seed: Seed = 0,
    extra_only: Annotated[
        bool, typer.Option("--extra-only", help="write only the new pairs, without those of IN")
    ] = False,
    form: FormOf = "auto",
    renames: Renames = None,
    reverse: Reversed = "refuse",
    strict: Strict = False,
) -> None:
    """Add RRM's 14 counterfactual pairs to each pair. Train on them with `loss.ties: half`."""
    with exit_on_user_error():
        reading = open_reading(source, form, renames, reverse, strict)
        pairs = list(split_into_pairs(reading))
        extra = add_counterfactuals(pairs, seed)
        given = [] if extra_only else pairs
        _write(TransformResult([*given, *extra.records], extra.left_out), reading, target)


@transform.command("pseudo-label")
def pseudo_label(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="an artifact's folder, or a server's address as http://host:8900#reward"),
    ],
    source: Source,
    target: Target,
    threshold: Annotated[float, typer.Option(help="a pair is kept if the model's probability is above this")] = 0.8,
    objective: Annotated[str | None, typer.Option(help="the reward to use, if the model has several")] = None,
    batch: Annotated[int, typer.Option(min=1, help="texts in one batch; over HTTP, pairs in one request")] = 8,
    shard: Annotated[str, typer.Option(help="K/N: label only part K of N; parts are numbered from 0")] = "0/1",
    form: FormOf = "auto",
    renames: Renames = None,
    reverse: Reversed = "refuse",
    strict: Strict = False,
) -> None:
    """Label the pairs on which a model is confident: the preferred answer first, with its probability (SSRM)."""
    from tureen_train.judge.opening import open_reward_judge  # seconds to import: not for --help

    with exit_on_user_error():
        reading = open_reading(source, form, renames, reverse, strict)
        part = _part(list(reading), shard)
        twos = [record for record in part if len(record.answers) == 2 and record.prompt]
        judge = open_reward_judge(model, objective, batch)
        with show_progress(transient=True) as progress:
            task = progress.add_task("judging", total=len(twos))
            judged = judge.judge_pairs(twos, lambda count: progress.advance(task, count))
        kept = label_by_model(twos, [each.share for each in judged], threshold)
        others = {"not two answers to a common prompt": len(part) - len(twos)}
        _write(TransformResult(kept.records, {**kept.left_out, **others}), reading, target)
    typer.echo(f"pairs whose label now contradicts their file: {count_turned(kept.records)}", err=True)


@transform.command("own-answers")
def oppose(
    source: Source,
    target: Annotated[Path, typer.Argument(metavar="OUT", help="the file for the lists of answers")],
    answers: Annotated[
        list[Path], typer.Option(help="what a policy wrote, as tureen-train sample writes it; may be repeated")
    ],
    max_tokens: Annotated[int | None, typer.Option(min=1, help="cut the answers of IN to so many tokens")] = None,
    base: Annotated[str | None, typer.Option(help="the model by whose tokenizer they are counted")] = None,
    scramble: Annotated[
        int | None, typer.Option(help="a seed: add the best answer with its words shuffled as a bad one")
    ] = None,
    domain: Annotated[str | None, typer.Option(help="DSP: the domain whose answer is preferred.")] = None,
    form: FormOf = "auto",
    renames: Renames = None,
    reverse: Reversed = "refuse",
    strict: Strict = False,
) -> None:
    """Set the best answers of IN above a policy's own, to train a reward model anew that its policies have cheated."""
    with exit_on_user_error():
        if (max_tokens is None) != (base is None):
            raise BadOption("--max-tokens and --base go together: the base's tokenizer counts the tokens")
        reading = open_reading(source, form, renames, reverse, strict, domain=domain)
        written = [Reading(path, strict=strict) for path in answers]
        own = gather_answers(record for each in written for record in each)
        cut = str if max_tokens is None or base is None else _make_cut(base, max_tokens)
        found = oppose_own_answers(reading, own, cut, scramble)
        for each in written:
            _tell(TransformResult([], {}), each)
        _tell(found, reading)
        typer.echo(f"wrote {write_answer_lists(found.records, target)} lists of answers to {target}")


def _make_cut(base: str, tokens: int) -> Callable[[str], str]:
    from tureen_core.base import load_tokenizer, locate_base  # seconds to import: not for --help

    tokenizer = load_tokenizer(locate_base(base))

    def cut(text: str) -> str:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"][:tokens]
        return str(tokenizer.decode(ids, clean_up_tokenization_spaces=False)).strip()

    return cut


def _part(records: list[Record], shard: str) -> list[Record]:
    """Return every N-th record, from the K-th on."""
    found = re.fullmatch(r"(\d+)/(\d+)", shard)
    if found is None or int(found[1]) >= int(found[2]):
        raise BadOption(f"--shard: write K/N with K from 0 to N − 1, as 0/4, not {shard!r}")
    return records[int(found[1]) :: int(found[2])]


def _write(kept: TransformResult, reading: Reading, target: Path) -> None:
    _tell(kept, reading)
    typer.echo(f"wrote {write_pairs_with_ties(kept.records, target)} pairs to {target}")


def _tell(kept: TransformResult, reading: Reading) -> None:
    """Tell what was read, and what is left out."""
    for line in reading.report.lines():
        typer.echo(line, err=True)
    for reason, count in kept.left_out.items():
        if count:
            typer.echo(f"left out, {reason}: {count}", err=True)
