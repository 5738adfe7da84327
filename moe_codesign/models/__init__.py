"""Published models: the catalogue, and Hugging Face ``config.json`` files."""

from moe_codesign.models.catalogue import find_model, models
from moe_codesign.models.hf_config import read_config

__all__ = ["find_model", "models", "read_config"]
