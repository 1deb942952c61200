"""``tureen-train similarity``: add the similarity of each prompt's answers to preference data."""

from pathlib import Path
from typing import Annotated

import typer

from tureen_train.faults import exit_on_user_error
from tureen_train.records.options import FormOf, Renames, Reversed, Strict, open_reading
from tureen_train.records.writing import write_pairs, write_text_score

Domain = Annotated[str | None, typer.Option(help="for DSP's files: the domain whose answer is preferred")]
Pooled = Annotated[str | None, typer.Option(help="mean or cls; by default that of the encoder's folder")]


def similarity_command(
    source: Annotated[Path, typer.Argument(metavar="IN", help="preference data in any known form")],
    target: Annotated[
        Path,
        typer.Argument(metavar="OUT", help="the file to write: a JSON list if it ends in `.json`, else JSON Lines"),
    ],
    encoder: Annotated[str, typer.Option(help="`minilm`, or the folder of an encoder")] = "minilm",
    pooling: Pooled = None,
    to_pairs: Annotated[
        bool, typer.Option("--to-pairs", help="write rows of prompt, chosen and rejected, as TRL reads them")
    ] = False,
    form: FormOf = "auto",
    renames: Renames = None,
    reverse: Reversed = "refuse",
    strict: Strict = False,
    domain: Domain = None,
) -> None:
    """Write preference data with the cosine similarities of each prompt's answers in `meta.similarity` (for PCRM)."""
    from tureen_train.networks.sentence_encoder import add_similarity, open_encoder, parse_pooling  # seconds to import

    with exit_on_user_error():
        chosen = open_encoder(encoder, parse_pooling(pooling))
        reading = open_reading(source, form, renames, reverse, strict, domain=domain)
        records = add_similarity(reading, chosen)
        written = write_pairs(records, target) if to_pairs else write_text_score(records, target)
    for line in reading.report.lines():
        typer.echo(line, err=True)
    typer.echo(f"wrote {written} {'pairs' if to_pairs else 'records'} to {target}")
