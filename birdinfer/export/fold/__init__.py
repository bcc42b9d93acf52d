"""Fold the front end of a graph: all that is linear in its waveform becomes one convolution, or one fast transform.

:mod:`~birdinfer.export.fold.regions` finds where a graph is linear in the waveform,
:mod:`~birdinfer.export.fold.measure` measures what it computes there,
:mod:`~birdinfer.export.fold.spectrum` recognises a windowed Fourier transform in it,
:mod:`~birdinfer.export.fold.rewrite` replaces it, and :mod:`~birdinfer.export.fold.member` keeps the result in a
bundle if scores agree and it is faster.
"""
