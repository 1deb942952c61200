"""Free the weights of a model that is not used any more, although references to its modules may be left."""

from typing import Any


def release_weights(model: Any) -> None:
    """Take all weights out of a tree of modules, which no other model uses.

    Modules that refer to each other live until a full garbage collection, which delays requests. Weights that another
    tree shares stay there.
    """
    for module in model.modules():
        module._parameters.clear()
        module._buffers.clear()
