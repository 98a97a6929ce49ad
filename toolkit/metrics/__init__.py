"""Metrics as `evaluate` modules; load one by its folder, e.g. `evaluate.load("toolkit/metrics/answer_accuracy")`."""
