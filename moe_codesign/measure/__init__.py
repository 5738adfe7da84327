"""Launch, verify and time a layer on a device that is here."""

from moe_codesign.measure.bench import Bench, device_for
from moe_codesign.measure.job import Failure, LayerJob, Measurement

__all__ = ["Bench", "Failure", "LayerJob", "Measurement", "device_for"]
