import numpy as np
import pytest
from simulated_reviews import INTERCEPT, SLOPE, simulate_reviews, true_threshold

from birdinfer.errors import ConfigError
from birdinfer.evaluation.calibrate import CalibrationSettings, Fit, calibrate_reviews
from birdinfer.inference.calibration import share_right
from birdinfer.species import Species
from birdinfer.tables.reviews import Reviews

SETTINGS = CalibrationSettings(n_resamples=200)
BIRDS = [Species(f"bird{number}", class_name="Aves") for number in range(6)]


def reviews_of(confidences, right, recordings=None, species=None):
    n = len(confidences)
    return Reviews(
        confidences=np.array(confidences, float), right=np.array(right, bool),
        species=np.zeros(n, np.intp) if species is None else np.array(species),
        recordings=np.arange(n) % 10 if recordings is None else np.array(recordings),
    )  # fmt: skip


def only(reviews, settings=SETTINGS):
    """Of reviews of one species: its curve, or why there is none."""
    found = calibrate_reviews(reviews, BIRDS, settings)
    return found.species.get("bird0") or found.refused_species["bird0"]


class TestCurves:
    @pytest.mark.parametrize("precision", [0.8, 0.9])
    def test_intervals_hold_the_known_threshold_as_often_as_they_say(self, precision):
        rng, true = np.random.default_rng(7), true_threshold(precision)
        settings = CalibrationSettings(precision=precision, n_resamples=200)
        fits = [only(simulate_reviews(rng, 90, 20), settings) for _ in range(60)]
        assert all(isinstance(fit, Fit) for fit in fits)
        ends = [[1.0 if end is None else end for end in fit.curve.threshold_interval] for fit in fits]
        covered = np.mean([low <= true <= high for low, high in ends])
        assert 0.8 <= covered <= 1.0  # 60 of a coverage of 0.9; benchmarks/test_calibration.py has 200
        assert np.median([fit.curve.threshold for fit in fits]) == pytest.approx(true, abs=0.03)

    def test_a_species_with_many_reviews_has_its_curve(self):
        curve = only(simulate_reviews(np.random.default_rng(0), 6_000, 600), CalibrationSettings(n_resamples=100)).curve
        assert (curve.slope, curve.intercept) == pytest.approx((SLOPE, INTERCEPT), abs=0.15)
        assert curve.n_right + curve.n_wrong == 6_000
        assert share_right(curve, curve.threshold) == pytest.approx(0.9)

    def test_how_reviews_were_sampled_does_not_move_the_threshold(self):
        even = simulate_reviews(np.random.default_rng(1), 8_000, 400, alike=0)
        rare = (even.confidences > 0.6) | (np.arange(8_000) % 10 == 0)
        some = reviews_of(even.confidences[rare], even.right[rare], even.recordings[rare])
        both = [only(each, CalibrationSettings(n_resamples=100)).curve.threshold for each in (even, some)]
        assert both[0] == pytest.approx(both[1], abs=0.03)

    def test_no_threshold_lies_below_what_was_reviewed(self):
        reviews = simulate_reviews(np.random.default_rng(2), 300, 30, intercept=1.0)
        high = reviews.confidences > 0.4
        curve = only(
            reviews_of(reviews.confidences[high], reviews.right[high]), CalibrationSettings(precision=0.5)
        ).curve
        assert curve.threshold == curve.reviewed[0] == reviews.confidences[high].min()
        assert curve.threshold_interval[0] == curve.threshold

    def test_a_precision_beyond_all_confidences_has_no_threshold(self):
        reviews = simulate_reviews(np.random.default_rng(3), 400, 40, slope=0.4, intercept=-1.0)
        fit = only(reviews, CalibrationSettings(precision=0.97, n_resamples=200))
        assert fit.curve.threshold is None
        assert fit.curve.threshold_interval[1] is None

    def test_the_same_seed_makes_the_same_curves(self):
        reviews = simulate_reviews(np.random.default_rng(4), 100, 20)
        first, again, other = (
            only(reviews, CalibrationSettings(n_resamples=100, seed=seed)).curve for seed in (0, 0, 1)
        )
        assert first == again
        assert first.threshold == other.threshold
        assert first.threshold_interval != other.threshold_interval

    def test_a_wide_interval_says_where_to_review(self):
        assert "review more from 0." in only(simulate_reviews(np.random.default_rng(6), 40, 10)).next_step
        assert only(simulate_reviews(np.random.default_rng(5), 3_000, 300)).next_step == ""


class TestClasses:
    def test_species_with_few_reviews_have_the_curve_of_their_class(self):
        reviews = simulate_reviews(np.random.default_rng(0), 120, 20, n_species=6)
        found = calibrate_reviews(reviews, BIRDS, CalibrationSettings(n_resamples=100, min_reviews=60))
        assert not found.species
        assert set(found.refused_species) == {bird.label for bird in BIRDS}
        assert found.classes["Aves"].curve.threshold == pytest.approx(true_threshold(0.9), abs=0.1)
        assert found.unlike_class == ()

    def test_a_species_that_contradicts_its_class_has_none(self):
        reviews = simulate_reviews(np.random.default_rng(0), 300, 30, n_species=6)
        wrong = reviews_of(
            reviews.confidences, reviews.right & (reviews.species != 2), reviews.recordings, reviews.species
        )
        found = calibrate_reviews(wrong, BIRDS, CalibrationSettings(n_resamples=100))
        assert found.unlike_class == ("bird2",)
        assert "bird2" in found.refused_species

    def test_one_surprise_is_no_contradiction(self):
        reviews = simulate_reviews(np.random.default_rng(0), 300, 30, n_species=4)
        added = [np.append(getattr(reviews, name), last) for name, last in (
            ("confidences", 0.99), ("right", False), ("recordings", 0), ("species", 5)
        )]  # fmt: skip
        found = calibrate_reviews(reviews_of(*added), BIRDS, CalibrationSettings(n_resamples=100))
        assert found.refused_species["bird5"].n_reviews == 1
        assert found.unlike_class == ()

    def test_two_species_are_no_class(self):
        reviews = simulate_reviews(np.random.default_rng(0), 300, 30, n_species=2)
        found = calibrate_reviews(reviews, BIRDS, CalibrationSettings(n_resamples=100))
        assert not found.classes
        assert found.refused_classes["Aves"].reason == "reviews of 2 species, 3 are needed for a class"
        assert found.refused_classes["Aves"].next_step == "review 1 other species"

    def test_classes_do_not_mix(self):
        species = [*BIRDS[:3], *(Species(f"frog{number}", class_name="Amphibia") for number in range(3))]
        birds, frogs = (simulate_reviews(np.random.default_rng(i), 600, 60, n_species=3, intercept=-i) for i in (0, 1))
        both = [
            np.concatenate([getattr(birds, name), getattr(frogs, name)])
            for name in ("confidences", "right", "recordings")
        ]
        reviews = reviews_of(*both, np.concatenate([birds.species, frogs.species + 3]))
        found = calibrate_reviews(reviews, species, CalibrationSettings(n_resamples=100))
        assert found.classes["Aves"].curve.threshold < found.classes["Amphibia"].curve.threshold


GOOD = np.linspace(0.1, 0.9, 40)


class TestRefusals:
    @pytest.mark.parametrize(
        ("reviews", "reason", "hint"),
        [
            (reviews_of([0.5] * 4, [1, 0, 1, 0]), "4 reviews, 30 are needed", "review 26 more"),
            (reviews_of(GOOD, [1] * 40), "all of 40 reviews are right, 5 wrong ones", "review more below 0.30"),
            (reviews_of(GOOD, [0] * 40), "all of 40 reviews are wrong, 5 right ones", "review more above 0.70"),
            (reviews_of(GOOD, GOOD > 0.15), "all but 3 of 40 reviews are right", "review more below"),
            (
                reviews_of(GOOD, GOOD > 0.5, [0] * 40),
                "all reviews are of 1 recording, 5 are",
                "review 4 other recordings",
            ),
            (
                reviews_of(GOOD, GOOD < 0.5),
                "low confidences are right as often as high ones",
                "below 0.18 and above 0.82",
            ),
            (reviews_of([0.8] * 40, [1, 0] * 20), "all reviews have the confidence 0.80", "review other confidences"),
        ],
    )
    def test_reviews_that_show_no_threshold_say_what_to_review_next(self, reviews, reason, hint):
        refusal = only(reviews)
        assert reason in refusal.reason
        assert hint in refusal.next_step
        assert refusal.n_reviews == len(reviews.right)

    @pytest.mark.parametrize("wrong", [{"precision": 1.0}, {"precision": 0.0}, {"min_reviews": 9}, {"n_resamples": 99}])
    def test_settings_that_cannot_be_used(self, wrong):
        with pytest.raises(ConfigError, match="is needed"):
            CalibrationSettings(**wrong)

    def test_right_and_wrong_that_do_not_overlap_have_a_threshold_between_them(self):
        fit = only(reviews_of(GOOD, GOOD > 0.5))
        assert 0.4 < fit.curve.threshold < 0.65
