"""Where the sound files of train.csv lie, as BirdCLEF has laid them out over the years."""

from pathlib import Path

AUDIO_FOLDERS = ("train_audio", "train_short_audio")


def audio_folder(data_dir: Path) -> Path | None:
    """The folder of a data set that holds its clips; None if there is none."""
    return next((data_dir / name for name in AUDIO_FOLDERS if (data_dir / name).is_dir()), None)


def clip_file(folder: Path, filename: str, primary_label: str) -> Path:
    """A clip's file, which may not be there.

    The first years list the bare file name and keep it in a folder named like the label.

    Args:
        folder: of :func:`audio_folder`.
        filename: as train.csv has it.
        primary_label: of the same row.
    """
    in_label_folder = folder / primary_label / filename
    return in_label_folder if in_label_folder.exists() and not (folder / filename).exists() else folder / filename
