"""The training wing (extra ``train``): clips with labels -> fold checkpoints and out-of-fold probabilities.

The sound's way here: ``metadata`` (tables -> clips) -> ``folds`` -> ``dataset`` (clip -> waveform window, augmented by
``augment``) -> ``frontend`` (waveform -> log-mel, in torch) -> ``models`` -> ``loss``; ``loop`` turns the crank,
``evaluate`` scores, ``checkpoint`` keeps, ``run`` puts the stations in order. What may be set stands in ``recipe``.
"""
