"""Checkpoints of a run -> a bundle that predicts (extra ``export``).

:func:`birdinfer.export.run.export_run` does all of it. ``onnx/`` turns a network into a graph and compares the two on
real windows, ``int8/`` makes INT8 graphs, ``acceptance/`` decides which variants may take the place of fp32.
"""
