"""Launch, verify and time a layer on a device that is here."""

from moe_codesign.measure.job import LayerJob, Measurement
from moe_codesign.measure.presence import device_for, devices_over, missing_package, not_measured
from moe_codesign.measure.worker import MeasuringProcess

__all__ = [
    "LayerJob",
    "Measurement",
    "MeasuringProcess",
    "device_for",
    "devices_over",
    "missing_package",
    "not_measured",
]
