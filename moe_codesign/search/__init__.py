"""The joint search: space files, the evaluation of a candidate, Optuna's studies."""

from moe_codesign.search.space import Space, load_space
from moe_codesign.search.study import SearchResult, run_search

__all__ = ["SearchResult", "Space", "load_space", "run_search"]
