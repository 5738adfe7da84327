"""Calibrations from measured times: reading them, fitting, judging on held-out shapes."""
