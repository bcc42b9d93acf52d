import json
import platform
import subprocess
import sys
import zipfile
from pathlib import Path

import msgspec
import pytest
from made_wheels import write_wheel

import birdinfer as package
from birdinfer.bundle import Bundle, save_manifest
from birdinfer.errors import BirdinferError, BundleError, ConfigError, OutputError
from birdinfer.kaggle import wheel_sources
from birdinfer.kaggle.competitions import competition
from birdinfer.kaggle.flat_bundle import not_uploaded
from birdinfer.kaggle.image import kaggle_image
from birdinfer.kaggle.metadata import read_pages, slug, usual_title
from birdinfer.kaggle.pack import Packed, PackSettings, pack
from birdinfer.kaggle.wheels import read_wheel, why_not
from birdinfer.manifest import Graph
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
        settings = {"engine": "onnxruntime", "owner": "somebody", "wheel_folders": (wheels,), **settings}
        return pack(bundle, tmp_path / "submission" / "x", PackSettings(competition("birdclef-2026"), **settings))

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

    @pytest.mark.parametrize("other", ["b/fold0.onnx", "b/FOLD0.onnx"])
    def test_names_that_would_meet_at_the_top_are_refused(self, packed, make_bundle, other):
        folder = nested(make_bundle(), {"fold0.onnx": "a/fold0.onnx", "fold1.onnx": other})
        with pytest.raises(BundleError, match=r"would both be fold0.onnx|would both be FOLD0.onnx"):
            packed(folder)

    def test_a_name_that_kaggles_client_keeps_to_itself_is_refused(self, packed, make_bundle):
        folder = nested(make_bundle(), {"fold0.onnx": "datapackage.json"})
        with pytest.raises(BundleError, match="has a name that Kaggle's client keeps to itself"):
            packed(folder)

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

    def test_a_missing_one_is_told_with_the_command_that_gets_it_and_the_rest_is_packed(self, packed, bundle, wheels):
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

    def test_a_download_that_fails_is_told_in_pips_words(self, packed, bundle, wheels, monkeypatch):
        next(wheels.glob("protobuf-*")).unlink()
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        done = packed(bundle, download=True)
        assert done.download_problem == "No matching distribution found for protobuf"
        assert [each.requirement for each in done.missing_wheels] == ["protobuf"]


class TestBirdinfersOwnWheel:
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
        kernels = Path(package.__file__).parent / "kernels"
        before = {path: path.stat().st_mtime_ns for path in kernels.iterdir() if path.is_file()}
        wheel = built()
        assert {path: path.stat().st_mtime_ns for path in kernels.iterdir() if path.is_file()} == before
        assert why_not(wheel, kaggle_image()) == ""
        names = zipfile.ZipFile(wheel.path).namelist()
        assert {"birdinfer/kernels/log_mel.so", "birdinfer/kaggle/kaggle_image.toml"} <= set(names)

    def test_elsewhere_is_a_pure_one_that_runs_on_kaggle(self, built):
        wheel = built(system="Darwin")
        assert wheel.path.name == f"birdinfer-{package.__version__}-py3-none-any.whl"
        assert why_not(wheel, kaggle_image()) == ""
        assert "birdinfer/kernels/log_mel.so" not in zipfile.ZipFile(wheel.path).namelist()

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
            "id": "somebody/birdinfer-five-folds",
            "title": "birdinfer five folds",
            "licenses": [{"name": "other"}],
        }
        assert kernel["id"] == "somebody/birdinfer-five-folds-submission"
        assert kernel["id"].partition("/")[2] == slug(kernel["title"])
        assert (kernel["enable_internet"], kernel["enable_gpu"], kernel["is_private"]) == (False, False, True)
        assert kernel["dataset_sources"] == [dataset["id"]]
        assert kernel["competition_sources"] == ["birdclef-2026"]
        assert (done.kernel / kernel["code_file"]).is_file()

    def test_are_read_back_as_the_pages_to_push_to(self, packed, bundle):
        done = packed(bundle, title="birdinfer five folds")
        pages = read_pages(done.dataset, done.kernel)
        assert pages == ("somebody/birdinfer-five-folds", "somebody/birdinfer-five-folds-submission", "birdclef-2026")

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
        assert read_pages(done.dataset, done.kernel).dataset == f"somebody/{slug(usual_title(name))}"

    @pytest.mark.parametrize(
        ("file", "content", "words"),
        [
            ("kernel/kernel-metadata.json", "{", "is no JSON"),
            ("kernel/kernel-metadata.json", "[]", "holds no names and values"),
            ("dataset/dataset-metadata.json", "{}", "its metadata lack 'id'"),
            ("dataset/dataset-metadata.json", '{"id": "somebody/else-where"}', "does not mount somebody/else-where"),
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
        assert dict(not_uploaded(tmp_path)) == {
            "graphs": "is a folder: Kaggle's client leaves folders out",
            "kernel-metadata.json": "has a name that Kaggle's client keeps to itself",
            "lost.onnx": "is no file",
        }
