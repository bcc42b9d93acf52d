"""Evaluate scores: the competitions' metrics, how certain a difference is, and which step of post-processing helps.

In: truth and scores [rows, labels]. Out: numbers and intervals. The module list: :mod:`~birdinfer.evaluation.metrics`,
:mod:`~birdinfer.evaluation.confidence`, :mod:`~birdinfer.evaluation.ablation`.
"""
