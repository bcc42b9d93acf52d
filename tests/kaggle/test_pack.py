import json
import platform
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_wheels import write_wheel
from make_bundles import LABELS
from packed_submission import write_sample
from sequence_bundles import add_sequence_head

import birdinfer as package
from birdinfer.errors import BirdinferError, BundleError, ConfigError, MetadataError, OutputError
from birdinfer.inference.bundle import Bundle, save_manifest
from birdinfer.inference.manifest import Graph
from birdinfer.kaggle import wheels as wheel_sources
from birdinfer.kaggle.competitions import competition, kaggle_image
from birdinfer.kaggle.pack import (
    NEVER_UPLOADED,
    Packed,
    PackSettings,
    not_uploaded,
    pack,
    packed_names,
    read_pages,
    slug,
    usual_title,
)
from birdinfer.kaggle.wheels import incompatibility, read_wheel
from birdinfer.postprocess.priors import PriorShift

OWN = f"birdinfer-{package.__version__}-py3-none-linux_x86_64.whl"
NEEDS = ["numpy>=1.26", "soxr", "msgspec>=0.19", "onnxruntime>=1.20; extra == 'cpu'", "openvino; extra == 'openvino'"]


@pytest.fixture
def wheels(tmp_path):
    """A folder with birdinfer's own wheel and all that it needs for ONNX Runtime."""
    folder = tmp_path / "wheels"
    write_wheel(folder, f"birdinfer-{package.__version__}", "py3-none-linux_x86_64", NEEDS)
    write_wheel(folder, "msgspec-0.20.0", "cp312-cp312-manylinux_2_28_x86_64")
    write_wheel(folder, "onnxruntime-1.23.0", "cp312-cp312-manylinux_2_27_x86_64.manylinux_2_28_x86_64", ["protobuf"])
    write_wheel(folder, "protobuf-6.0", "cp39-abi3-manylinux2014_x86_64")
    write_wheel(folder, "numpy-2.4.0", "cp312-cp312-manylinux_2_28_x86_64")
    return folder


@pytest.fixture
def packed(tmp_path, wheels):
    """``packed(bundle, engine="openvino")`` -> what was packed into submission/x."""

    def run(bundle: Path, **settings) -> Packed:
        settings = {"engine": "onnxruntime", "owner": "someone", "wheel_folders": (wheels,), **settings}
        out = tmp_path / "submission" / "x"
        return pack(PackSettings(bundle=bundle, out=out, competition=competition("birdclef-2026"), **settings))

    return run


class TestTheDataSet:
    def test_is_flat_and_holds_the_bundle_and_the_wheels_that_kaggle_lacks(self, packed, bundle):
        done = packed(bundle)
        assert {name for name, _ in done.files} == {
            *("manifest.json", "fold0.onnx", "fold1.onnx", "dataset-metadata.json", OWN),
            "msgspec-0.20.0-cp312-cp312-manylinux_2_28_x86_64.whl",
            "onnxruntime-1.23.0-cp312-cp312-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
            "protobuf-6.0-cp39-abi3-manylinux2014_x86_64.whl",
        }
        assert done.missing_wheels == []
        assert done.wheels_command == ""
        assert not_uploaded(done.dataset) == []

    def test_predicts_as_the_bundle_does(self, packed, bundle):
        assert Bundle.load(packed(bundle).dataset).manifest == Bundle.load(bundle).manifest

    def test_sizes_are_those_on_the_disk_largest_first(self, packed, bundle):
        done = packed(bundle)
        sizes = [size for _, size in done.files]
        assert sizes == sorted(sizes, reverse=True)
        assert done.size_bytes == sum(path.stat().st_size for path in done.dataset.iterdir())

    def test_what_the_manifest_does_not_need_stays_behind_and_is_named(self, packed, make_bundle):
        folder = make_bundle()
        (folder / "notes.txt").write_text("mine")
        (folder / "old").mkdir()
        (folder / "old" / "fold9.onnx").write_bytes(b"")
        done = packed(folder)
        assert done.left_behind == ["notes.txt", "old/fold9.onnx"]
        assert not {"notes.txt", "old", "fold9.onnx"} & {name for name, _ in done.files}

    def test_graphs_for_other_programs_stay_behind(self, packed, make_bundle):
        folder = make_bundle()
        manifest = Bundle.load(folder).manifest
        (folder / "fold0.waveform.onnx").write_bytes((folder / "fold0.onnx").read_bytes())
        other = Graph("fold0.waveform.onnx", manifest.members[0].graphs["fp32"].sha256)
        save_manifest(folder, msgspec.structs.replace(manifest, for_other_hosts=(other,)))
        done = packed(folder)
        assert done.left_behind == ["fold0.waveform.onnx"]
        assert Bundle.load(done.dataset).manifest.for_other_hosts == ()

    def test_graphs_in_folders_come_to_the_top(self, packed, make_bundle):
        folder = nested(make_bundle(), {"fold0.onnx": "deep/er/fold0.onnx"})
        done = packed(folder)
        assert [path for path in done.dataset.iterdir() if path.is_dir()] == []
        assert Bundle.load(done.dataset).manifest.members[0].graphs["fp32"].file == "fold0.onnx"

    def test_holds_the_graph_of_a_head_over_windows(self, packed, make_bundle):
        folder = add_sequence_head(make_bundle(members=1))
        done = packed(nested(folder, {"sequence.onnx": "deep/sequence.onnx"}))
        assert {name for name, _ in done.files} >= {"fold0.onnx", "sequence.onnx"}
        assert Bundle.load(done.dataset).manifest.members[0].sequence.graph.file == "sequence.onnx"

    @pytest.mark.parametrize(
        ("name", "packed_name"),
        [
            ("b/fold0.onnx", "fold0-2.onnx"),
            ("b/FOLD0.onnx", "FOLD0-2.onnx"),
            ("datapackage.json", "datapackage-2.json"),
            ("kernel-metadata.json", "kernel-metadata-2.json"),
            ("fold 1 & 2.onnx", "fold_1_2.onnx"),
            ("@PaxHeader", "PaxHeader"),
            ("Grünspecht.onnx", "Grunspecht.onnx"),
            ("\u9ce5.onnx", "file.onnx"),
            ("e\u0301.onnx", "e.onnx"),
            ("x" * 200 + ".onnx", "x" * 100 + ".onnx"),
            ("a__b.c+d-e.onnx", "a__b.c+d-e.onnx"),
        ],
    )
    def test_a_name_that_kaggle_would_not_take_is_changed_and_reported(self, packed, make_bundle, name, packed_name):
        folder = nested(make_bundle(), {"fold0.onnx": "a/fold0.onnx", "fold1.onnx": name})
        done = packed(folder)
        assert not_uploaded(done.dataset) == []
        assert done.renamed == ({name: packed_name} if Path(name).name != packed_name else {})
        members = Bundle.load(done.dataset).manifest.members
        assert [member.graphs["fp32"].file for member in members] == ["fold0.onnx", packed_name]

    @given(st.lists(st.text(min_size=1, max_size=150), max_size=20, unique=True))
    def test_any_names_become_different_ones_that_kaggle_takes(self, names):
        found = packed_names(names)
        assert list(found) == names
        assert all(re.fullmatch("[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,149}", name) for name in found.values())
        assert len({name.lower() for name in found.values()} - NEVER_UPLOADED - {"manifest.json"}) == len(names)

    def test_tables_of_steps_travel_along(self, packed, make_bundle):
        folder = make_bundle()
        (folder / "tables").mkdir()
        (folder / "tables" / "prior.csv").write_text("site,comcuc\nA,0.5\n")
        manifest = Bundle.load(folder).manifest
        step = PriorShift(table="tables/prior.csv")
        save_manifest(
            folder, msgspec.structs.replace(manifest, post=msgspec.structs.replace(manifest.post, steps=(step,)))
        )
        done = packed(folder)
        assert (done.dataset / "prior.csv").read_bytes() == (folder / "tables" / "prior.csv").read_bytes()
        assert Bundle.load(done.dataset).manifest.post.steps[0].table == "prior.csv"

    def test_a_bundle_with_a_missing_graph_is_not_packed(self, packed, make_bundle, tmp_path):
        folder = make_bundle()
        (folder / "fold1.onnx").unlink()
        with pytest.raises(BundleError, match=r"fold1.onnx: is missing from the bundle"):
            packed(folder)
        assert not (tmp_path / "submission").exists()

    def test_more_than_kaggle_takes_is_refused(self, packed, bundle, monkeypatch, tmp_path):
        monkeypatch.setattr("birdinfer.kaggle.pack.DATASET_LIMIT_BYTES", 1_000)
        with pytest.raises(BundleError, match=r"makes a data set of .* GB - Kaggle takes"):
            packed(bundle)
        assert list((tmp_path / "submission").iterdir()) == []


class TestTheSpecies:
    def test_fewer_than_the_years_are_reported(self, packed, bundle):
        done = packed(bundle)
        assert done.lacking == ("the bundle knows 4 species, birdclef-2026 asks for 234: 230 would hold a constant")
        assert not done.accepts_lacking
        for options in (("--missing-species", "prior"), ("--missing-species=0.1",)):
            assert packed(bundle, options=options).accepts_lacking

    def test_the_years_number_is_enough(self, packed, make_bundle):
        assert packed(make_bundle(labels=tuple(f"species{n}" for n in range(234)))).lacking == ""

    def test_a_sample_says_which_ones_and_is_kept_for_the_dry_run(self, packed, bundle, tmp_path):
        sample = write_sample(tmp_path / "s.csv", ("houspa", *LABELS), 2026)
        done = packed(bundle, sample=sample)
        assert "1 of its species are not in the bundle: houspa" in done.lacking
        assert (done.dataset.parent / "sample_submission.csv").read_bytes() == sample.read_bytes()
        assert packed(bundle, sample=write_sample(tmp_path / "s.csv", LABELS[::-1], 2026)).lacking == ""

    @pytest.mark.parametrize(
        ("labels", "year", "words"),
        [(("houspa",), 2026, "it scores none that is asked for"), (LABELS, 2022, "give --year")],
    )
    def test_a_sample_of_something_else_is_refused(self, packed, bundle, tmp_path, labels, year, words):
        with pytest.raises(MetadataError, match=words):
            packed(bundle, sample=write_sample(tmp_path / "s.csv", labels, year))


def nested(folder: Path, moves: dict[str, str]) -> Path:
    """The bundle with its graphs under other names."""
    for old, new in moves.items():
        (folder / new).parent.mkdir(parents=True, exist_ok=True)
        (folder / old).rename(folder / new)
    text = (folder / "manifest.json").read_text()
    for old, new in moves.items():
        text = text.replace(f'"{old}"', f'"{new}"')
    (folder / "manifest.json").write_text(text)
    return folder


class TestWheels:
    def test_those_of_the_engine_are_asked_for(self, packed, bundle):
        assert [each.requirement for each in packed(bundle, engine="openvino").missing_wheels] == ["openvino"]
        assert [each.requirement for each in packed(bundle, engine="openvino:bf16").missing_wheels] == ["openvino"]
        assert packed(bundle, engine="onnxruntime:int8").missing_wheels == []

    def test_auto_asks_for_both_engines(self, packed, bundle, wheels):
        write_wheel(wheels, "openvino-2025.1", "cp312-cp312-manylinux2014_x86_64")
        names = {name.partition("-")[0] for name, _ in packed(bundle, engine="auto").files}
        assert {"onnxruntime", "openvino"} <= names

    def test_a_missing_one_is_reported_with_the_command_that_gets_it_and_the_rest_is_packed(
        self, packed, bundle, wheels
    ):
        next(wheels.glob("onnxruntime-*")).unlink()
        write_wheel(wheels, "onnxruntime-1.23.0", "cp311-cp311-manylinux_2_28_x86_64")
        done = packed(bundle)
        (missing,) = done.missing_wheels
        assert missing.requirement == "onnxruntime>=1.20"
        assert missing.needed_by == "birdinfer"
        assert "is for Python 3.11, Kaggle runs 3.12" in missing.reason
        assert "pip download" in done.wheels_command
        assert done.wheels_command.endswith(" --dest=wheels 'onnxruntime>=1.20'")
        assert Bundle.load(done.dataset)

    def test_a_gpu_engine_is_refused(self, packed, bundle):
        with pytest.raises(ConfigError, match="cuda:fp16 needs a GPU, submissions run without"):
            packed(bundle, engine="cuda:fp16")

    def test_a_download_is_asked_again_for_what_the_first_one_needs(
        self, packed, bundle, wheels, tmp_path, monkeypatch
    ):
        index = tmp_path / "index"
        index.mkdir()
        for path in [*wheels.glob("onnxruntime-*"), *wheels.glob("protobuf-*")]:
            path.rename(index / path.name)
        asked = []

        def fetched(requirements, into, image):
            asked.append(list(requirements))
            for requirement in requirements:
                (found,) = index.glob(f"{requirement.partition('>')[0]}-*")
                (into / found.name).write_bytes(found.read_bytes())
            return ""

        monkeypatch.setattr(wheel_sources, "download", fetched)
        done = packed(bundle, download=True)
        assert asked == [["onnxruntime>=1.20"], ["protobuf"]]
        assert done.missing_wheels == []

    def test_a_download_that_fails_is_reported_in_pips_words(self, packed, bundle, wheels, monkeypatch):
        next(wheels.glob("protobuf-*")).unlink()
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        done = packed(bundle, download=True)
        assert done.download_problem == "No matching distribution found for protobuf"
        assert [each.requirement for each in done.missing_wheels] == ["protobuf"]


class TestBirdinfersOwnWheel:
    def test_the_copy_holds_what_the_wheel_is_made_of(self):
        root = wheel_sources.checkout()
        wheel = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
        assert set(wheel["force-include"]) | set(wheel["packages"]) == set(wheel_sources._SOURCES)

    @pytest.fixture
    def built(self, tmp_path, monkeypatch):
        """Built from the checkout, as on a machine of this kind."""
        root = wheel_sources.checkout()
        assert root == Path(package.__file__).parents[1]

        def build(system="Linux"):
            into = tmp_path / "built"
            into.mkdir()
            with monkeypatch.context() as patch:
                patch.setattr(platform, "system", lambda: system)
                return wheel_sources.build(root, into, kaggle_image())

        return build

    @pytest.mark.skipif(
        platform.machine() != "x86_64" or sys.platform != "linux", reason="needs Kaggle's kind of machine"
    )
    def test_is_built_from_a_copy_and_its_kernel_loads_with_kaggles_glibc(self, built):
        kernels = Path(package.__file__).parent / "features" / "kernels"
        before = {path: path.stat().st_mtime_ns for path in kernels.iterdir() if path.is_file()}
        wheel = built()
        assert {path: path.stat().st_mtime_ns for path in kernels.iterdir() if path.is_file()} == before
        assert incompatibility(wheel, kaggle_image()) == ""
        names = zipfile.ZipFile(wheel.path).namelist()
        assert {"birdinfer/features/kernels/log_mel.so", "birdinfer/kaggle/kaggle_image.toml"} <= set(names)

    def test_elsewhere_is_a_pure_one_that_runs_on_kaggle(self, built):
        wheel = built(system="Darwin")
        assert wheel.path.name == f"birdinfer-{package.__version__}-py3-none-any.whl"
        assert incompatibility(wheel, kaggle_image()) == ""
        assert "birdinfer/features/kernels/log_mel.so" not in zipfile.ZipFile(wheel.path).namelist()

    def test_a_build_that_fails_is_one_line(self, tmp_path, monkeypatch):
        failed = subprocess.CompletedProcess([], 1, "", "  building\nERROR: hatchling is broken\n\n")
        monkeypatch.setattr(wheel_sources, "_run", lambda command: failed)
        with pytest.raises(OutputError, match="birdinfer's wheel: hatchling is broken - try it yourself: pip wheel"):
            wheel_sources.build(Path(package.__file__).parents[1], tmp_path / "into", kaggle_image())

    def test_without_a_checkout_it_is_missing_like_any_other(self, packed, bundle, wheels, monkeypatch):
        (wheels / OWN).unlink()
        monkeypatch.setattr(wheel_sources, "checkout", lambda: None)
        (missing,) = packed(bundle).missing_wheels
        assert missing.requirement == f"birdinfer=={package.__version__}"

    def test_an_older_one_in_a_given_folder_is_not_taken(self, packed, bundle, wheels, monkeypatch, tmp_path):
        (wheels / OWN).unlink()
        write_wheel(wheels, "birdinfer-0.0.1")
        fresh = read_wheel(write_wheel(tmp_path / "fresh", f"birdinfer-{package.__version__}"))
        monkeypatch.setattr(wheel_sources, "build", lambda *_: fresh)
        assert (packed(bundle).dataset / fresh.path.name).is_file()

    def test_one_that_lies_in_a_given_folder_is_taken_instead(self, packed, bundle, wheels, monkeypatch):
        monkeypatch.setattr(wheel_sources, "build", lambda *_: pytest.fail("there was no need to build"))
        assert read_wheel(packed(bundle).dataset / OWN).requires == read_wheel(wheels / OWN).requires


class TestMetadata:
    def test_are_those_that_kaggles_client_reads(self, packed, bundle):
        done = packed(bundle, title="birdinfer five folds")
        dataset = json.loads((done.dataset / "dataset-metadata.json").read_text())
        kernel = json.loads((done.kernel / "kernel-metadata.json").read_text())
        assert dataset == {
            "id": "someone/birdinfer-five-folds",
            "title": "birdinfer five folds",
            "licenses": [{"name": "other"}],
        }
        assert kernel["id"] == "someone/birdinfer-five-folds-submission"
        assert kernel["id"].partition("/")[2] == slug(kernel["title"])
        assert (kernel["enable_internet"], kernel["enable_gpu"], kernel["is_private"]) == (False, False, True)
        assert kernel["dataset_sources"] == [dataset["id"]]
        assert kernel["competition_sources"] == ["birdclef-2026"]
        assert (done.kernel / kernel["code_file"]).is_file()

    def test_are_read_back_as_the_pages_to_push_to(self, packed, bundle):
        done = packed(bundle, title="birdinfer five folds")
        pages = read_pages(done.dataset, done.kernel)
        assert pages == ("someone/birdinfer-five-folds", "someone/birdinfer-five-folds-submission", "birdclef-2026")

    def test_without_an_account_nothing_can_be_pushed(self, packed, bundle):
        done = packed(bundle, owner="YOUR_NAME")
        with pytest.raises(ConfigError, match="was packed without an account - pack again with --owner NAME"):
            read_pages(done.dataset, done.kernel)

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"title": "short"}, "the title 'short' has 5 characters - Kaggle allows 6 to 50"),
            ({"title": "x" * 40}, "the notebook's title"),
            ({"title": "ééé!!!!"}, "the address 'eee' has 3 characters"),
            ({"owner": "Some Body"}, "'Some Body' is no account's name"),
            ({"owner": "some/body"}, "'some/body' is no account's name"),
        ],
    )
    def test_what_kaggle_would_refuse_is_refused_before_anything_is_written(
        self, packed, bundle, tmp_path, settings, words
    ):
        with pytest.raises(ConfigError, match=words):
            packed(bundle, **settings)
        assert not (tmp_path / "submission").exists()

    @pytest.mark.parametrize("name", ["x", "Fünf Falten", "a" * 80, "run_7-b", "-"])
    def test_the_usual_title_is_one_that_kaggle_takes(self, packed, make_bundle, name):
        folder = make_bundle()
        save_manifest(folder, msgspec.structs.replace(Bundle.load(folder).manifest, name=name))
        done = packed(folder)
        assert read_pages(done.dataset, done.kernel).dataset == f"someone/{slug(usual_title(name))}"

    @pytest.mark.parametrize(
        ("file", "content", "words"),
        [
            ("kernel/kernel-metadata.json", "{", "is no JSON"),
            ("kernel/kernel-metadata.json", "[]", "holds no names and values"),
            ("dataset/dataset-metadata.json", "{}", "its metadata lack 'id'"),
            ("dataset/dataset-metadata.json", '{"id": "someone/else-where"}', "does not mount someone/else-where"),
            ("dataset/dataset-metadata.json", None, "is missing - birdinfer kaggle pack makes it"),
        ],
    )
    def test_damaged_metadata_are_named(self, packed, bundle, file, content, words):
        done = packed(bundle)
        path = done.dataset.parent / file
        path.unlink() if content is None else path.write_text(content)
        with pytest.raises(BirdinferError, match=words):
            read_pages(done.dataset, done.kernel)


class TestTheFolder:
    def test_an_older_submission_is_replaced_whole(self, packed, bundle):
        stray = packed(bundle).dataset / "stray.txt"
        stray.write_text("left over")
        packed(bundle)
        assert not stray.exists()

    def test_anything_else_is_never_touched(self, packed, bundle, tmp_path):
        mine = tmp_path / "submission" / "x" / "mine.txt"
        mine.parent.mkdir(parents=True)
        mine.write_text("mine")
        with pytest.raises(OutputError, match="holds other things than a packed submission - choose another folder"):
            packed(bundle)
        assert mine.read_text() == "mine"

    def test_the_budget_leaves_some_minutes_of_the_competitions(self, packed, bundle):
        assert "85" in (packed(bundle).kernel / "birdinfer.py").read_text()

    def test_a_budget_beyond_the_competitions_is_refused(self, packed, bundle):
        with pytest.raises(ConfigError, match="allows 90 minutes"):
            packed(bundle, budget_minutes=91)


class TestWhatKaggleWouldNotTake:
    def test_folders_and_names_of_its_own_are_named(self, tmp_path):
        (tmp_path / "graphs").mkdir()
        (tmp_path / "kernel-metadata.json").write_text("{}")
        (tmp_path / "dataset-metadata.json").write_text("{}")
        (tmp_path / "fold0.onnx").write_bytes(b"")
        (tmp_path / "lost.onnx").symlink_to(tmp_path / "nowhere")
        (tmp_path / "a&b.onnx").write_bytes(b"")
        assert dict(not_uploaded(tmp_path)) == {
            "a&b.onnx": "has a name that Kaggle may refuse: it takes letters, digits and . _ + - up to 150 characters",
            "graphs": "is a folder: Kaggle's client leaves folders out",
            "kernel-metadata.json": "has a name that Kaggle's client reserves for itself",
            "lost.onnx": "is no file",
        }
