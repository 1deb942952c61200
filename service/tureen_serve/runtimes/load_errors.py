"""The errors of a model that is loaded while the server runs, as callers get them."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tureen.errors import TureenError, Unavailable, Unprocessable
from tureen_core.artifact import ArtifactError
from tureen_core.base import BaseError
from tureen_core.lora import SoupError
from tureen_core.plain.options import PlainError
from tureen_serve.runtimes.sources import LoadError

LOG = logging.getLogger(__name__)
RETRY_SECONDS = 30


@contextmanager
def translate_load_errors(folder: Path, remedy: str) -> Iterator[None]:
    """Translate every error of the work inside. No message tells where the folder lies.

    Args:
        folder: of the model.
        remedy: what to do if the model cannot be served.

    Raises:
        Unprocessable: the model cannot be served; the code is ``model_unusable``.
        Unavailable: it cannot be loaded now; the code is ``model_not_loaded``, or the error's own.
    """
    label = folder.name
    try:
        yield
    except Unavailable:
        raise
    except BaseError as error:  # the base may be installed later, and the source's folder does not change then
        message = f"{label} cannot be loaded now: {error}"
        raise Unavailable(message, code="model_not_loaded", retry_after=RETRY_SECONDS) from error
    except (LoadError, ArtifactError, PlainError, SoupError, TureenError) as error:
        reason = str(error).replace(f"{folder.parent}/", "")
        message = f"{label} cannot be served: {reason}; {remedy}"
        raise Unprocessable(message, code="model_unusable") from error
    except Exception as error:
        LOG.exception("%s could not be loaded", label)
        message = f"{label} could not be loaded ({type(error).__name__}); the server's log has the details"
        raise Unavailable(message, code="model_not_loaded", retry_after=RETRY_SECONDS) from error
