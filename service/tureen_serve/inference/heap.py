"""The garbage collector beside objects that live long: what is loaded is kept out of its collections.

torch, transformers and loaded models are millions of objects. A full collection walks through all of them and holds up
every request meanwhile, unless they are frozen (:func:`gc.freeze`).
"""

import gc


def freeze_heap() -> None:
    """Collect, then keep every object that is left out of later collections."""
    gc.collect()
    gc.freeze()


def refreeze_heap() -> None:
    """The same after something was unloaded: frozen objects in a reference cycle are freed only by this."""
    gc.unfreeze()
    freeze_heap()
