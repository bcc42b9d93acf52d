"""A dry run passes what would pass on Kaggle, and names what would fail: planted faults, each with its message."""

import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from made_wheels import write_wheel
from make_bundles import tone, write_sound
from packed_submission import SETTINGS, notebook_of, plant, write_packed, write_sample

from birdinfer.callbacks import Callback
from birdinfer.errors import BirdinferError, ConfigError, InputNotFoundError, MetadataError
from birdinfer.kaggle.competitions import competition
from birdinfer.kaggle.dry_run import DryRunSettings, dry_run
from birdinfer.kaggle.fake_kaggle import Layout, Run

PYTHON = Path(sys.executable)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Two short soundscapes: 2 and 1 rows."""
    folder = tmp_path_factory.mktemp("sounds")
    for index, seconds in enumerate((10.0, 5.0)):
        write_sound(folder / f"{index}.ogg", tone(seconds, seed=index))
    return sorted(folder.iterdir())


@pytest.fixture
def packed(tmp_path, bundle):
    return write_packed(tmp_path / "packed", bundle)


def settings(packed, sounds, **others):
    """One layout, three files, one minute, this Python."""
    usual = {"python": PYTHON, "layouts": (Layout.mounts_2026,), "n_files": 3, "limit_minutes": 1.0}
    return DryRunSettings(packed=packed, soundscapes=tuple(sounds), **{**usual, **others})


@pytest.fixture
def faults_of(sounds):
    """A dry run in one layout -> all faults, with the run's name in front."""

    def run(packed, **others):
        report = dry_run(settings(packed, sounds, **others))
        faults = [*report.faults, *(f"{one.run}: {fault}" for one in report.runs for fault in one.faults)]
        assert report.ok == (not faults)
        return faults

    return run


class Messages(Callback):
    def __init__(self):
        self.lines = []

    def on_message(self, line):
        self.lines.append(line)


@pytest.mark.parametrize(
    "layouts", [(Layout.mounts_2026,), pytest.param(tuple(Layout), marks=pytest.mark.slow)], ids=["2026", "both"]
)
def test_a_sound_submission_passes_in_its_layouts_without_network(packed, sounds, layouts):
    messages = Messages()
    report = dry_run(settings(packed, sounds, layouts=layouts), messages)
    assert [(one.layout, one.run) for one in report.runs] == [(layout, run) for layout in layouts for run in Run]
    assert report.ok, [(one.faults, one.output) for one in report.runs]
    assert all(one.peak_mb > 50 for one in report.runs)
    assert [one.n_files for one in report.runs] == [0, 4] * len(layouts)
    assert report.competition == "birdclef-2025"
    assert report.network
    assert len(messages.lines) == 2 + 2 * len(layouts)


@pytest.mark.parametrize("slug", ["birdclef-2021", pytest.param("birdclef-2022", marks=pytest.mark.slow)])
def test_years_that_ask_for_other_things_than_probabilities_pass_too(tmp_path, bundle, sounds, slug):
    packed = write_packed(tmp_path / "packed", bundle, replace(SETTINGS, competition=competition(slug)))
    (hidden,) = dry_run(settings(packed, sounds, runs=(Run.hidden,))).runs
    # Its forecast for thousands of recordings is the machine's, which may be busy.
    assert [fault for fault in hidden.faults if "take" not in fault] == [], hidden.output


def test_a_careful_notebook_of_ones_own_passes(packed, faults_of):
    assert faults_of(plant(packed, "")) == []


class TestPlantedFaults:
    @pytest.mark.parametrize(
        ("lines", "words"),
        [
            ("header[1], header[2] = header[2], header[1]", "columns in another order"),
            ("rows = rows[1:]", "rows missing"),
            ("rows[0][1] = ''", "empty"),
            ("rows[0][1] = 'nan'", "NaN"),
            ("rows = [['soundscape_' + row[0], *row[1:]] for row in rows]", "soundscape_"),
            ("header[header.index('0012')] = '12'", "'12' for '0012'"),
        ],
    )
    def test_in_the_table(self, packed, faults_of, lines, words):
        faults = faults_of(plant(packed, lines))
        for run in Run:
            assert [fault for fault in faults if fault.startswith(f"{run}: submission.csv") and words in fault], faults

    def test_nested_folder(self, packed, faults_of):
        (packed / "dataset" / "models").mkdir()
        (packed / "dataset" / "fold1.onnx").rename(packed / "dataset" / "models" / "fold1.onnx")
        faults = faults_of(packed)
        assert faults[0].startswith("nested: dataset/models is a folder")
        assert "fold1.onnx" in faults[1]

    def test_wheel_for_another_python(self, packed, faults_of):
        write_wheel(packed / "dataset", "onnxruntime-1.25.0", "cp38-cp38-manylinux_2_17_x86_64")
        faults = faults_of(plant(packed, ""))
        assert len(faults) == 1
        assert faults[0].startswith("a wheel: onnxruntime-1.25.0-cp38")
        assert "is for Python 3.8, Kaggle runs 3.12" in faults[0]

    def test_missing_bundle_file(self, packed, faults_of):
        (packed / "dataset" / "fold0.onnx").unlink()
        (fault,) = faults_of(packed)
        assert fault.startswith("the bundle: ")
        assert "fold0.onnx" in fault

    def test_network_use(self, packed, faults_of):
        faults = faults_of(
            plant(packed, "import urllib.request; urllib.request.urlopen('http://192.0.2.1/', timeout=5)")
        )
        assert faults[0].startswith("public: the network: the notebook asks for it (")
        assert faults[0].endswith("the internet is off on Kaggle")
        assert "hidden: the network" in "\n".join(faults)

    @pytest.mark.slow
    def test_time_budget_too_small(self, tmp_path, bundle, faults_of):
        hurried = write_packed(tmp_path / "hurried", bundle, replace(SETTINGS, budget_minutes=0.001))
        faults = faults_of(hurried)
        assert any(fault.startswith("hidden: the time budget of 0.001 min is too small: some of 4") for fault in faults)

    def test_time_budget_too_small_for_all_hidden_files(self, packed, sounds):
        """A file every 0.2 s. Files of 10, 5, 0 (corrupt) and 5 s are a twelfth of a minute each: 8,400 x 0.2 s."""
        count_files = (
            "import sqlite3, time\n(root / 'working/a.csv.progress').mkdir()\n"
            "run = sqlite3.connect(root / 'working/a.csv.progress/run.sqlite', isolation_level=None)\n"
            "run.execute('CREATE TABLE files (file)')\nfor _ in range(4):\n"
            "    time.sleep(0.2); run.execute('INSERT INTO files VALUES (1)')\ntime.sleep(0.2)"
        )
        (hidden,) = dry_run(settings(plant(packed, count_files), sounds, runs=(Run.hidden,), cores=1)).runs
        assert hidden.forecast_seconds >= 0.9 * 8_400 * 0.2  # more on a busy machine
        (fault,) = hidden.faults
        assert fault.startswith("the time budget of 1 min is too small: 700 soundscapes take ")

    def test_empty_test_folder(self, packed, faults_of):
        (public, missing) = faults_of(plant(packed, "next(root.rglob('test_soundscapes/*.ogg'))"))
        assert public.startswith("public: the notebook ends with 1: StopIteration")
        assert "its test folder is empty in the public run" in public
        assert "submission.csv is missing" in missing

    def test_corrupt_soundscape(self, packed, faults_of):
        decode = "import soundfile; [soundfile.info(p) for p in root.rglob('test_soundscapes/*.ogg')]"
        (hidden, missing) = faults_of(plant(packed, decode))
        assert hidden.startswith("hidden: the notebook ends with 1: ")
        assert "one soundscape is corrupt on purpose, soundscape_100018.ogg" in hidden
        assert "submission.csv is missing" in missing


class TestBeyondTheTwelve:
    def test_a_wheel_that_is_missing(self, packed, sounds):
        """In a Python that has pip and nothing else, a wheel that needs another one."""
        wheel = write_wheel(packed / "dataset", "birdinfer-0.1.0", needs=["surely-not-installed>=2"])
        with zipfile.ZipFile(wheel, "a") as archive:
            archive.writestr("birdinfer-0.1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        bare = Path(sys.base_prefix, "bin", "python3")
        (public,) = dry_run(settings(packed, sounds, python=bare, runs=(Run.public,))).runs
        said = next(fault for fault in public.faults if "the wheels cannot be installed" in fault)
        assert "surely-not-installed" in said
        assert any("birdinfer is not installed, 1 wheels lie below" in fault for fault in public.faults)

    def test_nothing_was_predicted(self, packed, faults_of):
        faults = faults_of(
            plant(packed, "__import__('shutil').copy(sample, root / 'working/submission.csv'); raise SystemExit")
        )
        assert any("is the sample itself: nothing was predicted" in fault for fault in faults)

    def test_too_much_memory(self, packed, faults_of):
        faults = faults_of(
            plant(packed, "import time; much = bytearray(300_000_000); time.sleep(20)"),
            memory_gb=0.2,
            runs=(Run.hidden,),
        )
        assert any("memory: more than 0.2 GB are held" in fault for fault in faults)

    def test_an_endless_notebook(self, packed, faults_of):
        faults = faults_of(plant(packed, "import time; time.sleep(60)"), limit_minutes=0.02, runs=(Run.hidden,))
        assert any("time: not done within 0.02 min" in fault for fault in faults)

    def test_writing_into_the_input(self, packed, faults_of):
        faults = faults_of(plant(packed, "(sample.parent / 'cache.npy').write_bytes(b'x')"))
        assert any("the input: competitions/birdclef-2025/cache.npy was written to" in fault for fault in faults)

    def test_the_internet_switched_on(self, packed, faults_of):
        metadata = packed / "kernel" / "kernel-metadata.json"
        metadata.write_text(metadata.read_text().replace('"enable_internet": false', '"enable_internet": true'))
        (fault,) = faults_of(plant(packed, ""))
        assert fault.startswith("the internet: ")

    def test_problems_that_the_notebook_records(self, packed, sounds):
        """A bundle that goes missing between the check and the run: the hidden run ends well and reports it."""
        record = "(root / 'working' / 'birdinfer_kaggle.json').write_text('{\"problems\": [\"no bundle\"]}')"
        report = dry_run(settings(plant(packed, record), sounds))
        assert all(one.faults == ("no bundle",) for one in report.runs)

    @pytest.mark.parametrize("text", ["{", "[]", '{"problems": 1}', '{"budget_seconds": "long"}'])
    def test_a_damaged_record_is_ignored(self, packed, sounds, text):
        record = f"(root / 'working' / 'birdinfer_kaggle.json').write_text({text!r})"
        assert dry_run(settings(plant(packed, record), sounds, runs=(Run.hidden,))).ok


class TestTheSpecies:
    def test_fewer_than_the_year_asks_for_are_no_pass(self, packed, sounds):
        """The sample of the runs asks for them all, and the table that is written has them."""
        (packed / "sample_submission.csv").unlink()
        report = dry_run(settings(packed, sounds, runs=(Run.hidden,)))
        assert report.lacking == ("the bundle knows 4 species, birdclef-2025 asks for 206: 202 would hold a constant")
        assert (report.ok, report.runs_through) == (False, True)
        assert (
            "202 of its species are not in the bundle and hold 0.25 in all rows: unknown_202" in report.runs[0].output
        )

    @pytest.mark.slow
    def test_those_of_a_sample_are_compared_by_name(self, tmp_path, packed, sounds):
        sample = write_sample(tmp_path / "s.csv", ("houspa", "comcuc"), 2025)
        report = dry_run(settings(packed, sounds, sample=sample, runs=(Run.public,)))
        assert "1 of its species are not in the bundle: houspa" in report.lacking
        assert (report.ok, report.runs_through, report.has_sample) == (False, True, True)

    @pytest.mark.slow
    def test_a_notebook_that_is_meant_to_fill_them_passes(self, tmp_path, bundle, sounds):
        options = ("--missing-species", "0.01")
        packed = write_packed(tmp_path / "packed", bundle, replace(SETTINGS, options=options))
        sample = write_sample(tmp_path / "s.csv", ("houspa", "comcuc"), 2025)
        report = dry_run(settings(packed, sounds, sample=sample, runs=(Run.hidden,)))
        assert report.ok, [(one.faults, one.output) for one in report.runs]

    def test_a_sample_of_other_species_is_refused(self, tmp_path, packed, sounds):
        with pytest.raises(MetadataError, match="it scores none that is asked for"):
            dry_run(settings(packed, sounds, sample=write_sample(tmp_path / "s.csv", ("houspa",), 2025)))


class TestRefusals:
    def test_a_folder_that_was_not_packed(self, tmp_path):
        with pytest.raises(InputNotFoundError, match=r"is no packed submission .* birdinfer kaggle pack"):
            dry_run(DryRunSettings(packed=tmp_path))

    @pytest.mark.parametrize("text", ["{", "[]", '{"competition_sources": []}', '{"competition_sources": ["a"]}'])
    def test_damaged_metadata(self, packed, text):
        (packed / "kernel" / "kernel-metadata.json").write_text(text)
        with pytest.raises(ConfigError, match=r"kernel-metadata\.json: is damaged"):
            dry_run(DryRunSettings(packed=packed))

    @pytest.mark.parametrize(
        ("notebook", "words"),
        [("{}", "is no notebook"), ("not json", "is no notebook"), (notebook_of("!pip install x"), "needs Jupyter")],
    )
    def test_a_notebook_that_cannot_be_run(self, packed, notebook, words):
        (packed / "kernel" / "birdinfer.ipynb").write_text(notebook)
        with pytest.raises(ConfigError, match=words):
            dry_run(DryRunSettings(packed=packed))

    def test_no_notebook(self, packed):
        (packed / "kernel" / "birdinfer.ipynb").unlink()
        with pytest.raises(InputNotFoundError, match=r"birdinfer\.ipynb: is missing"):
            dry_run(DryRunSettings(packed=packed))

    def test_no_soundscapes(self, packed):
        with pytest.raises(InputNotFoundError, match="there is none"):
            dry_run(settings(packed, []))

    def test_a_python_that_is_none(self, packed, sounds, tmp_path):
        with pytest.raises(BirdinferError, match=r"--python: .* makes no environment"):
            dry_run(settings(packed, sounds, python=tmp_path / "python"))
