"""Heads of one's own on the embeddings of a network that is not trained again: labels, fit, cross-validation, packing.

:mod:`~birdinfer.heads.run` leads through it; ``birdinfer head fit`` is its command.
"""
