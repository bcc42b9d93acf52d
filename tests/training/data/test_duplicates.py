import itertools
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given
from hypothesis import strategies as st
from make_bundles import write_sound

from birdinfer.training.data.clip import Clip
from birdinfer.training.data.duplicates import Duplicates, Fingerprint, alike, decide, find_duplicates, is_alike
from birdinfer.training.data.metadata import read_metadata

RATE = 32_000


def song(seconds, seed):
    """Chirps of chance pitch and length over faint noise, another song for each seed."""
    rng = np.random.default_rng(seed)
    samples = rng.normal(0, 0.005, round(seconds * RATE))
    for begin in np.arange(0, seconds - 0.5, 0.25):
        clock = np.arange(round(rng.uniform(0.05, 0.4) * RATE)) / RATE
        low_hz, sweep_hz = rng.uniform(1_000, 5_000), rng.uniform(-3_000, 3_000)
        chirp = np.sin(2 * np.pi * (low_hz * clock + sweep_hz * clock**2)) * np.hanning(len(clock))
        samples[round(begin * RATE) :][: len(clock)] += rng.uniform(0.05, 0.3) * chirp
    return samples.astype(np.float32)


def write_ogg(path, samples, rate=RATE, compression=0.5):
    """Second by second: longer calls crash the encoder."""
    with soundfile.SoundFile(path, "w", rate, 1, format="OGG", compression_level=compression) as file:
        for begin in range(0, len(samples), rate):
            file.write(samples[begin : begin + rate])


def find(*paths):
    return find_duplicates([Clip(path.name, path, "a") for path in paths], lambda done, total: None)


def another_bitrate(samples):
    return samples, RATE, 0.9


def another_loudness(samples):
    return 0.1 * samples, RATE, 0.5


def another_rate(samples):
    return soxr.resample(samples, RATE, 22_050), 22_050, 0.5


def without_its_beginning(samples):
    return samples[22_477:], RATE, 0.5


def without_its_end(samples):
    return samples[: -2 * RATE], RATE, 0.5


def all_at_once(samples):
    return soxr.resample(0.3 * samples[22_477:-RATE], RATE, 24_000), 24_000, 0.4


CHANGES = [another_bitrate, another_loudness, another_rate, without_its_beginning, without_its_end, all_at_once]


class TestFindDuplicates:
    @pytest.mark.parametrize("change", CHANGES)
    def test_a_recording_is_found_again_after(self, tmp_path, change):
        original = song(8, 0)
        write_sound(tmp_path / "a.wav", original)
        write_ogg(tmp_path / "b.ogg", song(8, 1))
        write_ogg(tmp_path / "c.ogg", *change(original))
        assert find(*sorted(tmp_path.iterdir())) == Duplicates(((0, 2),), (), ((0, 2),))

    def test_songs_are_apart(self, tmp_path):
        for seed in range(8):
            write_ogg(tmp_path / f"{seed}.ogg", song(4, seed))
        assert find(*sorted(tmp_path.iterdir())).sets == ()

    def test_silence_and_held_tones_are_like_nothing(self, tmp_path):
        tone = (0.5 * np.sin(2 * np.pi * 2_000 * np.arange(3 * RATE) / RATE)).astype(np.float32)
        for name in ("a", "b"):
            write_sound(tmp_path / f"{name}0.wav", np.zeros(3 * RATE, np.float32))
            write_ogg(tmp_path / f"{name}1.ogg", tone)
            write_ogg(tmp_path / f"{name}2.ogg", np.concatenate([song(2, ord(name)), 0 * tone, 0 * tone]))
        assert find(*sorted(tmp_path.iterdir())).sets == ()

    def test_clips_that_overlap_in_a_row_are_one_set(self, tmp_path):
        whole = song(14, 0)
        for index, begin in enumerate((0, 5, 10)):
            write_ogg(tmp_path / f"{index}.ogg", whole[begin * RATE :][: 8 * RATE])
        assert find(*sorted(tmp_path.iterdir())).sets == ((0, 1, 2),)

    def test_many_copies_are_one_set(self, tmp_path):
        write_ogg(tmp_path / "a.ogg", song(3, 0))
        assert find(*[tmp_path / "a.ogg"] * 40).sets == (tuple(range(40)),)

    def test_a_bad_file_is_reported_and_stops_nothing(self, tmp_path):
        write_ogg(tmp_path / "a.ogg", song(3, 0))
        (tmp_path / "b.ogg").write_text("404 not found")
        write_ogg(tmp_path / "c.ogg", song(3, 0), compression=0.7)
        found = find(*sorted(tmp_path.iterdir()), tmp_path / "gone.ogg")
        assert found.sets == ((0, 2),)
        assert found.failed[0].startswith("b.ogg (cannot be decoded")
        assert found.failed[1] == "gone.ogg (no such file)"

    def test_progress_counts_to_the_end(self, tmp_path):
        write_ogg(tmp_path / "a.ogg", song(1, 0))
        reported = []
        find_duplicates([Clip("a", tmp_path / "a.ogg", "a")] * 3, lambda done, total: reported.append((done, total)))
        assert reported == [(1, 3), (2, 3), (3, 3)]

    def test_what_progress_raises_ends_the_search(self, tmp_path):
        write_ogg(tmp_path / "a.ogg", song(1, 0))

        def stop(done, total):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            find_duplicates([Clip("a", tmp_path / "a.ogg", "a")] * 3, stop)

    def test_nothing_to_search(self):
        assert find() == Duplicates((), ())


class TestRealClips:
    @pytest.mark.parametrize("change", CHANGES)
    def test_are_found_again_after(self, shared_data, tmp_path, change):
        paths = sorted((shared_data / "birds" / "train_audio").rglob("*.ogg"))[3::60]
        copies = [tmp_path / f"{index}.ogg" for index in range(len(paths))]
        for path, copy in zip(paths, copies, strict=True):
            samples, _ = soundfile.read(path, frames=20 * RATE, dtype="float32")
            write_ogg(copy, *change(samples))
        assert find(*paths, *copies).sets == tuple((i, i + len(paths)) for i in range(len(paths)))

    def test_recordings_of_one_species_are_apart(self, shared_data):
        clips = sorted(read_metadata(shared_data / "birds").clips, key=lambda clip: clip.primary_label)
        species = [list(mine) for _, mine in itertools.groupby(clips, lambda clip: clip.primary_label)]
        several = [clip for mine in species if len(mine) > 2 for clip in mine if clip.duration_seconds < 40]
        assert len(several) > 20
        assert find_duplicates(several, lambda done, total: None) == Duplicates((), ())

    @pytest.mark.parametrize(
        ("label", "names"),
        [("babycry", {"3-151080-A.ogg", "5-151085-A.ogg"}), ("fire", {"2-28314-A.ogg", "2-30322-A.ogg"})],
    )
    def test_two_cuts_of_one_recording_are_found(self, shared_data, label, names):
        """ESC-10 has two such pairs, each under two numbers of one author; the cries lie in folds 3 and 5."""
        paths = sorted((shared_data / "esc10").rglob(f"{label}/*.ogg"))
        (pair,) = find(*paths).sets
        assert {paths[index].name for index in pair} == names


def random_print(n_words, rng):
    words = rng.integers(0, 2**32, n_words, dtype=np.uint32)
    return Fingerprint(words, np.full(n_words, 3, np.uint32), np.ones(n_words, np.bool_))


def with_wrong_bits(one, share, rng):
    wrong = np.packbits(rng.random((len(one.words), 32)) < share, axis=1).view(np.uint32).ravel()
    return one._replace(words=one.words ^ wrong)


class TestIsAlike:
    @given(st.integers(60, 400), st.integers(-30, 30), st.floats(0, 0.25), st.integers(0, 99))
    def test_a_quarter_of_the_bits_may_be_wrong_at_the_right_distance_alone(self, n_words, distance, share, seed):
        rng = np.random.default_rng(seed)
        whole = random_print(n_words + 30, rng)
        begin = max(0, -distance), max(0, distance)
        one, other = (Fingerprint(*(row[b : b + n_words] for row in whole)) for b in begin)
        assert is_alike(one, with_wrong_bits(other, share, rng), distance)
        assert not is_alike(one, other, distance + 3)

    @given(st.integers(1, 400), st.integers(1, 400), st.integers(-400, 400), st.integers(0, 99))
    def test_chance_is_not(self, n_one, n_other, distance, seed):
        rng = np.random.default_rng(seed)
        assert not is_alike(random_print(n_one, rng), random_print(n_other, rng), distance)

    def test_too_little_that_is_distinctive_is_not(self):
        one = random_print(40, np.random.default_rng(0))
        assert is_alike(one, one, 0)
        assert not is_alike(one, one, 25)
        assert not is_alike(one, one._replace(distinctive=np.arange(40) < 15), 0)

    def test_what_is_missing_is_like_nothing(self):
        one = random_print(40, np.random.default_rng(0))
        assert alike([None, one, None, one, None]) == ((1, 3),)
        assert alike([None, None]) == ()


CLIPS = [Clip(name, Path("x"), label) for name, label in zip("pqrstu", "aababc", strict=True)]
FOUND = Duplicates(((0, 1, 2), (3, 4)), ())


class TestDecide:
    def test_remove_keeps_the_first_of_each_label_in_a_set(self):
        decision = decide(CLIPS, FOUND, "remove")
        assert decision.left_out == {1}
        assert decision.kept_together == ((0, 2), (3, 4))
        assert decision.notes == (
            "1 recordings sound like another one and are left out: q (as p)",
            "2 recordings sound like another one and stay on its side: r (as p), t (as s)",
            "2 of them have another label: r (b, not a), t (b, not a)",
        )

    def test_group_keeps_all_on_one_side(self):
        decision = decide(CLIPS, FOUND, "group")
        assert decision.left_out == frozenset()
        assert decision.kept_together == FOUND.sets
        assert decision.notes[0].startswith("3 recordings sound like another one and stay on its side: q (as p)")

    def test_failures_are_reported(self):
        (note,) = decide(CLIPS, Duplicates((), ("u (is empty)",)), "group").notes
        assert note == "1 clips cannot be searched for duplicates: u (is empty)"

    def test_nothing_found_nothing_said(self):
        assert decide(CLIPS, Duplicates((), ()), "remove") == (frozenset(), (), ())
