"""The metrics that an objective can name."""

MAXIMISED = frozenset({"quality", "tokens_per_s_per_chip", "tokens_per_s_per_user"})
METRICS = ("latency_us", "usd_per_mtok", "joules_per_token", *sorted(MAXIMISED))
"""Metrics an objective can name; those not in MAXIMISED are minimised."""
