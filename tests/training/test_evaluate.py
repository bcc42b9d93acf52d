import io

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_clips import LABELS
from torch import nn

from birdinfer.errors import ConfigError
from birdinfer.evaluation.metrics import padded_cmap
from birdinfer.species import Species
from birdinfer.training.data.clip import Clip
from birdinfer.training.data.dataset import ClipWindows
from birdinfer.training.evaluate import ClipScores, evaluating, oof_table, predict_clips, score
from birdinfer.training.models.base import Logits

CLIPS = [Clip(f"{index}.ogg", None, label) for index, label in enumerate(LABELS)]
SPECIES = [Species(label) for label in LABELS]


def item(index, *levels, failed=""):
    """Windows whose four samples are the logits themselves."""
    return ClipWindows(index, np.array(levels, np.float32).reshape(-1, 4), failed)


def sure_of(column):
    return [8.0 if index == column else -8.0 for index in range(4)]


def predict(*batches, activation="sigmoid", between=lambda: None):
    return predict_clips(Logits, batches, activation, between)


def validate(*batches, clips=CLIPS):
    return score(clips, predict(*batches), SPECIES)


EACH_RIGHT = [item(index, sure_of(index)) for index in range(4)]


class TestPredictClips:
    def test_a_clip_is_the_mean_of_its_windows(self):
        output = predict([item(0, [0, 0, 0, 0], [8, 8, 8, 8]), item(1, sure_of(1))])
        assert output.probabilities[0] == pytest.approx(0.75, abs=1e-3)
        assert output.probabilities[1] == pytest.approx([0, 1, 0, 0], abs=1e-3)

    def test_a_softmax_shares_1_among_the_labels(self):
        output = predict([item(0, [0, 0, 0, 0], [30, 0, 0, 0])], activation="softmax")
        assert output.probabilities[0] == pytest.approx([0.625, 0.125, 0.125, 0.125])

    def test_frames_play_no_part(self):
        frames = torch.full((1, 5, 4), 9.0)
        output = predict_clips(lambda x: Logits(x, frames), [[item(0, sure_of(0))]], "sigmoid")
        assert output.probabilities[0] == pytest.approx([1, 0, 0, 0], abs=1e-3)

    def test_half_precision_is_activated_in_full_precision(self):
        output = predict_clips(lambda x: Logits(x.half()), [[item(0, sure_of(0))]], "sigmoid")
        assert output.probabilities[0].dtype == np.float32
        assert output.probabilities[0][1] == pytest.approx(1 / (1 + np.exp(8)), rel=1e-5)

    def test_clips_that_failed_are_named_and_left_out(self):
        output = predict([item(0, failed="0.ogg (gone)")], [item(1, sure_of(1)), item(2, failed="2.ogg (gone)")])
        assert (list(output.probabilities), output.failed) == ([1], ("0.ogg (gone)", "2.ogg (gone)"))

    def test_calls_back_between_batches(self):
        with pytest.raises(KeyboardInterrupt):
            predict([], between=_interrupt)

    def test_shares_of_several_processes_are_the_whole(self):
        odd, even = predict(EACH_RIGHT[1::2]), predict(EACH_RIGHT[::2], [item(9, failed="9.ogg (gone)")])
        together = ClipScores.together([even, odd])
        assert together.failed == ("9.ogg (gone)",)
        alone = score(CLIPS, predict(EACH_RIGHT), SPECIES)
        np.testing.assert_array_equal(score(CLIPS, together, SPECIES).probabilities, alone.probabilities)
        assert score(CLIPS, together, SPECIES).clips == tuple(CLIPS)


def _interrupt():
    raise KeyboardInterrupt


class TestScore:
    def test_of_a_model_that_is_right(self):
        outcome = validate(EACH_RIGHT)
        assert (outcome.macro_auc, outcome.top1) == (1.0, 1.0)
        assert outcome.loss == pytest.approx(np.log1p(np.exp(-8)), rel=1e-3)
        assert outcome.padded_cmap == 1.0

    def test_of_a_model_that_is_wrong(self):
        wrong = [item(index, sure_of((index + 1) % 4)) for index in range(4)]
        outcome = validate(wrong)
        assert (outcome.macro_auc, outcome.top1) == (pytest.approx(1 / 3), 0.0)
        assert outcome.loss == pytest.approx(4.0, rel=1e-2)  # 2 of 4 cells cost 8 each
        assert outcome.padded_cmap == padded_cmap(np.eye(4), outcome.probabilities) < 1

    def test_secondary_labels_count_as_present(self):
        clips = [CLIPS[0]._replace(secondary_labels=(LABELS[1],)), *CLIPS[1:]]
        outcome = validate([item(0, [8.0, 8.0, -8.0, -8.0]), *EACH_RIGHT[1:]], clips=clips)
        assert (outcome.macro_auc, outcome.padded_cmap) == (1.0, 1.0)
        assert outcome.loss < 0.01

    def test_clips_that_failed_take_no_part(self):
        outcome = validate([item(0, failed="0.ogg (gone)")], EACH_RIGHT[1:2])
        assert [clip.filename for clip in outcome.clips] == ["1.ogg"]
        assert outcome.failed == ("0.ogg (gone)",)
        assert outcome.macro_auc is None  # one clip: no species has a positive and a negative
        assert outcome.top1 == 1.0

    @pytest.mark.parametrize("batches", [[], [[item(0, failed="gone")]]])
    def test_nothing_was_used(self, batches):
        outcome = validate(*batches)
        assert (outcome.loss, outcome.macro_auc, outcome.padded_cmap, outcome.top1) == (None, None, None, None)
        assert outcome.probabilities.shape == (0, 4)

    def test_a_model_that_answers_with_nan_is_refused(self):
        with pytest.raises(ConfigError, match=r"optim\.lr: the model's probabilities for 1 of 4 validation clips"):
            validate([*EACH_RIGHT[:3], item(3, [0, np.nan, 0, 0])])


def test_pitfall_4_batchnorm_does_not_learn_from_validation():
    """Pitfall 4: a score must not hang on its neighbours, and validation must leave no trace in the model."""
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Flatten(), nn.LazyLinear(4))
    model(torch.randn(2, 1, 32, 64))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    inputs = torch.randn(4, 1, 32, 64) * 5
    with evaluating(model) as evaluated:
        together, alone = evaluated(inputs), evaluated(inputs[:1])
    torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=1e-5)
    assert not together.requires_grad
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_oof_table_keeps_labels_as_text():
    outcome = validate(EACH_RIGHT)
    table = pd.read_csv(io.StringIO(oof_table(outcome, LABELS)), dtype={"primary_label": str})
    assert list(table.columns) == ["filename", "primary_label", *LABELS]
    assert table.primary_label.tolist() == list(LABELS)
    np.testing.assert_allclose(table[list(LABELS)].to_numpy(), outcome.probabilities, rtol=1e-6)
