from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_bundles import FRONTEND, LABELS, write_bundle

from birdinfer.config import AggregationConfig, FrontEndConfig, MelConfig, WaveformConfig, WindowConfig
from birdinfer.inference.bundle import Bundle
from birdinfer.inference.ensemble import Blend
from birdinfer.inference.manifest import Graph, Member
from birdinfer.inference.member_group import members_by_input
from birdinfer.inference.predictor import Predictor
from birdinfer.prediction.fallback_levels import Level, fallback_levels

MEAN = Blend()


def member(
    name,
    stride=None,
    shifts=(0.0,),
    share=0.0,
    auc=None,
    weight=1.0,
    file="",
    input_config=FRONTEND,
    scored=None,
):
    """An entry of a manifest whose graph is nowhere."""
    kind = {"waveform" if isinstance(input_config, WaveformConfig) else "frontend": input_config}
    aggregation = AggregationConfig(
        stride_seconds=stride, scored_seconds=scored, frame_share=share,
        frame_shifts_seconds=shifts, frame_shift_weights=(1 / len(shifts),) * len(shifts),
    )  # fmt: skip
    graphs = {"fp32": Graph(file or f"{name}.onnx", "")}
    return Member(name, graphs, aggregation=aggregation, weight=weight, out_of_fold_macro_auc=auc, **kind)


@pytest.fixture
def bundle_of(bundle):
    """Members -> a bundle of them that cannot be loaded."""
    manifest = Bundle.load(bundle).manifest

    def make(*members, blend=MEAN):
        return Bundle(bundle, msgspec.structs.replace(manifest, members=members, blend=blend))

    return make


def names(levels):
    return [level.name for level in levels]


def strides(level):
    return [each.aggregation.stride_seconds for each in level.bundle.manifest.members]


def members_of(level):
    return "+".join(each.name for each in level.bundle.manifest.members)


def test_one_level_if_nothing_can_be_given_up(bundle_of):
    only = bundle_of(member("fold0"))
    assert fallback_levels(only) == [Level("", only)]
    assert fallback_levels(only)[0].bundle is only


def test_overlap_goes_before_shifts_and_members(bundle_of):
    full = bundle_of(*(member(f"fold{i}", 2.5, (0.0, -0.5, 0.5), 0.25, 0.9 - i / 100) for i in range(3)))
    levels = fallback_levels(full)
    assert names(levels) == [
        "",
        "without overlap",
        "without overlap and shifts",
        "without overlap, shifts and fold2",
        "without overlap, shifts, fold2 and fold1",
    ]
    assert [strides(level)[0] for level in levels] == [2.5, 5.0, 5.0, 5.0, 5.0]
    shifts = [level.bundle.manifest.members[0].aggregation.frame_shifts_seconds for level in levels]
    assert shifts == [(0.0, -0.5, 0.5), (0.0, -0.5, 0.5), (0.0,), (0.0,), (0.0,)]
    assert levels[2].bundle.manifest.members[0].aggregation.frame_shift_weights == (1.0,)
    assert list(map(members_of, levels)) == ["fold0+fold1+fold2"] * 3 + ["fold0+fold1", "fold0"]


def test_a_large_overlap_goes_by_halves(bundle_of):
    levels = fallback_levels(bundle_of(member("fold0", 1.25)))
    assert names(levels) == ["", "with windows every 2.5 s", "without overlap"]
    assert list(map(strides, levels)) == [[1.25], [2.5], [5.0]]
    assert list(map(strides, fallback_levels(bundle_of(member("fold0", 4.0))))) == [[4.0], [5.0]]


def test_members_of_other_windows_go_to_their_own_usual_stride(bundle_of):
    """A window of 3 s is processed twice a row of 5 s, every 2.5 s; one of 20 s once a row, with context around it."""
    short, long = (
        FrontEndConfig(FRONTEND.audio, WindowConfig(window_seconds=seconds), FRONTEND.mel) for seconds in (3.0, 20.0)
    )
    full = bundle_of(member("a", 0.6, input_config=short), member("b", 1.25, input_config=long), member("c"))
    assert names(fallback_levels(full))[1] == "with windows every 1.2 to 5 s"
    assert list(map(strides, fallback_levels(full)))[:4] == [
        [0.6, 1.25, None], [1.2, 2.5, None], [2.4, 5.0, None], [2.5, 5.0, None],
    ]  # fmt: skip


def test_windows_that_are_further_apart_than_usual_are_left_as_they_are(bundle_of):
    long = FrontEndConfig(FRONTEND.audio, WindowConfig(window_seconds=20.0), FRONTEND.mel)
    assert len(fallback_levels(bundle_of(member("fold0", 10.0, input_config=long)))) == 1


def test_scored_parts_grow_so_that_no_second_is_left_out(bundle_of):
    levels = fallback_levels(bundle_of(member("fold0", 1.25, scored=2.0)))
    assert [level.bundle.manifest.members[0].aggregation.scored_seconds for level in levels] == [2.0, 2.5, 5.0]


def test_shifts_of_frames_that_do_not_count_are_no_level(bundle_of):
    assert len(fallback_levels(bundle_of(member("fold0", shifts=(0.0, 0.5), share=0.0)))) == 1


def test_the_member_with_the_least_out_of_fold_auc_goes_first_and_unknown_ones_before_it(bundle_of):
    members = (
        member("good", auc=0.95),
        member("poor", auc=0.80),
        member("unknown", weight=2.0),
        member("silent", auc=0.99, weight=0.0),
        member("light", weight=0.5),
    )
    levels = fallback_levels(bundle_of(*members))
    assert names(levels) == [
        "",
        "without silent",
        "without silent and light",
        "without silent, light and unknown",
        "without silent, light, unknown and poor",
    ]


def test_of_equals_the_last_goes_first(bundle_of):
    assert members_of(fallback_levels(bundle_of(member("fold0"), member("fold1"), member("fold2")))[1]) == "fold0+fold1"


def test_members_that_share_a_graph_go_together_and_the_best_of_them_counts(bundle_of):
    full = bundle_of(
        member("a", auc=0.70, file="one.onnx"),
        member("b", auc=0.90, file="one.onnx"),
        member("c", auc=0.80),
    )
    assert names(fallback_levels(full)) == ["", "without c"]
    assert members_of(fallback_levels(full)[1]) == "a+b"


def test_a_gating_member_without_weight_counts(bundle_of):
    """Its weight has no effect, but its scores have; and a gate needs other members behind it."""
    gate = Blend("gate", by="gating", threshold=0.2)
    full = bundle_of(member("gating", weight=0.0), member("a", auc=0.9), member("b", auc=0.8), blend=gate)
    levels = fallback_levels(full)
    assert list(map(members_of, levels)) == ["gating+a+b", "a+b", "a"]
    assert [level.bundle.manifest.blend.how for level in levels] == ["gate", "mean", "mean"]


def test_a_gating_member_is_not_left_alone(bundle_of):
    gate = Blend("gate", by="gating", threshold=0.2)
    full = bundle_of(member("gating", weight=0.0, auc=0.95), member("a", auc=0.9), blend=gate)
    assert list(map(members_of, fallback_levels(full))) == ["gating+a", "a"]


def test_labels_rows_and_post_processing_stay(bundle_of):
    full = bundle_of(member("fold0", 1.25), member("fold1", 1.25))
    for level in fallback_levels(full):
        assert level.bundle.labels == LABELS
        assert level.bundle.manifest.rows == full.manifest.rows
        assert level.bundle.manifest.post == full.manifest.post
        assert level.bundle.manifest.fallback_probabilities == full.manifest.fallback_probabilities


def test_every_level_predicts(tmp_path, soundscapes):
    full = Bundle.load(write_bundle(tmp_path / "three", 3)).with_overlap(3.75)
    levels = fallback_levels(full)
    assert names(levels)[-1] == "without overlap, fold2 and fold1"
    scores = [Predictor(level.bundle).predict(soundscapes / "site_1.ogg") for level in levels]
    assert [each.shape for each in scores] == [(3, 4)] * 5
    # Without overlap the scores are those of a plain bundle, and those of one member are its own.
    plain = Bundle.load(tmp_path / "three")
    assert (scores[2] == Predictor(plain).predict(soundscapes / "site_1.ogg")).all()
    assert (scores[4] == Predictor(plain.with_members({"fold0"})).predict(soundscapes / "site_1.ogg")).all()


INPUTS = (FRONTEND, FrontEndConfig(FRONTEND.audio, FRONTEND.window, MelConfig(n_mels=64)), WaveformConfig())


@given(
    members=st.lists(
        st.tuples(
            st.sampled_from([None, 0.5, 1.25, 2.5, 3.0, 5.0]),
            st.sampled_from([(0.0,), (0.0, 0.5), (0.25,)]),
            st.sampled_from([0.0, 0.5, 1.0]),
            st.sampled_from([None, 0.7, 0.9]),
            st.sampled_from([0.0, 0.5, 1.0]),
            st.just(""),
            st.sampled_from(INPUTS),
        ),
        min_size=1,
        max_size=5,
    ).filter(lambda drawn: any(each[4] > 0 for each in drawn))
)
def test_each_level_computes_less_than_the_one_before_it_and_never_nothing(bundle, members):
    manifest = Bundle.load(bundle).manifest
    built = tuple(member(f"m{index}", *drawn) for index, drawn in enumerate(members))
    levels = fallback_levels(Bundle(bundle, msgspec.structs.replace(manifest, members=built)))

    def work(level):
        """Windows a second, of members and in all; shifts."""
        alike = members_by_input(level.bundle)
        windows = sum(len(who) / grid.stride_samples for (_, grid), who in alike.items())
        counted = [each.aggregation for each in level.bundle.manifest.members if each.aggregation.frame_share > 0]
        return windows, sum(aggregation.frame_shifts_seconds != (0.0,) for aggregation in counted)

    for above, below in pairwise(levels):
        assert work(below) < work(above)
        assert {each.name for each in below.bundle.manifest.members} <= {
            each.name for each in above.bundle.manifest.members
        }
        assert sum(each.weight for each in below.bundle.manifest.members) > 0
    assert len(levels[-1].bundle.manifest.members) == 1
    assert len(set(names(levels))) == len(levels)
