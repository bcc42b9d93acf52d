from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from making import FRONTEND, LABELS, write_bundle

from birdinfer.bundle import Bundle
from birdinfer.config import FrontEndConfig, MelConfig, TimelineConfig, WaveformConfig, WindowConfig
from birdinfer.ensemble import Blend
from birdinfer.listener import listening
from birdinfer.manifest import Graph, Member
from birdinfer.pace.ladder import Level, ladder
from birdinfer.predictor import Predictor

MEAN = Blend()


def member(name, stride=None, shifts=(0.0,), share=0.0, auc=None, weight=1.0, file="", hearing=FRONTEND, head=None):
    """An entry of a manifest whose graph is nowhere."""
    heard = {"waveform" if isinstance(hearing, WaveformConfig) else "frontend": hearing}
    timeline = TimelineConfig(
        stride_seconds=stride, head_seconds=head, frame_share=share,
        frame_shifts_seconds=shifts, frame_shift_weights=(1 / len(shifts),) * len(shifts),
    )  # fmt: skip
    graphs = {"fp32": Graph(file or f"{name}.onnx", "")}
    return Member(name, graphs, timeline=timeline, weight=weight, out_of_fold_macro_auc=auc, **heard)


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
    return [each.timeline.stride_seconds for each in level.bundle.manifest.members]


def heard_by(level):
    return "+".join(each.name for each in level.bundle.manifest.members)


def test_a_bundle_that_can_give_up_nothing_has_one_level_which_is_itself(bundle_of):
    only = bundle_of(member("fold0"))
    assert ladder(only) == [Level("", only)]
    assert ladder(only)[0].bundle is only


def test_first_overlap_goes_then_shifts_then_members(bundle_of):
    full = bundle_of(*(member(f"fold{i}", 2.5, (0.0, -0.5, 0.5), 0.25, 0.9 - i / 100) for i in range(3)))
    levels = ladder(full)
    assert names(levels) == [
        "",
        "without overlap",
        "without overlap and shifts",
        "without overlap, shifts and fold2",
        "without overlap, shifts, fold2 and fold1",
    ]
    assert [strides(level)[0] for level in levels] == [2.5, 5.0, 5.0, 5.0, 5.0]
    shifts = [level.bundle.manifest.members[0].timeline.frame_shifts_seconds for level in levels]
    assert shifts == [(0.0, -0.5, 0.5), (0.0, -0.5, 0.5), (0.0,), (0.0,), (0.0,)]
    assert levels[2].bundle.manifest.members[0].timeline.frame_shift_weights == (1.0,)
    assert list(map(heard_by, levels)) == ["fold0+fold1+fold2"] * 3 + ["fold0+fold1", "fold0"]


def test_a_large_overlap_goes_by_halves(bundle_of):
    levels = ladder(bundle_of(member("fold0", 1.25)))
    assert names(levels) == ["", "with windows every 2.5 s", "without overlap"]
    assert list(map(strides, levels)) == [[1.25], [2.5], [5.0]]
    assert list(map(strides, ladder(bundle_of(member("fold0", 4.0))))) == [[4.0], [5.0]]


def test_members_of_other_windows_go_to_their_own_usual_stride(bundle_of):
    """A window of 3 s is heard twice a row of 5 s, every 2.5 s; one of 20 s once a row, with context around it."""
    short, long = (
        FrontEndConfig(FRONTEND.audio, WindowConfig(window_seconds=seconds), FRONTEND.mel) for seconds in (3.0, 20.0)
    )
    full = bundle_of(member("a", 0.6, hearing=short), member("b", 1.25, hearing=long), member("c"))
    assert names(ladder(full))[1] == "with windows every 1.2 to 5 s"
    assert list(map(strides, ladder(full)))[:4] == [
        [0.6, 1.25, None], [1.2, 2.5, None], [2.4, 5.0, None], [2.5, 5.0, None],
    ]  # fmt: skip


def test_windows_that_are_further_apart_than_usual_are_left_as_they_are(bundle_of):
    long = FrontEndConfig(FRONTEND.audio, WindowConfig(window_seconds=20.0), FRONTEND.mel)
    assert len(ladder(bundle_of(member("fold0", 10.0, hearing=long)))) == 1


def test_heads_grow_so_that_no_second_goes_unheard(bundle_of):
    levels = ladder(bundle_of(member("fold0", 1.25, head=2.0)))
    assert [level.bundle.manifest.members[0].timeline.head_seconds for level in levels] == [2.0, 2.5, 5.0]


def test_shifts_of_frames_that_do_not_count_are_no_level(bundle_of):
    assert len(ladder(bundle_of(member("fold0", shifts=(0.0, 0.5), share=0.0)))) == 1


def test_the_member_with_the_least_out_of_fold_auc_goes_first_and_unknown_ones_before_it(bundle_of):
    members = (
        member("good", auc=0.95),
        member("poor", auc=0.80),
        member("unknown", weight=2.0),
        member("silent", auc=0.99, weight=0.0),
        member("light", weight=0.5),
    )
    levels = ladder(bundle_of(*members))
    assert names(levels) == [
        "",
        "without silent",
        "without silent and light",
        "without silent, light and unknown",
        "without silent, light, unknown and poor",
    ]


def test_of_equals_the_last_goes_first(bundle_of):
    assert heard_by(ladder(bundle_of(member("fold0"), member("fold1"), member("fold2")))[1]) == "fold0+fold1"


def test_members_that_share_a_graph_go_together_and_the_best_of_them_counts(bundle_of):
    full = bundle_of(
        member("a", auc=0.70, file="one.onnx"),
        member("b", auc=0.90, file="one.onnx"),
        member("c", auc=0.80),
    )
    assert names(ladder(full)) == ["", "without c"]
    assert heard_by(ladder(full)[1]) == "a+b"


def test_a_gatekeeper_without_weight_is_no_silent_member(bundle_of):
    """Its weight is of no effect, but its opinion is; and nobody can be left alone behind a gate."""
    gate = Blend("gate", by="keeper", threshold=0.2)
    full = bundle_of(member("keeper", weight=0.0), member("a", auc=0.9), member("b", auc=0.8), blend=gate)
    levels = ladder(full)
    assert list(map(heard_by, levels)) == ["keeper+a+b", "a+b", "a"]
    assert [level.bundle.manifest.blend.how for level in levels] == ["gate", "mean", "mean"]


def test_a_gatekeeper_with_nobody_behind_it_is_not_left(bundle_of):
    gate = Blend("gate", by="keeper", threshold=0.2)
    full = bundle_of(member("keeper", weight=0.0, auc=0.95), member("a", auc=0.9), blend=gate)
    assert list(map(heard_by, ladder(full))) == ["keeper+a", "a"]


def test_labels_rows_and_post_processing_stay(bundle_of):
    full = bundle_of(member("fold0", 1.25), member("fold1", 1.25))
    for level in ladder(full):
        assert level.bundle.labels == LABELS
        assert level.bundle.manifest.rows == full.manifest.rows
        assert level.bundle.manifest.post == full.manifest.post
        assert level.bundle.manifest.fallback_probabilities == full.manifest.fallback_probabilities


def test_every_level_can_be_heard(tmp_path, soundscapes):
    full = Bundle.load(write_bundle(tmp_path / "three", 3)).with_overlap(3.75)
    levels = ladder(full)
    assert names(levels)[-1] == "without overlap, fold2 and fold1"
    scores = [Predictor(level.bundle).predict(soundscapes / "site_1.ogg") for level in levels]
    assert [each.shape for each in scores] == [(3, 4)] * 5
    # No overlap is what a bundle without it says, and one member what it says alone.
    plain = Bundle.load(tmp_path / "three")
    assert (scores[2] == Predictor(plain).predict(soundscapes / "site_1.ogg")).all()
    assert (scores[4] == Predictor(plain.with_members({"fold0"})).predict(soundscapes / "site_1.ogg")).all()


HEARINGS = (FRONTEND, FrontEndConfig(FRONTEND.audio, FRONTEND.window, MelConfig(n_mels=64)), WaveformConfig())


@given(
    members=st.lists(
        st.tuples(
            st.sampled_from([None, 0.5, 1.25, 2.5, 3.0, 5.0]),
            st.sampled_from([(0.0,), (0.0, 0.5), (0.25,)]),
            st.sampled_from([0.0, 0.5, 1.0]),
            st.sampled_from([None, 0.7, 0.9]),
            st.sampled_from([0.0, 0.5, 1.0]),
            st.just(""),
            st.sampled_from(HEARINGS),
        ),
        min_size=1,
        max_size=5,
    ).filter(lambda drawn: any(each[4] > 0 for each in drawn))
)
def test_each_level_computes_less_than_the_one_before_it_and_never_nothing(bundle, members):
    manifest = Bundle.load(bundle).manifest
    built = tuple(member(f"m{index}", *drawn) for index, drawn in enumerate(members))
    levels = ladder(Bundle(bundle, msgspec.structs.replace(manifest, members=built)))

    def work(level):
        """Windows a second, of members and in all; shifts."""
        alike = listening(level.bundle)
        windows = sum(len(who) / placement.stride_samples for (_, placement), who in alike.items())
        counted = [each.timeline for each in level.bundle.manifest.members if each.timeline.frame_share > 0]
        return windows, sum(timeline.frame_shifts_seconds != (0.0,) for timeline in counted)

    for above, below in pairwise(levels):
        assert work(below) < work(above)
        assert {each.name for each in below.bundle.manifest.members} <= {
            each.name for each in above.bundle.manifest.members
        }
        assert sum(each.weight for each in below.bundle.manifest.members) > 0
    assert len(levels[-1].bundle.manifest.members) == 1
    assert len(set(names(levels))) == len(levels)
