"""Inference: a bundle and recordings -> probabilities [rows, species] of each file.

The way of the sound, and the module of each stage::

    file -> window batches -> input -> member scores -> rows -> ensemble -> post-processing -> rows of the file
    audio.reader              `---- member_group ---'  aggregation  ensemble  postprocess        predictor

:mod:`~birdinfer.inference.bundle` loads and verifies what predicts, :mod:`~birdinfer.inference.engines` run its graphs,
:mod:`~birdinfer.inference.predictor` connects the stages for one file, :mod:`~birdinfer.inference.soundscapes` and
:mod:`~birdinfer.inference.workers` predict many files on all cores, :mod:`~birdinfer.inference.autotune` finds the
fastest way to do so, and :mod:`~birdinfer.inference.external` adds models from elsewhere to a bundle.
"""
