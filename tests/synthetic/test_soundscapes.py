import csv
import re

import numpy as np
import pytest
import soundfile

from birdinfer.errors import ConfigError, OutputError
from birdinfer.synthetic.calls import HIGHEST_HZ, make_call
from birdinfer.synthetic.soundscapes import (
    AUTHORS_PER_SPECIES,
    MIN_OVERLAP_SECONDS,
    SPECIES,
    Event,
    _labels_of_file,
    make_background,
    make_clip,
    make_soundscape,
    window_truth,
    write_soundscapes,
    write_training_data,
)

RATE = 32_000
LABELS = [species.label for species in SPECIES]
BIRDCLEF_2025_COLUMNS = [
    "primary_label",
    "secondary_labels",
    "type",
    "latitude",
    "longitude",
    "scientific_name",
    "common_name",
    "author",
    "license",
    "rating",
    "url",
    "filename",
    "collection",
]


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def band_power(sound, low_hz, high_hz):
    """Mean power within a band, by an FFT of the sound's own length."""
    power = np.abs(np.fft.rfft(sound)) ** 2
    hz = np.fft.rfftfreq(len(sound), 1 / RATE)
    return power[(hz >= low_hz) & (hz <= high_hz)].sum()


def energy_band(sound):
    """The frequencies that the middle 95 % of a sound's energy lie between."""
    share = np.cumsum(np.abs(np.fft.rfft(sound)) ** 2)
    hz = np.fft.rfftfreq(len(sound), 1 / RATE)
    return hz[np.searchsorted(share / share[-1], [0.025, 0.975])]


def overlap(event, other):
    return event.onset_seconds < other.offset_seconds and other.onset_seconds < event.offset_seconds


@pytest.fixture(scope="module")
def soundscapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("soundscapes")
    return write_soundscapes(folder, n_files=4, duration_seconds=20, seed=5)


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    return write_training_data(tmp_path_factory.mktemp("training"), clips_per_species=6, seed=5)


class TestCalls:
    @pytest.mark.parametrize("species", SPECIES, ids=lambda species: species.common_name)
    def test_each_call_is_a_finite_sound_of_stated_length_and_peak(self, species):
        for seed in range(4):
            call = make_call(species, np.random.default_rng(seed), RATE)
            assert 0.4 <= len(call) / RATE <= 3
            assert np.abs(call).max() == pytest.approx(1)
            assert energy_band(call)[1] < HIGHEST_HZ

    @pytest.mark.parametrize("species", SPECIES, ids=lambda species: species.common_name)
    def test_no_two_calls_are_alike(self, species):
        lengths = {len(make_call(species, np.random.default_rng(seed), RATE)) for seed in range(5)}
        assert len(lengths) > 1

    @pytest.mark.parametrize("species", SPECIES, ids=lambda species: species.common_name)
    def test_any_quarter_second_of_a_call_holds_sound(self, species):
        call = make_call(species, np.random.default_rng(3), RATE)
        quarter = round(MIN_OVERLAP_SECONDS * RATE)
        loudest = [np.abs(call[begin : begin + quarter]).max() for begin in range(0, len(call) - quarter, quarter // 4)]
        assert min(loudest) > 0.1

    def test_labels_are_unique_and_some_look_like_numbers(self):
        assert len(set(LABELS)) == len(LABELS) == 8
        assert any(label.isdigit() for label in LABELS)


class TestMakeSoundscape:
    def test_is_a_waveform_of_stated_length_within_1(self):
        waveform, events = make_soundscape(np.random.default_rng(0), 12.5, snr_db=(40, 60))
        assert waveform.dtype == np.float32
        assert waveform.shape == (400_000,)
        assert 0.9 < np.abs(waveform).max() <= 1
        assert events == sorted(events, key=lambda event: event.onset_seconds)

    def test_equal_seeds_give_equal_sound(self):
        first, first_events = make_soundscape(np.random.default_rng(7), 10)
        second, second_events = make_soundscape(np.random.default_rng(7), 10)
        np.testing.assert_array_equal(first, second)
        assert first_events == second_events
        other, _ = make_soundscape(np.random.default_rng(8), 10)
        assert not np.array_equal(first, other)

    def test_one_generator_gives_one_soundscape_after_the_other(self):
        rng = np.random.default_rng(7)
        assert not np.array_equal(make_soundscape(rng, 10)[0], make_soundscape(rng, 10)[0])

    @pytest.mark.parametrize("label", LABELS)
    def test_snr_is_as_stated(self, label):
        # Few calls, so that most stand alone; those that overlap another are left out of the comparison.
        arguments = {"duration_seconds": 30, "labels": [label], "snr_db": (0.0, 15.0)}
        compared = 0
        for seed in range(2):
            mixed, events = make_soundscape(np.random.default_rng(seed), calls_per_minute=8, **arguments)
            background, none = make_soundscape(np.random.default_rng(seed), calls_per_minute=0, **arguments)
            assert none == []
            for event in events:
                if (
                    sum(
                        event.onset_seconds < e.offset_seconds and e.onset_seconds < event.offset_seconds
                        for e in events
                    )
                    > 1
                ):
                    continue
                place = slice(round(event.onset_seconds * RATE), round(event.offset_seconds * RATE))
                call = mixed[place].astype(np.float64) - background[place]
                band = energy_band(call)
                snr_db = 10 * np.log10(band_power(call, *band) / band_power(background[place], *band))
                assert snr_db == pytest.approx(event.snr_db, abs=1)
                compared += 1
        assert compared >= 2

    def test_no_event_overlaps_a_window_by_a_doubtful_part(self):
        starts = np.arange(0, 30, 5)
        for seed in range(2):
            _, events = make_soundscape(np.random.default_rng(seed), 30, calls_per_minute=60)
            for event in events:
                overlap = np.minimum(event.offset_seconds, starts + 5) - np.maximum(event.onset_seconds, starts)
                assert not ((overlap > 1e-6) & (overlap < MIN_OVERLAP_SECONDS - 1e-6)).any()

    def test_only_the_named_species_call(self):
        _, events = make_soundscape(np.random.default_rng(0), 60, labels=LABELS[:2], calls_per_minute=30)
        assert {event.label for event in events} == set(LABELS[:2])

    def test_four_species_call_by_default(self):
        _, events = make_soundscape(np.random.default_rng(0), 60, calls_per_minute=40)
        assert len({event.label for event in events}) == 4

    def test_another_sample_rate(self):
        waveform, _ = make_soundscape(np.random.default_rng(0), 6, sample_rate=22_050)
        assert waveform.shape == (132_300,)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"duration_seconds": 4.9}, "duration_seconds: is 4.9, a soundscape needs at least 5"),
            ({"sample_rate": 16_000}, "sample_rate: is 16000, the calls need at least 18000 Hz"),
            ({"labels": ["comcuc"]}, "labels: 'comcuc' is none of the synthetic species - known are "),
        ],
    )
    def test_refuses_what_it_cannot_make(self, arguments, message):
        with pytest.raises(ConfigError, match=re.escape(message)):
            make_soundscape(np.random.default_rng(0), **arguments)


class TestMakeBackground:
    def test_level_lies_where_stated_although_it_drifts(self):
        for seed in range(10):
            noise = make_background(np.random.default_rng(seed), 10 * RATE, RATE)
            # The median of seconds: clicks and gusts touch few of them.
            level_db = 20 * np.log10(np.median(noise.reshape(10, -1).std(axis=1)))
            assert -52 < level_db < -26

    def test_is_coloured_and_differs_by_recording(self):
        slopes = []
        for seed in range(6):
            noise = make_background(np.random.default_rng(seed), 4 * RATE, RATE)
            low, high = band_power(noise, 500, 1000), band_power(noise, 8000, 8500)
            slopes.append(10 * np.log10(low / high))
        assert min(slopes) > 0
        assert np.std(slopes) > 1


class TestMakeClip:
    def test_the_primary_species_dominates(self):
        waveform, events = make_clip(np.random.default_rng(1), LABELS[0], LABELS[1])
        primary = [event for event in events if event.label == LABELS[0]]
        secondary = [event for event in events if event.label == LABELS[1]]
        assert 6 <= len(waveform) / RATE <= 12
        assert len({event.snr_db for event in primary}) == 1
        assert len(secondary) == 1
        assert primary[0].snr_db - 10 <= secondary[0].snr_db <= primary[0].snr_db - 3

    @pytest.mark.parametrize("label", LABELS)
    def test_the_primary_species_never_pauses_long_so_that_every_window_holds_it(self, label):
        waveform, events = make_clip(np.random.default_rng(2), label)
        edges = [0.0, *(time for event in events for time in event[1:3]), len(waveform) / RATE]
        pauses = [after - before for before, after in zip(edges[::2], edges[1::2], strict=True)]
        assert max(pauses) <= 1.501

    def test_clip_without_a_secondary_species_has_one_label(self):
        _, events = make_clip(np.random.default_rng(1), LABELS[3])
        assert {event.label for event in events} == {LABELS[3]}

    def test_refuses_an_unknown_label(self):
        with pytest.raises(ConfigError, match="is none of the synthetic species"):
            make_clip(np.random.default_rng(1), "comcuc")


class TestWindowTruth:
    def test_a_call_counts_in_every_window_that_it_overlaps_enough(self):
        events = [Event(LABELS[2], 4.0, 5.25, 10.0), Event(LABELS[0], 9.0, 10.2, 10.0)]
        truth = window_truth(events, 3)
        assert np.argwhere(truth).tolist() == [[0, 2], [1, 0], [1, 2]]

    def test_truth_without_events_is_all_false(self):
        assert not window_truth([], 4).any()
        assert window_truth([], 4).shape == (4, 8)


class TestWriteSoundscapes:
    def test_files_decode_to_the_stated_length_and_rate(self, soundscapes):
        files = sorted(soundscapes.parent.glob("*.ogg"))
        assert len(files) == 4
        for file in files:
            info = soundfile.info(file)
            assert (info.samplerate, info.channels, info.frames) == (RATE, 1, 20 * RATE)
            assert info.subtype == "VORBIS"
            samples, _ = soundfile.read(file, dtype="float32")
            assert np.abs(samples).max() <= 1

    def test_stems_are_named_as_recorders_do(self, soundscapes):
        for file in soundscapes.parent.glob("*.ogg"):
            assert re.fullmatch(r"synthetic_S\d\d_\d{8}_\d{6}", file.stem)
        assert (soundscapes.parent / "synthetic_S01_20260501_053000.ogg").exists()

    def test_truth_agrees_with_events(self, soundscapes):
        truth, events = read_csv(soundscapes), read_csv(soundscapes.parent / "events.csv")
        assert list(truth[0]) == ["row_id", *LABELS]
        assert len(truth) == 4 * 4
        for row in truth:
            stem, end = row["row_id"].rsplit("_", 1)
            present = {
                event["label"]
                for event in events
                if event["filename"] == f"{stem}.ogg"
                and min(float(event["offset_seconds"]), int(end)) - max(float(event["onset_seconds"]), int(end) - 5)
                > 0.2499
            }
            assert {label for label in LABELS if row[label] == "1"} == present

    def test_rows_end_every_5_seconds(self, soundscapes):
        ends = [int(row["row_id"].rsplit("_", 1)[1]) for row in read_csv(soundscapes)]
        assert ends == [5, 10, 15, 20] * 4

    def test_two_neighbouring_files_share_out_all_species(self, tmp_path):
        write_soundscapes(tmp_path, n_files=2, duration_seconds=60, seed=1)
        events = read_csv(tmp_path / "events.csv")
        by_file = {event["filename"]: set() for event in events}
        for event in events:
            by_file[event["filename"]].add(event["label"])
        first, second = by_file.values()
        assert not first & second
        assert first | second == set(LABELS)

    def test_a_file_depends_on_the_seed_and_its_number_alone(self, soundscapes, tmp_path):
        write_soundscapes(tmp_path / "same", n_files=2, duration_seconds=20, seed=5)
        write_soundscapes(tmp_path / "other", n_files=1, duration_seconds=20, seed=6)
        name = "synthetic_S01_20260501_053000.ogg"
        first, _ = soundfile.read(soundscapes.parent / name)
        np.testing.assert_array_equal(first, soundfile.read(tmp_path / "same" / name)[0])
        assert not np.array_equal(first, soundfile.read(tmp_path / "other" / name)[0])
        assert (tmp_path / "same" / "truth.csv").read_text().splitlines() == soundscapes.read_text().splitlines()[:9]

    def test_calls_survive_the_encoder(self, tmp_path):
        write_soundscapes(tmp_path, n_files=1, duration_seconds=20, seed=3, snr_db=(10, 20))
        decoded, _ = soundfile.read(next(tmp_path.glob("*.ogg")))
        written, _ = make_soundscape(np.random.default_rng([3, 0]), 20, labels=_labels_of_file(3, 0), snr_db=(10, 20))
        assert 10 * np.log10(np.mean(written**2) / np.mean((decoded - written) ** 2)) > 3

    def test_refuses_a_folder_that_is_a_file(self, tmp_path):
        (tmp_path / "taken").write_text("")
        with pytest.raises(OutputError, match="cannot be written"):
            write_soundscapes(tmp_path / "taken", n_files=1, duration_seconds=5)

    def test_none_is_an_empty_truth(self, tmp_path):
        assert read_csv(write_soundscapes(tmp_path, n_files=0)) == []


class TestWriteTrainingData:
    def test_layout_is_that_of_birdclef_2025(self, training):
        rows = read_csv(training / "train.csv")
        assert list(rows[0]) == BIRDCLEF_2025_COLUMNS
        assert [row["primary_label"] for row in rows] == [label for label in LABELS for _ in range(6)]
        for row in rows:
            file = training / "train_audio" / row["filename"]
            assert file.parent.name == row["primary_label"]
            info = soundfile.info(file)
            assert info.samplerate == RATE
            assert 6 <= info.frames / RATE <= 12

    def test_taxonomy_is_in_column_order(self, training):
        rows = read_csv(training / "taxonomy.csv")
        assert list(rows[0]) == ["primary_label", "inat_taxon_id", "scientific_name", "common_name", "class_name"]
        assert [row["primary_label"] for row in rows] == LABELS
        assert {row["class_name"] for row in rows} == {"Aves", "Insecta", "Amphibia"}

    def test_secondary_labels_are_the_text_of_a_list(self, training):
        texts = [row["secondary_labels"] for row in read_csv(training / "train.csv")]
        assert "['']" in texts
        named = [re.fullmatch(r"\['(\w+)'\]", text) for text in texts if text != "['']"]
        assert named
        assert all(match and match[1] in LABELS for match in named)

    def test_authors_belong_to_one_species_each(self, training):
        by_author = {}
        for row in read_csv(training / "train.csv"):
            by_author.setdefault(row["author"], set()).add(row["primary_label"])
        assert len(by_author) == len(LABELS) * AUTHORS_PER_SPECIES
        assert all(len(labels) == 1 for labels in by_author.values())

    def test_a_clip_depends_on_seed_species_and_number_alone(self, training, tmp_path):
        again = write_training_data(tmp_path, clips_per_species=1, seed=5)
        assert read_csv(again / "train.csv") == [
            row for row in read_csv(training / "train.csv") if "SYN00000" in row["filename"]
        ]
        for row in read_csv(again / "train.csv"):
            first, _ = soundfile.read(training / "train_audio" / row["filename"])
            np.testing.assert_array_equal(first, soundfile.read(tmp_path / "train_audio" / row["filename"])[0])

    def test_no_clip_is_an_empty_table(self, tmp_path):
        assert read_csv(write_training_data(tmp_path, clips_per_species=0) / "train.csv") == []
