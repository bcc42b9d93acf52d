"""Keys that no search may touch, and why: those that change no result, and those that change what is measured."""

from collections.abc import Mapping

from birdinfer.training.recipe import NOT_DECISIVE

_CLIPS = "decides which clips the score is measured on, so scores could not be compared"
_SOUND = "decides what is heard of the clips that the score is measured on, so scores could not be compared"

_MEASURE: Mapping[str, str] = {
    "seed": "draws luck, not a better recipe: the luckiest trial would win",
    "data.n_folds": _CLIPS,
    "data.fold_column": _CLIPS,
    "data.folds_file": _CLIPS,
    "data.val_share": _CLIPS,
    "data.test_share": _CLIPS,
    "data.all_data": _CLIPS,
    "data.group_by": _CLIPS,
    "data.duplicates": _CLIPS,
    "data.complete_fold0": _CLIPS,
    "data.min_clips_per_species": _CLIPS,
    "data.max_clips": _CLIPS,
    "data.max_seconds": _SOUND,
    "data.remove_voice": _SOUND,
    "data.cache": "decides how fast a clip is read, not what is learned from it",
    "loop.val_windows": _SOUND,
}


def why_barred(key: str) -> str:
    """Why a key cannot be searched; "" if it can."""
    if key in NOT_DECISIVE or key.startswith(("post.", "tracking.")):
        return "changes no score, there is nothing to find"
    return _MEASURE.get(key, "")
