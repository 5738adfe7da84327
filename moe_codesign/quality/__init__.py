"""What a shape costs in quality. One module per law; the search uses Efficiency Leverage."""

from moe_codesign.quality.efficiency_leverage import Quality, quality

__all__ = ["Quality", "quality"]
