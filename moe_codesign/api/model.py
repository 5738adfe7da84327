"""The shape of a model as it is read."""

from moe_codesign.models import ReadModel, read_model_named


def model(model: str) -> ReadModel:
    """The shape and data type of a model, field by field, and the key that each came from.

    Args:
        model: catalogue name, as ``Qwen3-30B-A3B`` or ``Qwen/Qwen3-30B-A3B``; a ``config.json`` or ``params.json``; or
            the folder that holds one.

    Raises:
        UserError: no such model or file; no mixture of experts; or a field that is missing, cannot be read as one whole
            number, or disagrees with another. It names the field and its value.
    """
    return read_model_named(model)
