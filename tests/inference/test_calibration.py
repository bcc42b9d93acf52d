"""What a bundle's calibration means for detections."""

import msgspec
import numpy as np
import pytest
from make_bundles import LABELS

from birdinfer import Bundle
from birdinfer.errors import BundleError, ConfigError
from birdinfer.inference.bundle import MANIFEST_NAME, save_manifest, store_settings
from birdinfer.inference.calibration import logits_of, share_right, thresholds_of
from birdinfer.inference.manifest import Calibration, Curve, scores_sha256
from birdinfer.species import Species


def curve(threshold, slope=1.0, intercept=0.0):
    return Curve(
        slope=slope, intercept=intercept, threshold=threshold, threshold_interval=(threshold, None),
        reviewed=(0.1, 0.9), n_right=20, n_wrong=20, n_files=7,
    )  # fmt: skip


def calibrated(bundle, **changes):
    made = Calibration(
        precision=0.9, scores_sha256=scores_sha256(bundle.manifest), created_utc="2026-05-01T00:00:00+00:00",
        species={}, classes={},
    )  # fmt: skip
    return Bundle(
        bundle.folder, msgspec.structs.replace(bundle.manifest, calibration=msgspec.structs.replace(made, **changes))
    )


@pytest.fixture
def loaded(make_bundle):
    bundle = Bundle.load(make_bundle())
    classes = ("Aves", "Aves", "Insecta", "")
    species = tuple(Species(label, class_name=name) for label, name in zip(LABELS, classes, strict=True))
    save_manifest(bundle.folder, msgspec.structs.replace(bundle.manifest, species=species))
    return Bundle.load(bundle.folder)


class TestThresholds:
    def test_without_a_calibration_all_have_the_default(self, loaded):
        assert thresholds_of(loaded.manifest, 0.25).tolist() == [0.25] * 4

    def test_own_curve_then_that_of_the_class_then_the_default(self, loaded):
        bundle = calibrated(loaded, species={LABELS[1]: curve(0.75)}, classes={"Aves": curve(0.5)})
        thresholds = thresholds_of(bundle.manifest, 0.25)
        assert (thresholds.dtype, thresholds.tolist()) == (np.float32, [0.5, 0.75, 0.25, 0.25])

    def test_a_species_unlike_its_class_has_the_default(self, loaded):
        bundle = calibrated(loaded, classes={"Aves": curve(0.5)}, unlike_class=(LABELS[0],))
        assert thresholds_of(bundle.manifest, 0.25).tolist() == [0.25, 0.5, 0.25, 0.25]

    def test_no_score_reaches_a_precision_that_is_not_reached(self, loaded):
        bundle = calibrated(loaded, species={LABELS[0]: curve(None)})
        assert thresholds_of(bundle.manifest, 0.25)[0] > 1

    def test_another_scoring_is_refused(self, loaded):
        bundle = calibrated(loaded, classes={"Aves": curve(0.5)})
        with pytest.raises(
            ConfigError, match=r"calibration: is of other scores: members, overlap, .*birdinfer calibrate"
        ):
            thresholds_of(bundle.with_overlap(2.5).manifest, 0.25)


class TestManifest:
    def test_is_written_and_read(self, loaded):
        wanted = calibrated(loaded, species={LABELS[0]: curve(0.5)}, classes={"": curve(None)}).manifest
        stored = store_settings(loaded.folder, lambda old: Bundle(old.folder, wanted))
        assert stored.manifest == wanted
        assert thresholds_of(stored.manifest, 0.25)[0] == 0.5

    def test_a_bundle_of_before_has_none(self, loaded):
        path = loaded.folder / MANIFEST_NAME
        raw = msgspec.json.decode(path.read_bytes())
        del raw["calibration"]
        path.write_bytes(msgspec.json.encode(raw))
        assert Bundle.load(loaded.folder).manifest.calibration is None

    def test_changes_no_digest_of_what_computes_scores(self, loaded):
        assert calibrated(loaded, species={LABELS[0]: curve(0.5)}).sha256() == loaded.sha256()
        assert loaded.with_overlap(2.5).sha256() != loaded.sha256()

    @pytest.mark.parametrize("wrong", [{"slope": -1.0}, {"slope": 0.0}, {"threshold": 1.5}, {"threshold": 0.0}])
    def test_a_curve_that_is_none_is_refused(self, loaded, wrong):
        good = msgspec.to_builtins(calibrated(loaded, species={LABELS[0]: curve(0.5)}).manifest)
        good["calibration"]["species"][LABELS[0]].update(wrong)
        (loaded.folder / MANIFEST_NAME).write_bytes(msgspec.json.encode(good))
        with pytest.raises(BundleError, match="a curve has"):
            Bundle.load(loaded.folder)


class TestShareRight:
    def test_is_the_logistic_curve_of_the_logit(self):
        confidences = np.array([0.1, 0.5, 0.9])
        np.testing.assert_allclose(share_right(curve(0.5), confidences), confidences)
        moved = share_right(curve(0.5, slope=2.0, intercept=1.0), [0.5, 0.8])
        np.testing.assert_allclose(moved, [1 / (1 + np.exp(-1)), 1 / (1 + np.exp(-1) / 16)])

    @pytest.mark.parametrize("slope", [0.01, 1.0, 1e6])
    def test_certain_confidences_are_finite(self, slope):
        assert np.isfinite(logits_of([0, 1])).all()
        assert np.isfinite(share_right(curve(0.5, slope=slope), [0, 1])).all()
