import os
import types

import pytest
import torch

from birdinfer.errors import ConfigError
from birdinfer.training.devices import (
    autocast,
    choose_device,
    deterministic,
    memory_advice,
    peak_gpu_mb,
    precision_for,
)
from birdinfer.training.recipe.schema import LoopConfig

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def gpu(monkeypatch):
    """A machine that says it has two GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "H200")
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)


class TestChooseDevice:
    def test_unknown(self):
        with pytest.raises(ConfigError, match="is 'tpu', allowed are auto, cpu, cuda"):
            choose_device("tpu", print)

    def test_no_gpu(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        said = []
        assert choose_device("auto", said.append) == CPU
        assert said[0].startswith("training on the CPU with")
        with pytest.raises(ConfigError, match="finds no GPU"):
            choose_device("cuda", print)

    def test_each_process_takes_a_gpu_of_its_own(self, gpu):
        said = []
        assert [choose_device("auto", said.append, rank) for rank in (0, 1)] == [
            torch.device("cuda", 0),
            torch.device("cuda", 1),
        ]
        assert said == ["training on H200"] * 2
        with pytest.raises(ConfigError, match="starts process 2 of a machine with 2 GPUs - lower --nproc-per-node"):
            choose_device("cuda", print, 2)


class TestDeterministic:
    def test_holds_within_and_not_after(self, monkeypatch):
        monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
        monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
        with deterministic(True):
            assert torch.are_deterministic_algorithms_enabled()
            assert not torch.backends.cudnn.benchmark
            assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        assert not torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cudnn.benchmark
        with deterministic(False):
            assert not torch.are_deterministic_algorithms_enabled()

    def test_a_step_that_has_no_such_algorithm_is_named(self):
        text = "cumsum_cuda_kernel does not have a deterministic implementation, but you set ... You can"
        match = r"loop\.deterministic: is true: cumsum_cuda_kernel"
        with pytest.raises(ConfigError, match=match) as refused, deterministic(True):
            raise RuntimeError(text)
        assert str(refused.value).endswith("set it to false")
        with pytest.raises(RuntimeError, match="something else"), deterministic(True):
            raise RuntimeError("something else")


class TestPrecision:
    @pytest.mark.parametrize(
        ("amp", "capability", "expected"),
        [
            ("auto", (9, 0), "bf16"),
            ("auto", (8, 0), "bf16"),
            ("auto", (7, 5), "fp16"),  # T4
            ("auto", (7, 0), "fp16"),  # V100
            ("auto", (6, 0), "fp16"),  # P100
            ("bf16", (7, 5), "bf16"),
            ("fp16", (9, 0), "fp16"),
            ("off", (9, 0), "fp32"),
        ],
    )
    def test_on_a_gpu(self, monkeypatch, amp, capability, expected):
        """Torch's own function is asked; by default it says yes to bf16 that is emulated, too."""
        properties = types.SimpleNamespace(major=capability[0], minor=capability[1])
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
        monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda device: True)
        monkeypatch.setattr(torch.version, "cuda", "12.4")
        assert precision_for(GPU, amp) == expected

    @pytest.mark.parametrize(("amp", "expected"), [("auto", "fp32"), ("bf16", "bf16"), ("off", "fp32")])
    def test_on_a_cpu(self, amp, expected):
        assert precision_for(CPU, amp) == expected

    def test_fp16_on_a_cpu_is_refused(self):
        with pytest.raises(ConfigError, match=r"loop\.amp: is fp16, a CPU has none"):
            precision_for(CPU, "fp16")

    def test_autocast_computes_in_it(self):
        x = torch.ones(2, 2)
        with autocast(CPU, "bf16"):
            assert (x @ x).dtype == torch.bfloat16
        with autocast(CPU, "fp32"):
            assert (x @ x).dtype == torch.float32


def test_a_cpu_has_no_gpu_memory():
    assert peak_gpu_mb(CPU) is None


class TestMemoryAdvice:
    """Out of GPU memory says which knob to turn."""

    def advice(self, config, error, n_processes=1):
        with pytest.raises(ConfigError) as caught, memory_advice(config, n_processes):
            raise error
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def test_more_parts(self):
        error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. GPU 0 has\nmore")
        reported = self.advice(LoopConfig(batch_size=48, accumulate=2), error)
        assert "loop.batch_size: is 48, 24 windows at once do not fit into the memory (CUDA out of memory)" in reported
        assert "--set loop.accumulate=3" in reported

    def test_several_processes_hold_a_share_each_and_can_share_what_is_advised(self):
        """A batch of 32 in 4 parts: the 8 windows of each of 4 processes have no third."""
        reported = self.advice(LoopConfig(batch_size=24, accumulate=2), torch.OutOfMemoryError("CUDA out of memory"), 4)
        assert "is 24, 3 windows at once do not fit" in reported
        assert "--set loop.accumulate=3" in reported
        reported = self.advice(LoopConfig(batch_size=32, accumulate=2), torch.OutOfMemoryError("CUDA out of memory"), 4)
        assert "--set loop.accumulate=4" in reported

    def test_nothing_left_to_cut(self):
        reported = self.advice(LoopConfig(batch_size=4, accumulate=4), torch.OutOfMemoryError("CUDA out of memory"))
        assert "take a smaller backbone or window" in reported

    def test_a_cpus_memory(self):
        error = RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: ...")
        assert "--set loop.accumulate=2" in self.advice(LoopConfig(batch_size=8), error)

    def test_other_errors_pass(self):
        with pytest.raises(RuntimeError, match="shapes"), memory_advice(LoopConfig()):
            raise RuntimeError("shapes differ")
