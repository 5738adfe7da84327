"""The shape of a model as it is read."""

import dataclasses

from moe_codesign.errors import UserError
from moe_codesign.models import ReadModel, model_shape, read_model_named


def model(model: str) -> ReadModel:
    """The shape and data type of a model, field by field, the key that each came from, and the whole model around it.

    Where the whole model cannot be read, its experts are read all the same, and ``no_whole`` says why.

    Args:
        model: catalogue name, as ``Qwen3-30B-A3B`` or ``Qwen/Qwen3-30B-A3B``; a ``config.json`` or ``params.json``; or
            the folder that holds one.

    Raises:
        NoExpertsError: the model has no experts; :func:`moe_codesign.model_shape` reads it.
        UserError: no such model or file; or a field that is missing, cannot be read as one whole number, or disagrees
            with another. It names the field and its value.
    """
    read = read_model_named(model)
    try:
        return dataclasses.replace(read, whole=model_shape(model))
    except UserError as error:
        return dataclasses.replace(read, no_whole=str(error))
