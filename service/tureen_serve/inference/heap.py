"""Keep loaded models out of garbage collections.

torch, transformers and loaded models are millions of objects. A full collection visits all of them and delays every
request, unless they are frozen (:func:`gc.freeze`).
"""

import gc


def freeze_heap() -> None:
    """Collect garbage, then freeze all remaining objects."""
    gc.collect()
    gc.freeze()


def refreeze_heap() -> None:
    """Collect and freeze again after a model was unloaded. Only this frees frozen objects in reference cycles."""
    gc.unfreeze()
    freeze_heap()
