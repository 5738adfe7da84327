"""The joint search: space files, the evaluation of a candidate, Optuna's studies."""

from moe_codesign.study.runner import SearchResult, run_search
from moe_codesign.study.space import Space, load_space

__all__ = ["SearchResult", "Space", "load_space", "run_search"]
