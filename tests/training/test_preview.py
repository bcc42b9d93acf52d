import msgspec
import numpy as np
import pytest
from tiny_clips import LABELS, TINY_FRONTEND

from birdinfer.features.log_mel import windows_to_input
from birdinfer.species import Species
from birdinfer.training.data.metadata import read_metadata
from birdinfer.training.preview import draw_windows
from birdinfer.training.recipe.schema import AugmentConfig, LabelConfig, ModelConfig

SPECIES = [Species(label) for label in LABELS]
PLAIN = AugmentConfig(gain_probability=0, mixup_probability=0, mask_probability=0)


@pytest.fixture(scope="module")
def clips(clips_dir):
    return read_metadata(clips_dir).clips


def changed(recipe, **sections):
    return msgspec.structs.replace(recipe, **sections)


def test_draw_windows_without_augmentation_gives_what_prediction_gets(clips, tiny_recipe, clips_dir):
    ((draw,),) = draw_windows(clips[1:2], (), SPECIES, changed(tiny_recipe, augment=PLAIN), 1, clips_dir)
    margin = TINY_FRONTEND.margin_samples
    assert draw.waveform.shape == (TINY_FRONTEND.window_samples,)
    assert draw.picture.shape == TINY_FRONTEND.input_shape
    padded = np.pad(draw.waveform, margin, mode="reflect")
    inner = windows_to_input(padded, 1, TINY_FRONTEND)[0, 0]
    # At its edges the true neighbouring sound stands in place of the reflection.
    assert np.abs(inner - draw.picture)[:, 2:-2].max() < 0.1
    assert draw.targets == ((clips[1].primary_label, 1.0),)


def test_draw_windows_differ_and_repeat_with_the_seed(clips, tiny_recipe, clips_dir):
    first, other = (draw_windows(clips[:2], clips[6:9], SPECIES, tiny_recipe, 3, clips_dir) for _ in range(2))
    assert [len(draws) for draws in first] == [2, 2, 2]
    for one, again in zip(first, other, strict=True):
        assert all(np.array_equal(a.picture, b.picture) for a, b in zip(one, again, strict=True))
    assert not np.array_equal(first[0][0].picture, first[1][0].picture)


def test_draw_windows_plays_what_it_draws_when_clips_are_mixed(clips, tiny_recipe, clips_dir):
    both = [clips[1], clips[7]]
    mixed = changed(tiny_recipe, augment=msgspec.structs.replace(PLAIN, mixup_probability=1.0, mixup_lambda=0.5))
    n_mixed = 0
    for draws, alone in zip(
        draw_windows(both, (), SPECIES, mixed, 8, clips_dir),
        draw_windows(both, (), SPECIES, changed(tiny_recipe, augment=PLAIN), 8, clips_dir),
        strict=True,
    ):
        for draw, own in zip(draws, alone, strict=True):
            is_mixed = len(draw.targets) == 2
            n_mixed += is_mixed
            half = (alone[0].waveform + alone[1].waveform) / 2 if is_mixed else own.waveform
            assert np.allclose(draw.waveform, half, atol=1e-6)
    assert n_mixed >= 4


def test_draw_windows_of_a_waveform_network_has_no_picture(clips, tiny_recipe, clips_dir):
    raw = changed(tiny_recipe, model=ModelConfig(family="raw", backbone="small"), augment=PLAIN)
    ((draw,),) = draw_windows(clips[:1], (), SPECIES, raw, 1, clips_dir)
    assert draw.picture is None
    assert len(draw.waveform) == TINY_FRONTEND.window_samples


def test_draw_windows_lists_targets_of_note_and_clips_that_are_broken(clips, tiny_recipe, clips_dir, tmp_path):
    soft = changed(tiny_recipe, augment=PLAIN, labels=LabelConfig(smoothing=0.1))
    broken = clips[2]._replace(path=tmp_path / "gone.wav")
    ((first, gone),) = draw_windows([clips[0], broken], (), SPECIES, soft, 1, clips_dir)
    assert [label for label, _ in first.targets] == [clips[0].primary_label, *clips[0].secondary_labels]
    assert "no such file" in gone.problem
    assert gone.targets == ()
