"""``birdinfer score FOLDER TRUTH --ablate``: the tables of the groups of a blend by rank -> which of its parts help."""

from pathlib import Path

import msgspec
import numpy as np

from birdinfer.cli.options import bundle_folder
from birdinfer.cli.score_tables import known_species, read_matched
from birdinfer.errors import ConfigError, InputNotFoundError
from birdinfer.evaluation.ablation import labelled_rows
from birdinfer.evaluation.blend_ablation import GroupScores
from birdinfer.inference.blend_text import parse_blend
from birdinfer.inference.bundle import Bundle
from birdinfer.inference.manifest import Manifest, group_labels
from birdinfer.inference.rank_blend import RankGroup, check_groups, check_species, fill_groups
from birdinfer.submission.blend_tables import align_tables
from birdinfer.tables.scores import read_scores, rows_by_file


def read_groups(
    folder: Path, truth: Path, blend: str | None, bundle: Path | None, taxonomy: Path | None
) -> tuple[GroupScores, tuple[str, ...]]:
    """Read the table of each group of a blend, the bundle's if ``blend`` is None, and their truth.

    Returns the scores, and a line for each thing that was left out of the truth. Raises a BirdinferError if tables,
    blend and bundle do not fit together.
    """
    manifest = Bundle.load(bundle_folder(bundle)).manifest if bundle else None
    groups = _groups(folder, blend, manifest)
    paths = [folder / f"{name}.csv" for name in groups]
    matched = read_matched(paths[0], truth, bundle, taxonomy)
    first = matched.given
    species = known_species(first.labels, bundle, taxonomy)
    check_groups(groups, list(groups), [1.0] * len(groups))
    check_species(groups, species)
    stem_of = {row: file.stem for file in rows_by_file(first.row_ids, paths[0]) for row in file.rows.tolist()}
    subject = GroupScores(
        groups=groups, scores=np.stack(align_tables([first, *map(read_scores, paths[1:])])), species=species,
        known=dict.fromkeys(groups, frozenset(first.labels)) | (group_labels(manifest) if manifest else {}),
        rows=matched.rows, columns=matched.columns,
        labelled=labelled_rows(matched.truth.values == 1, [stem_of[row] for row in matched.rows.tolist()]),
    )  # fmt: skip
    return subject, matched.notes


def _groups(folder: Path, blend: str | None, manifest: Manifest | None) -> dict[str, RankGroup]:
    """The groups of the blend; each holds its table in place of members."""
    names = sorted(path.stem for path in folder.glob("*.csv"))
    known = parse_blend(blend).groups if blend else manifest.blend.groups if manifest else {}
    if not known and (not blend or parse_blend(blend).how != "rank"):
        raise ConfigError("--blend", "is not by rank, and a folder of tables is of its groups", "give --blend rank")
    if missing := [name for name in known if name not in names]:
        hint = "birdinfer predict --group-tables writes one for each group of the bundle"
        raise InputNotFoundError(folder / f"{missing[0]}.csv", "no such table of a group", hint)
    alone = {name: msgspec.structs.replace(group, members=(name,)) for name, group in known.items()}
    return fill_groups(alone, {name: (name,) for name in names} if blend else {})
