import io

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_clips import LABELS

from birdinfer.training.dataset import ClipWindows
from birdinfer.training.evaluate import evaluate, evaluating, oof_table
from birdinfer.training.metadata import Clip
from birdinfer.training.models import build_model
from birdinfer.training.recipe_learning import ModelConfig

CLIPS = [Clip(f"{index}.ogg", None, label) for index, label in enumerate(LABELS)]


def item(index, *levels, failed=""):
    """Windows whose four samples are the logits themselves."""
    return ClipWindows(index, np.array(levels, np.float32).reshape(-1, 4), failed)


def sure_of(column):
    return [8.0 if index == column else -8.0 for index in range(4)]


class TestEvaluate:
    def test_a_clip_is_the_mean_of_its_windows(self):
        loader = [[item(0, [0, 0, 0, 0], [8, 8, 8, 8]), item(1, sure_of(1))]]
        outcome = evaluate(lambda waveforms: waveforms, loader, CLIPS, LABELS)
        assert outcome.probabilities[0] == pytest.approx(0.75, abs=1e-3)
        assert outcome.probabilities.shape == (2, 4)

    def test_scores(self):
        outcome = evaluate(lambda x: x, [[item(index, sure_of(index)) for index in range(4)]], CLIPS, LABELS)
        assert (outcome.macro_auc, outcome.top1) == (1.0, 1.0)
        assert outcome.loss == pytest.approx(0, abs=1e-3)

    def test_secondary_labels_count_as_present(self):
        clips = [CLIPS[0]._replace(secondary_labels=(LABELS[1],)), *CLIPS[1:]]
        both = [8.0, 8.0, -8.0, -8.0]
        outcome = evaluate(lambda x: x, [[item(0, both), *(item(i, sure_of(i)) for i in (1, 2, 3))]], clips, LABELS)
        assert outcome.macro_auc == 1.0

    def test_clips_that_failed_are_named_and_left_out(self):
        loader = [[item(0, failed="0.ogg (gone)")], [item(1, sure_of(1)), item(2, failed="2.ogg (gone)")]]
        outcome = evaluate(lambda x: x, loader, CLIPS, LABELS)
        assert [clip.filename for clip in outcome.clips] == ["1.ogg"]
        assert outcome.failed == ("0.ogg (gone)", "2.ogg (gone)")
        assert outcome.macro_auc is None  # one clip: no species has a positive and a negative

    def test_nothing_could_be_decoded(self):
        outcome = evaluate(lambda x: x, [[item(0, failed="gone")]], CLIPS, LABELS)
        assert (outcome.loss, outcome.macro_auc, outcome.top1) == (None, None, None)
        assert outcome.probabilities.shape == (0, 4)

    def test_calls_back_between_batches(self):
        with pytest.raises(KeyboardInterrupt):
            evaluate(lambda x: x, [[]], CLIPS, LABELS, between=_interrupt)


def _interrupt():
    raise KeyboardInterrupt


def test_pitfall_4_batchnorm_does_not_learn_from_validation():
    """Pitfall 4: a score must not hang on its neighbours, and validation must leave no trace in the model."""
    model = build_model(ModelConfig(backbone="test_efficientnet"), 4, start=False).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    inputs = torch.randn(4, 1, 32, 64) * 5
    with evaluating(model) as evaluated:
        together, alone = evaluated(inputs), evaluated(inputs[:1])
    torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=1e-5)
    assert not together.requires_grad
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_oof_table_keeps_labels_as_text():
    outcome = evaluate(lambda x: x, [[item(index, sure_of(index)) for index in range(4)]], CLIPS, LABELS)
    table = pd.read_csv(io.StringIO(oof_table(outcome, LABELS)), dtype={"primary_label": str})
    assert list(table.columns) == ["filename", "primary_label", *LABELS]
    assert table.primary_label.tolist() == list(LABELS)
    np.testing.assert_allclose(table[list(LABELS)].to_numpy(), outcome.probabilities, rtol=1e-6)
