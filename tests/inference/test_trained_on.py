"""Which members may score a file: those that were trained on it may not."""

import csv

import msgspec
import pytest
from make_bundles import write_bundle

from birdinfer import Bundle
from birdinfer.inference.bundle import save_manifest
from birdinfer.inference.trained_on import RECORD, TrainedOn, family_of

FOLDS = {
    "robin/a.ogg": 0, "robin/b.ogg": 1, "robin/always.ogg": -1, "robin/test.ogg": -2, "robin/gone.ogg": -3,
    "long.ogg#t=0,5": 0, "long.ogg#t=5,10": 1, "@survey/siteA/s.ogg#t=0,5": 1, "@survey/v.ogg#t=0,5": -4,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    write_bundle(tmp_path)
    with (tmp_path / RECORD).open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("filename", "primary_label", "group", "fold"))
        table.writerows((name, "robin", "", fold) for name, fold in FOLDS.items())
    return tmp_path


@pytest.mark.parametrize(
    ("filename", "members"),
    [
        ("robin/a.ogg", {"fold0"}),
        ("train_audio/robin/a.ogg", {"fold0"}),
        ("a.ogg", {"fold0"}),
        ("wren/a.ogg", {"fold0", "fold1"}),
        ("robin/b.ogg", {"fold1"}),
        ("robin/always.ogg", set()),
        ("robin/test.ogg", {"fold0", "fold1"}),
        ("robin/gone.ogg", {"fold0", "fold1"}),
        ("never.ogg", {"fold0", "fold1"}),
        ("long.ogg", set()),
        ("siteA/s.ogg", {"fold1"}),
        ("surveys/siteA/s.ogg", {"fold1"}),
        ("v.ogg", {"fold0", "fold1"}),
    ],
)
def test_unaware_of_a_file_are_the_members_that_were_not_trained_on_it(folder, filename, members):
    assert TrainedOn(Bundle.load(folder)).unaware_of([filename]) == members


def test_unaware_of_several_files_is_who_knows_none_of_them(folder):
    record = TrainedOn(Bundle.load(folder))
    assert record.unaware_of(["robin/a.ogg", "robin/test.ogg"]) == {"fold0"}
    assert not record.unaware_of(["robin/a.ogg", "robin/b.ogg"])
    assert record.fold_of("robin/b.ogg") == (1,)
    assert record.fold_of("robin/always.ogg") == ()


def test_a_member_of_others_and_a_bundle_without_record_are_named(folder):
    manifest = Bundle.load(folder).manifest
    first, second = manifest.members
    members = (first, msgspec.structs.replace(second, fold=None, backbone="perch"))
    save_manifest(folder, msgspec.structs.replace(manifest, members=members))
    bundle = Bundle.load(folder)
    record = TrainedOn(bundle)
    assert record.without_record == ("fold1",)
    assert record.unaware_of(["robin/always.ogg"]) == {"fold1"}
    assert [family_of(bundle, member) for member in members] == ["linear", "perch"]
    (folder / RECORD).unlink()
    record = TrainedOn(bundle)
    assert record.without_record == ("fold0", "fold1")
    assert record.unaware_of(["robin/a.ogg"]) == {"fold0", "fold1"}


def test_the_mean_of_all_folds_was_trained_on_what_any_of_them_was(folder):
    manifest = Bundle.load(folder).manifest
    soup = msgspec.structs.replace(manifest.members[0], name="soup", fold=None)
    save_manifest(folder, msgspec.structs.replace(manifest, members=(soup,)))
    record = TrainedOn(Bundle.load(folder))
    assert not record.unaware_of(["robin/a.ogg"])
    assert record.unaware_of(["robin/test.ogg"]) == {"soup"}
    assert not record.without_record
