"""The table of forms. The first one that fits a checkpoint is taken, unless the user names one."""

from tureen_core.plain.checkpoint import Checkpoint
from tureen_core.plain.form import Form
from tureen_core.plain.judges import PAIR_JUDGE
from tureen_core.plain.linear_heads import CLASSIFIER, OPENRLHF
from tureen_core.plain.options import PlainError, PlainOptions

FORMS: tuple[Form, ...] = (OPENRLHF, CLASSIFIER, PAIR_JUDGE)


def choose_form(checkpoint: Checkpoint, options: PlainOptions) -> Form:
    """Choose the form of a checkpoint.

    Raises:
        PlainError: no form has the name that the user gave, or none fits.
    """
    if options.form is not None:
        named = {form.name: form for form in FORMS}
        if options.form not in named:
            raise PlainError(f"form: there is no {options.form!r}; use one of {', '.join(named)}")
        return named[options.form]
    for form in FORMS:
        if form.fits(checkpoint):
            return form
    raise PlainError(f"{checkpoint.folder.name}: {_explain(checkpoint)}")


def _explain(checkpoint: Checkpoint) -> str:
    names = ", ".join(form.name for form in FORMS)
    if checkpoint.architecture.endswith(("ForCausalLM", "LMHeadModel")):
        return (
            f"{checkpoint.architecture} is a language model without a reward head, and a new head would be random. If "
            f"it judges by the tokens that it writes, say how with --form; the forms are {names}"
        )
    return (
        f"its layout is not known ({checkpoint.architecture or 'no architecture'} in config.json); if it has one of "
        f"the known forms, name it with --form: {names}"
    )
