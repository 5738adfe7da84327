"""Fits of everything that ships: measured times in, calibrations out, judged on held-out shapes."""
