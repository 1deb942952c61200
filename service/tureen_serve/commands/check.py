"""``tureen-serve check``: verify a model and score its probes as the server would."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tureen.commands.flags import Json
from tureen_core.plain.option_flags import take_plain_flags
from tureen_core.plain.options import NO_OPTIONS, PlainOptions
from tureen_core.plain.source_text import PLACES
from tureen_serve.commands.artifact_flags import Device, Dtype, RuntimeName
from tureen_serve.settings import RewardEntry, SettingsError, load_settings

Source = Annotated[
    str,
    typer.Argument(metavar="SOURCE", help=f"An artifact, or a plain reward model of others: {PLACES}."),
]


@take_plain_flags("tureen-serve")
def check(
    source: Source,
    as_json: Json = False,
    runtime: RuntimeName = None,
    dtype: Dtype = None,
    device: Device = None,
    plain: PlainOptions = NO_OPTIONS,
) -> None:
    """Verify a model's files, and score its probes as the server would.

    Exit code 1 if one of them fails, or there are none.

    The probes of a plain model are scored by plain transformers in float32 first.
    """
    from tureen_serve.runtimes.load import LoadError, LoadOptions  # imports torch, which --help does not need
    from tureen_serve.runtimes.source_check import check_source

    proofs: list[dict[str, Any]] = []
    form = served = failure = None
    try:
        settings = load_settings(runtime=runtime, dtype=dtype, device=device)
        how = (settings.runtime, settings.dtype, settings.device, settings.cache)
        options = LoadOptions(*how, vllm=settings.vllm, bases=settings.bases)
        entry = RewardEntry(path=source, **plain.model_dump(exclude_unset=True))
        checked = check_source(entry, options)
        proofs = [{**vars(proof), "holds": proof.holds} for proof in checked.proofs]
        form, served = checked.form, checked.runtime
        if not proofs:
            failure = (
                f"{source}: the files are intact, but it has no probes, so its scores are not proven: export it again "
                "with tureen-train export, or import it with tureen-train import, which record probes"
            )
    except (SettingsError, LoadError) as error:
        failure = str(error)
    holds = failure is None and all(proof["holds"] for proof in proofs)
    if as_json:
        typer.echo(json.dumps({"holds": holds, "error": failure, "form": form, "runtime": served, "proofs": proofs}))
    elif failure is not None:
        Console().print(f"[bold red]{'not proven' if served else 'refused'}[/] {escape(failure)}", soft_wrap=True)
    else:
        _show(source, proofs, form, str(served))
    raise typer.Exit(0 if holds else 1)


def _show(source: str, proofs: Sequence[Mapping[str, Any]], form: str | None, runtime: str) -> None:
    console, name = Console(), source.rstrip("/").rpartition("/")[2]
    before = "training" if form is None else "plain transformers"
    table = Table(title=f"{escape(name)}: scores of the probes in {before} and here")
    for column in ("objective", "probe", before, "here", "allowed", ""):
        table.add_column(column, justify="left" if column == "objective" else "right")
    for proof in proofs:
        verdict = "[green]holds[/]" if proof["holds"] else "[bold red]differs[/]"
        numbers = (f"{proof['expected']:+.4f}", f"{proof['found']:+.4f}", f"±{proof['tolerance']:g}")
        table.add_row(proof["objective"], str(proof["probe"]), *numbers, verdict)
    console.print(table)
    if form is not None:
        console.print(f"form: {form}")
    largest = max(abs(proof["found"] - proof["expected"]) for proof in proofs)
    console.print(f"runtime: {escape(runtime)}; largest difference: {largest:.3g}", soft_wrap=True)
