"""``tureen-train similarity`` and ``margins``: how alike answers are, and how far apart a model holds them."""

import logging
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from tureen_train.faults import told
from tureen_train.records.reading import Reading
from tureen_train.records.writing import write_pairs, write_text_score
from tureen_train.settings import offline

Domain = Annotated[str | None, typer.Option(help="DSP: the domain whose answer is preferred")]
Form = Annotated[str, typer.Option(help="the form of the data; `auto` looks at the fields")]
Pooled = Annotated[str | None, typer.Option(help="mean or cls; what the encoder's folder says by default")]


def similarity(
    source: Annotated[Path, typer.Argument(metavar="IN", help="preference data in any form")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="`.json` makes a JSON list, else JSON Lines")],
    encoder: Annotated[str, typer.Option(help="`minilm`, or an encoder's folder")] = "minilm",
    pooling: Pooled = None,
    to_pairs: Annotated[bool, typer.Option("--to-pairs", help="prompt/chosen/rejected, as TRL reads them")] = False,
    form: Form = "auto",
    domain: Domain = None,
) -> None:
    """Write preference data with the cosines of each prompt's answers in ``meta.similarity`` (PCRM's prior)."""
    offline()
    from tureen_train.networks.sentence_encoder import open_encoder, pooling_of, with_similarity  # seconds to import

    with told():
        chosen = open_encoder(encoder, pooling_of(pooling))
        reading = Reading(source, form=form, domain=domain)
        records = with_similarity(reading, chosen)
        written = write_pairs(records, target) if to_pairs else write_text_score(records, target)
    for line in reading.report.lines():
        typer.echo(line, err=True)
    typer.echo(f"wrote {written} {'pairs' if to_pairs else 'records'} to {target}")


def margins(
    models: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="of reward runs, or of artifacts")],
    data: Annotated[list[Path] | None, typer.Option(help="judge by these files; a run's own held-out part")] = None,
    out: Annotated[Path, typer.Option(help="the folder for the report")] = Path("runs/margins"),
    rating: Annotated[
        str | None, typer.Option(help="correlate with this rating of the answers, as gpt_score; or `scores`")
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="also by cosine: `minilm`, or an encoder's folder")] = None,
    pooling: Pooled = None,
    form: Form = "auto",
    domain: Domain = None,
    objective: Annotated[str | None, typer.Option(help="which reward to read, where there are several")] = None,
    batch: Annotated[int, typer.Option(min=1, help="texts run together")] = 8,
) -> None:
    """Show how far reward models hold answers apart, by how alike these are, and against δ of PCRM's constraint."""
    offline()
    logging.basicConfig(level="WARNING")
    from tureen_core.base import CACHE  # seconds to import, as what follows
    from tureen_train.evaluation.margin_report import held_out, judge, report
    from tureen_train.networks.sentence_encoder import open_encoder, pooling_of

    with told():
        chosen = open_encoder(encoder, pooling_of(pooling)) if encoder else None
        given = [record for path in data or () for record in Reading(path, form=form, domain=domain)]
        found = []
        for model in models:
            records = given if data else held_out(model)
            with Progress(console=Console(stderr=True)) as progress:
                task = progress.add_task(f"scoring by {model}", total=sum(len(record.answers) for record in records))
                done = partial(progress.advance, task)
                found.append(judge(model, records, objective, chosen, CACHE, batch, done))
        written = report(found, out, rating)
    typer.echo(f"the report: {written}")
