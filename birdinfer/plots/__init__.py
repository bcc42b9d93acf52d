"""Pictures of soundscapes, trainings, searches and ablations (extra ``report``)."""

import os

from birdinfer.system.files import cache_path

# matplotlib keeps its list of fonts among our caches instead of making a folder of its own.
os.environ.setdefault("MPLCONFIGDIR", str(cache_path().parent / "matplotlib"))
