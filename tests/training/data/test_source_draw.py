"""How sources come into the batches."""

from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.training.data.clip import Clip
from birdinfer.training.data.label_rows import TableRows
from birdinfer.training.data.sampling import EpochSampler, SharedItems, SharedSampler
from birdinfer.training.data.source_draw import Mixer, build_sampler
from birdinfer.training.data.source_tables import TrainingSource
from birdinfer.training.recipe.data_config import DataConfig, SourceConfig
from birdinfer.training.recipe.schema import LoopConfig, Recipe

OWN = tuple(Clip(f"{label}/{n}.ogg", Path(f"{n}"), label) for label in "ab" for n in range(10))


def clips_of(number, n_clips, label="a"):
    return tuple(
        Clip(f"@{number}/{n}", Path(f"{number}/{n // 2}"), label, source=number, row=n) for n in range(n_clips)
    )


def source(sums=(), **keys):
    rows = TableRows([{0: value} for value in sums], 2, np.ones(len(sums), np.float32)) if sums else None
    return TrainingSource(SourceConfig(path="x", **keys), rows)


def recipe(batch_size=10, **data):
    return Recipe(data=DataConfig(**data), loop=LoopConfig(batch_size=batch_size))


class TestShares:
    @given(st.lists(st.floats(0.01, 0.3), min_size=1, max_size=3), st.integers(40, 90), st.integers(4, 24))
    def test_each_batch_has_its_shares_and_every_item_its_turn(self, shares, n_own, size):
        pool = EpochSampler(["a"] * n_own, DataConfig(), 0)
        shared = [SharedItems(share, 1000 * (index + 1) + np.arange(7)) for index, share in enumerate(shares)]
        sampler = SharedSampler(pool, np.arange(n_own), shared, size, 0)
        drawn = [sampler.epoch(epoch) for epoch in range(3)]
        batches = np.concatenate(drawn).reshape(-1, size) // 1000
        for index, share in enumerate(shares, start=1):
            counts = (batches == index).sum(axis=1)
            assert np.abs(counts - share * size).max() <= 2 + len(shares)
            assert abs(counts.sum() - share * batches.size) <= 1
            turns = np.bincount(np.concatenate(drawn)[(np.concatenate(drawn) // 1000) == index] % 1000, minlength=7)
            assert turns.max() - turns.min() <= 1
        own = np.concatenate(drawn)[np.concatenate(drawn) < 1000]
        assert np.bincount(own).max() <= 4  # three epochs, and the rest of a batch
        assert np.array_equal(sampler.epoch(1), drawn[1])

    def test_without_sources_the_sampler_is_the_plain_one(self):
        plain = build_sampler(OWN, (), recipe())
        assert isinstance(plain, EpochSampler)
        assert plain.epoch(0).tolist() == EpochSampler(["a"] * 10 + ["b"] * 10, DataConfig(), 0).epoch(0).tolist()

    def test_a_source_without_share_joins_the_clips(self):
        sampler = build_sampler((*OWN, *clips_of(1, 5, "c")), [source()], recipe(upsample_to=12))
        drawn = Counter(("ab" + "c")[min(2, item // 10)] for item in sampler.epoch(0).tolist())
        assert drawn == {"a": 12, "b": 12, "c": 12}

    def test_files_are_drawn_by_label_sum_and_rare_species_more_often(self):
        own = clips_of(1, 4)
        sampler = build_sampler(
            (*OWN, *own), [source((0.1, 0.3, 0.9, 0.1), share=0.9, drawn_by="label_sum")], recipe(100)
        )
        drawn = np.bincount(np.concatenate([sampler.epoch(epoch) for epoch in range(50)]))[20:]
        assert drawn / drawn.sum() == pytest.approx([0.125, 0.125, 0.375, 0.375], abs=0.03)
        own = (*clips_of(1, 3, "a"), clips_of(1, 4, "b")[3])
        sampler = build_sampler((*OWN, *own), [source(share=0.5, upsample_to=3)], recipe(12))
        drawn = np.bincount(np.concatenate([sampler.epoch(epoch) for epoch in range(6)]))[20:]
        assert drawn[3] == pytest.approx(3 * drawn[0], abs=3)

    def test_a_source_of_which_nothing_is_left_draws_nothing(self):
        assert sorted(build_sampler(OWN, [source(share=0.5)], recipe()).epoch(0).tolist()) == list(range(20))


class TestMixer:
    def test_one_source_at_a_time_by_its_probability(self):
        first = TrainingSource(SourceConfig(path="x", mix_probability=0.25, mix_share=0.3))
        second = TrainingSource(SourceConfig(path="y", mix_probability=0.5))
        mixer, rng = Mixer((*OWN, *clips_of(1, 2), *clips_of(2, 2)), [first, second]), np.random.default_rng(0)
        drawn = Counter(found and (found.clip.source, found.share) for found in (mixer.draw(rng) for _ in range(4000)))
        assert drawn[None] == pytest.approx(1000, abs=120)
        assert drawn[1, 0.3] == pytest.approx(1000, abs=120)
        assert drawn[2, 0.5] == pytest.approx(2000, abs=120)

    def test_nothing_to_mix_in_takes_no_random_numbers(self):
        rng = np.random.default_rng(0)
        assert Mixer(OWN, [source(share=0.5)]).draw(rng) is None
        assert rng.random() == np.random.default_rng(0).random()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"share": 0.5, "mix_probability": 0.5}, "either drawn or mixed in"),
        ({"kind": "soundscapes"}, "need one"),
        ({"power": 2.0}, "have hard labels"),
        ({"drawn_by": "label_sum"}, "needs share or mix_probability"),
        ({"mix_label_sum": 0.5}, "needs mix_probability"),
        ({"kind": "pseudo_labels", "table": "t", "role": "folds"}, "no truth"),
        ({"kin": "clips"}, "unknown field"),
    ],
)
def test_source_config_refuses_keys_that_do_nothing(keys, message):
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert({"data": {"sources": [{"path": "x", **keys}]}}, Recipe)
