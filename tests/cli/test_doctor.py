import builtins
import importlib.util
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from birdinfer.cli import doctor as module
from birdinfer.cli.doctor import CORE, EXTRAS, Check, diagnose, doctor
from birdinfer.errors import InputNotFoundError

app = typer.Typer()
app.command()(doctor)

X86 = "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu avx2 avx512f avx512_vnni avx512_bf16 amx_tile\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm bf16\n"


@pytest.fixture
def installed(monkeypatch):
    """Makes the doctor believe that only the named distributions are installed."""

    def pretend(*names):
        monkeypatch.setattr(module, "_version", lambda name: "1.0" if name in names else "")

    return pretend


@pytest.fixture
def no_module(monkeypatch):
    """Makes the import of a module fail."""

    def pretend(module, error):
        true_import = builtins.__import__

        def fail(name, *arguments, **options):
            if name == module:
                raise error
            return true_import(name, *arguments, **options)

        monkeypatch.setattr(builtins, "__import__", fail)

    return pretend


@pytest.fixture
def kernel(monkeypatch):
    """What the files of /proc and /sys say."""

    def say(**texts):
        named = {module._CPU_INFO: "cpu", module._MEMORY_INFO: "memory", module._CGROUP_MEMORY: "cgroup"}
        monkeypatch.setattr(module, "_read", lambda path: texts.get(named[path], ""))

    return say


def found(checks, name):
    (check,) = [check for check in checks if check.name == name]
    return check


class TestPackages:
    def test_tables_are_those_of_pyproject(self):
        project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]

        def names(requirements):
            return tuple(re.match(r"[\w-]+", text)[0] for text in requirements if not text.startswith("birdinfer["))

        extras = {
            extra: names(texts)
            for extra, texts in project["optional-dependencies"].items()
            if extra not in {"dev", "docs"}
        }
        everywhere = [text for text in project["dependencies"] if ";" not in text]  # without those of one system
        assert names(everywhere) == CORE
        assert extras == EXTRAS

    def test_a_missing_extra_is_absent_with_the_command_that_installs_it(self, installed):
        installed(*CORE, "onnxruntime")
        check = found(module.check_packages(), "torch")
        assert check == Check("packages", "torch", "absent", "not installed", 'pip install "birdinfer[train]"')

    def test_a_missing_need_is_broken(self, installed):
        installed(*CORE[1:], "onnxruntime")
        check = found(module.check_packages(), "numpy")
        assert check == Check("packages", "numpy", "broken", "not installed", "pip install numpy")

    @pytest.mark.parametrize(
        ("there", "other"), [("onnxruntime", "onnxruntime-gpu"), ("onnxruntime-gpu", "onnxruntime")]
    )
    def test_one_onnxruntime_is_never_advised_beside_the_other(self, installed, there, other):
        installed(*CORE, there)
        assert found(module.check_packages(), other).hint == ""

    def test_versions_are_the_installed_ones(self):
        import numpy

        assert found(module.check_packages(), "numpy").found == numpy.__version__
        assert module._version("no-such-distribution") == ""


class TestEngines:
    def test_no_engine_is_a_warning_with_a_hint(self, installed):
        installed(*CORE)
        check, _ = module.check_engines()
        assert (check.status, check.hint) == ("warning", 'pip install "birdinfer[cpu]"')

    def test_openvino_alone_is_enough(self, installed, monkeypatch):
        pytest.importorskip("openvino")
        installed(*CORE, "openvino")
        assert [check.status for check in module.check_engines()][:1] == ["ok"]
        assert found(module.check_engines(), "OpenVINO").found.startswith("computes in fp32")
        monkeypatch.setattr("birdinfer.inference.engines.openvino.has_bf16", lambda: False)
        assert "this processor has no bf16" in found(module.check_engines(), "OpenVINO").found

    def test_an_openvino_that_cannot_be_used_is_a_warning(self, installed, monkeypatch):
        def broken():
            raise RuntimeError("no plugin\nfor CPU")

        installed(*CORE, "openvino")
        monkeypatch.setattr("birdinfer.inference.engines.openvino.has_bf16", broken)
        check = found(module.check_engines(), "OpenVINO")
        assert (check.status, check.found) == ("warning", "cannot be used (no plugin for CPU)")

    @pytest.mark.parametrize(("name", "status"), [("compiled", "ok"), ("numpy", "absent")])
    def test_the_front_end_says_whether_it_is_the_fast_one(self, installed, monkeypatch, name, status):
        installed(*CORE, "onnxruntime")
        monkeypatch.setattr("birdinfer.features.log_mel.front_end_name", lambda: name)
        assert found(module.check_engines(), "log-mel").status == status

    def test_both_onnxruntimes_are_a_warning(self, installed):
        installed(*CORE, "onnxruntime", "onnxruntime-gpu")
        check = found(module.check_engines(), "onnxruntime")
        assert check.status == "warning"
        assert "overwrite each other" in check.found
        assert check.hint.startswith("pip uninstall -y onnxruntime onnxruntime-gpu")

    def test_providers_are_named(self, installed):
        installed(*CORE, "onnxruntime")
        assert re.fullmatch(r"runs on (\w+, )*CPU", found(module.check_engines(), "ONNX Runtime").found)

    def test_an_onnxruntime_that_cannot_be_imported_is_a_warning(self, installed, no_module):
        installed(*CORE, "onnxruntime")
        no_module("onnxruntime", RuntimeError("undefined\nsymbol"))
        check = found(module.check_engines(), "ONNX Runtime")
        assert (check.status, check.found) == ("warning", "cannot be used (undefined symbol)")


class TestMachine:
    def test_cores_say_when_they_are_limited(self, monkeypatch):
        monkeypatch.setattr("birdinfer.system.cpu.available_cores", lambda: 2)
        monkeypatch.setattr(module.os, "cpu_count", lambda: 8)
        assert found(module.check_machine(), "cores").found == "2 of 8 (affinity or container limit)"
        monkeypatch.setattr(module.os, "cpu_count", lambda: 2)
        assert found(module.check_machine(), "cores").found == "2"

    @pytest.mark.parametrize(
        ("text", "features"),
        [
            (X86, ["AVX2", "AVX-512", "AVX-512 VNNI", "AVX-512 bf16", "AMX"]),
            (ARM, ["NEON", "dot product", "INT8 matrix product", "bf16"]),
            ("", []),
        ],
    )
    def test_processor_features(self, kernel, text, features):
        kernel(cpu=text)
        assert module.cpu_features() == features
        assert found(module.check_machine(), "fast paths").found == (", ".join(features) or "none known")

    def test_processor_name(self, kernel):
        kernel(cpu=X86)
        assert found(module.check_machine(), "processor").found.startswith("Some CPU (")
        kernel()
        assert re.match(r".+ \(.+\)", found(module.check_machine(), "processor").found)

    def test_memory_names_a_container_limit(self, kernel):
        kernel(memory="MemTotal: 1 kB\nMemAvailable:    2000000 kB\n", cgroup="4000000000\n")
        assert module._memory().endswith("GB, container limit 4.0 GB, 2.0 GB available")
        kernel(cgroup="max\n")
        assert "limit" not in module._memory()

    def test_memory_of_a_system_that_says_nothing(self, kernel, monkeypatch):
        kernel()
        monkeypatch.delattr(module.os, "sysconf")
        assert module._memory() == "unknown"

    def test_reads_the_kernels_files_where_there_are_any(self, tmp_path):
        (tmp_path / "cpuinfo").write_text("flags")
        assert module._read(tmp_path / "cpuinfo") == "flags"
        assert module._read(tmp_path / "nothing") == ""


class TestGpu:
    @pytest.fixture
    def card(self, monkeypatch):
        monkeypatch.setattr(module.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
        answer = subprocess.CompletedProcess([], 0, stdout="NVIDIA L4, 23034 MiB\n")
        monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: answer)

    def test_none_is_absent(self, monkeypatch):
        monkeypatch.setattr(module.shutil, "which", lambda _: None)
        assert found(module.check_machine(), "GPU").status == "absent"

    def test_a_card_that_onnxruntime_cannot_use_is_a_warning(self, card, installed):
        installed(*CORE, "onnxruntime")
        check = found(module.check_machine(), "GPU")
        assert (check.status, check.found) == ("warning", "NVIDIA L4, 23034 MiB, not used for prediction")
        assert check.hint == 'pip uninstall -y onnxruntime && pip install "birdinfer[gpu]"'

    def test_a_card_with_onnxruntime_gpu_is_ok(self, card, installed):
        installed(*CORE, "onnxruntime-gpu")
        assert found(module.check_machine(), "GPU").status == "ok"

    @pytest.mark.parametrize(
        ("built", "driver", "status", "words"),
        [
            ("None", "12.4", "warning", "torch is built for the CPU"),
            ("'13.0'", "12.4", "warning", "torch is built for CUDA 13.0, the driver knows up to 12.4"),
            ("'12.8'", "12.4", "ok", "torch is built for CUDA 12.8, the driver knows 12.4"),
            ("'12.8'", "", "ok", "the driver knows ?"),
        ],
    )
    def test_the_build_of_torch_is_held_against_the_driver(
        self, card, monkeypatch, tmp_path, built, driver, status, words
    ):
        (tmp_path / "version.py").write_text(f"__version__ = '2.13.0'\ncuda: Optional[str] = {built}\n")
        spec = importlib.util.spec_from_file_location("torch", tmp_path / "__init__.py")
        monkeypatch.setattr(module, "find_spec", lambda _: spec)
        text = f"| NVIDIA-SMI 550.1  Driver Version: 550.1  CUDA Version: {driver} |"
        monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, stdout=text))
        check = found(module.check_machine(), "training")
        assert (check.status, words in check.found) == (status, True)

    def test_without_a_card_the_build_of_torch_does_not_matter(self, monkeypatch):
        monkeypatch.setattr(module.shutil, "which", lambda _: None)
        assert "training" not in {check.name for check in module.check_machine()}

    def test_a_driver_that_does_not_answer_is_no_card(self, card, monkeypatch):
        def hang(*_, **__):
            raise subprocess.TimeoutExpired("nvidia-smi", 10)

        monkeypatch.setattr(module.subprocess, "run", hang)
        assert found(module.check_machine(), "GPU").status == "absent"


class TestAudio:
    def test_the_four_formats_of_the_field_are_read(self):
        checks = list(module.check_audio())
        assert found(checks, "reads").found == "OGG, FLAC, WAV, MP3"
        assert [check.status for check in checks] == ["ok", "ok"]

    def test_an_old_libsndfile_without_mp3_is_a_warning(self, monkeypatch):
        monkeypatch.setattr("soundfile.available_formats", lambda: {"OGG": "", "FLAC": "", "WAV": ""})
        check = found(module.check_audio(), "cannot read")
        assert (check.status, check.found, check.hint) == ("warning", "MP3", "pip install --upgrade soundfile")

    def test_a_missing_libsndfile_is_broken(self, no_module):
        no_module("soundfile", OSError("sndfile library not found"))
        (check,) = module.check_audio()
        assert (check.status, check.found) == ("broken", "sndfile library not found")


class TestDemoBundle:
    def test_a_sound_one_is_ok(self, monkeypatch, bundle):
        monkeypatch.setattr("birdinfer.inference.bundle.demo_bundle_path", lambda: bundle)
        (check,) = module.check_demo_bundle()
        assert check.status == "ok"
        assert re.match(r"\d models, 4 species \(", check.found)

    def test_a_damaged_one_is_a_warning(self, monkeypatch, bundle, tmp_path):
        (tmp_path / "manifest.json").write_bytes((bundle / "manifest.json").read_bytes())
        monkeypatch.setattr("birdinfer.inference.bundle.demo_bundle_path", lambda: tmp_path)
        (check,) = module.check_demo_bundle()
        assert check.status == "warning"
        assert "is missing from the bundle" in check.found
        assert check.hint

    def test_none_is_a_warning(self, monkeypatch):
        def missing():
            raise InputNotFoundError("demo_bundle", "this installation has no demo bundle", "build it")

        monkeypatch.setattr("birdinfer.inference.bundle.demo_bundle_path", missing)
        (check,) = module.check_demo_bundle()
        assert check[2:] == ("warning", "demo_bundle: this installation has no demo bundle", "build it")


class TestThreads:
    @pytest.mark.parametrize(
        ("value", "status", "words"),
        [
            ("1", "ok", "1"),
            ("0", "warning", "'0' is not a number of threads"),
            ("all", "warning", "'all' is not a number of threads"),
            ("4,2", "warning", "'4,2' is not a number of threads"),
            ("100000", "warning", "100000, more than there are cores"),
        ],
    )
    def test_odd_values_are_warnings(self, monkeypatch, value, status, words):
        for name in module.THREAD_VARIABLES:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        (check,) = module.check_threads()
        assert (check.status, check.found) == (status, words)
        assert check.hint == ("unset OMP_NUM_THREADS" if status == "warning" else "")


class TestDoctor:
    def test_this_installation_is_usable_and_every_line_is_aligned(self):
        result = CliRunner().invoke(app, [])
        assert result.exit_code == 0, result.output
        lines = [line for line in result.stdout.splitlines() if line.startswith("  ")]
        starts = {re.match(r"  \S+ +(?:ONNX Runtime|fast paths|cannot read|\S+) +", line).end() for line in lines}
        assert len(starts) == 1

    def test_json_holds_the_same_checks(self):
        report = json.loads(CliRunner().invoke(app, ["--json"]).stdout)
        assert report["usable"] is True
        assert {check["name"] for check in report["checks"]} >= {
            "python",
            "birdinfer",
            "numpy",
            "cores",
            "reads",
            "demo",
        }
        assert set(report["checks"][0]) == {"group", "name", "status", "found", "hint"}

    def test_a_broken_core_exits_with_3(self, installed):
        installed(*CORE[1:], "onnxruntime")
        result = CliRunner().invoke(app, [])
        assert result.exit_code == 3
        assert "birdinfer cannot be used as it is: 1 broken" in result.stdout
        assert json.loads(CliRunner().invoke(app, ["--json"]).stdout)["usable"] is False

    def test_what_stands_on_a_missing_package_is_not_looked_at(self, no_module):
        no_module("birdinfer.inference.bundle", ModuleNotFoundError("No module named 'msgspec'"))
        check = list(diagnose())
        broken = [each for each in check if each.status == "broken"]
        assert [(each.group, each.found) for each in broken] == [
            ("demo bundle", "not looked at (No module named 'msgspec')")
        ]

    @pytest.mark.parametrize(
        ("statuses", "words"),
        [(["ok", "absent"], "all is well"), (["warning"], "works, 1 warnings"), (["warning", "broken"], "1 broken")],
    )
    def test_the_last_line_is_a_summary(self, statuses, words, capsys):
        module._print_checks([Check("", "", status, "") for status in statuses])
        assert words in capsys.readouterr().out.splitlines()[-1]

    def test_torch_is_not_imported(self):
        import sys

        code = "import sys; from birdinfer.cli.doctor import diagnose; list(diagnose()); print('torch' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "False"
