"""The table of forms. The first one that fits a checkpoint is taken, unless the user names one."""

from tureen_core.plain.adapters import ADAPTER
from tureen_core.plain.armorm import ARMORM
from tureen_core.plain.checkpoint import Checkpoint
from tureen_core.plain.class_heads import CLASSIFIER_CLASS
from tureen_core.plain.form import TOLD, Form
from tureen_core.plain.internlm2 import INTERNLM2
from tureen_core.plain.judges import PAIR_JUDGE, VERIFIER
from tureen_core.plain.linear_heads import CLASSIFIER, OPENRLHF
from tureen_core.plain.named_heads import NAMED_HEADS
from tureen_core.plain.nemotron import NEMOTRON
from tureen_core.plain.options import PlainError, PlainOptions
from tureen_core.plain.process_heads import QWEN_PRM, SKYWORK_PRM, TRL_PRM
from tureen_core.plain.process_judges import PRM_TOKENS, PRM_TURNS
from tureen_core.plain.templates import ALONE, PAIR

FORMS: tuple[Form, ...] = (
    OPENRLHF,
    CLASSIFIER,
    QWEN_PRM,
    TRL_PRM,
    SKYWORK_PRM,
    PAIR_JUDGE,
    VERIFIER,
    PRM_TOKENS,
    PRM_TURNS,
    ADAPTER,
    ARMORM,
    INTERNLM2,
    *NAMED_HEADS,
    NEMOTRON,
    CLASSIFIER_CLASS,
)


BY_NAME = [form.name for form in (PAIR_JUDGE, VERIFIER, PRM_TOKENS, PRM_TURNS, NEMOTRON)]


def choose_form(checkpoint: Checkpoint, options: PlainOptions) -> Form:
    """Choose the form of a checkpoint.

    Raises:
        PlainError: no form has the name that the user gave, none fits, or the form does not take an option.
    """
    form = _choose_form(checkpoint, options)
    for name in TOLD:
        if getattr(options, name) and name not in form.answers:
            raise PlainError(f"{name}: the form {form.name} of {checkpoint.folder.name} has none; leave it out")
    if form.answers and options.template in (PAIR, ALONE):
        raise PlainError(f"template: {options.template} writes the texts of encoders, and the form {form.name} others")
    return form


def _choose_form(checkpoint: Checkpoint, options: PlainOptions) -> Form:
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
    if checkpoint.adapter:
        kind = checkpoint.adapter.get("task_type") or "no task_type"
        return (
            f"it is an adapter of PEFT ({kind}) without a reward head. Serve an adapter of a policy with --base B "
            f"--expert NAME={checkpoint.folder}; a reward adapter needs the task SEQ_CLS and a saved head"
        )
    names = ", ".join(form.name for form in FORMS)
    if checkpoint.architecture.endswith(("ForCausalLM", "LMHeadModel")):
        return (
            f"{checkpoint.architecture} is a language model without a reward head, and a new head would be random. If "
            f"it judges by the tokens that it writes, say how with --form {'|'.join(BY_NAME)}"
        )
    return (
        f"its layout is not known ({checkpoint.architecture or 'no architecture'} in config.json); if it has one of "
        f"the known forms, name it with --form: {names}"
    )
