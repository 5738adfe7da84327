"""Published models: the catalogue, and Hugging Face ``config.json`` files; their experts, and whole models."""

from moe_codesign.models.catalogue import catalogue, find_model, models, read_model_named
from moe_codesign.models.config_fields import NoExpertsError
from moe_codesign.models.hf_config import read_config
from moe_codesign.models.read_model import ReadModel
from moe_codesign.models.whole_catalogue import model_shape

__all__ = [
    "NoExpertsError",
    "ReadModel",
    "catalogue",
    "find_model",
    "model_shape",
    "models",
    "read_config",
    "read_model_named",
]
