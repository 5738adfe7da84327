"""Published models: the catalogue, and Hugging Face ``config.json`` files."""

from moe_codesign.models.catalogue import catalogue, find_model, models, read_model_named
from moe_codesign.models.hf_config import read_config
from moe_codesign.models.read_model import ReadModel

__all__ = ["ReadModel", "catalogue", "find_model", "models", "read_config", "read_model_named"]
