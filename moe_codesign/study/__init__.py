"""The joint search: space files, the evaluation of a candidate, samplers, Optuna's studies."""
