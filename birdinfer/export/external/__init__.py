"""Graphs of others become like those of members: one float32 input, and a row of numbers for each window.

:mod:`~birdinfer.export.external.inputs` fixes further inputs and moves axes, :mod:`~birdinfer.export.external.chain`
joins an encoder and its head.
"""
