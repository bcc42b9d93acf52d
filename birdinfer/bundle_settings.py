"""What a bundle does to scores, stored in it: overlap, blend and post-processing become its own.

A prediction can be told all of this on its command line; what has proven itself belongs into the manifest, so that the
bundle does the same wherever it is taken.
"""

from pathlib import Path

import msgspec

from birdinfer.bundle import Bundle, save_manifest
from birdinfer.config import PostConfig
from birdinfer.postprocess.pipeline import Pipeline
from birdinfer.postprocess.step_tables import bring_in, resolved


def store_settings(bundle: Bundle) -> Bundle:
    """Write a bundle's manifest as it is in memory; tables of its steps are copied into its folder.

    Args:
        bundle: loaded, and changed by :meth:`birdinfer.bundle.Bundle.with_overlap` and the like.

    Returns:
        The bundle as it is on the disk now.

    Raises:
        InputNotFoundError: a step's table is not there.
        ConfigError: a step does not fit the species.
        OutputError: the folder cannot be written; the manifest is as it was.
    """
    post = stored_post(bundle.manifest.post, bundle.folder)
    # What does not fit is refused before the manifest is changed; a table that was copied is nobody's, then.
    Pipeline([resolved(step, bundle.folder) for step in post.all_steps], bundle.manifest.species)
    save_manifest(bundle.folder, msgspec.structs.replace(bundle.manifest, post=post))
    return Bundle.load(bundle.folder)


def stored_post(post: PostConfig, folder: Path) -> PostConfig:
    """Post-processing whose tables lie in the bundle's folder.

    Raises:
        InputNotFoundError: a step's table is not there.
        OutputError: the folder cannot be written.
    """
    return msgspec.structs.replace(post, steps=tuple(bring_in(step, folder) for step in post.steps))
