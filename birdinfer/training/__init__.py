"""Training (extra ``train``): clips with labels -> fold checkpoints and out-of-fold probabilities.

The stages: ``data`` (tables -> clips -> folds -> windows), ``augment``, ``forward`` (waveform -> log-mel ->
network), ``losses`` and ``optim``, ``loop`` (one fold), ``evaluate``, ``checkpoint``, ``run`` (all folds). The settings
are :class:`birdinfer.training.recipe.schema.Recipe` and :class:`birdinfer.training.run.TrainingSettings`.
"""

import os

from birdinfer.system.files import cache_path

# torch makes this folder when it is imported, in the system's folder of temporary files, and leaves it there.
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_path().parent / "torchinductor"))
