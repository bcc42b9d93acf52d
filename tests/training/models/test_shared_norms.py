"""Norms over several processes: threads with collectives of their own stand for them, so that every bit is at hand."""

import copy
import threading

import pytest
import torch
from torch import distributed

from birdinfer.training.models.batch_norm import SyncedNorms, freeze_norms, sync_norms
from birdinfer.training.models.timm_import import import_timm

N = 2


class Together:
    """all_gather and all_reduce between N threads."""

    def __init__(self):
        self._barrier, self._values = threading.Barrier(N, timeout=20), {}

    def exchange(self, value):
        self._values[threading.current_thread().name] = value.detach().clone()
        self._barrier.wait()
        all_gather = [self._values[str(rank)] for rank in range(N)]
        self._barrier.wait()
        return all_gather

    def all_gather(self, parts, value):
        for part, theirs in zip(parts, self.exchange(value), strict=True):
            part.copy_(theirs)

    def all_reduce(self, value):
        value.copy_(torch.stack(self.exchange(value)).sum(0))


@pytest.fixture
def side_by_side(monkeypatch):
    """Runs ``work(rank)`` in N threads that can talk as processes do; what each returns."""

    def run(work):
        together, found = Together(), {}
        monkeypatch.setattr(distributed, "all_gather", together.all_gather)
        monkeypatch.setattr(distributed, "all_reduce", together.all_reduce)
        threads = [
            threading.Thread(target=lambda rank=rank: found.update({rank: work(rank)}), name=str(rank))
            for rank in range(N)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [found[rank] for rank in range(N)]

    return run


def network(kind):
    torch.manual_seed(0)
    timm = import_timm()
    networks = {
        "1d": lambda: torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2)),
        "2d": lambda: torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU()),
        "unscaled": lambda: torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4, affine=False)),
        "timm": lambda: timm.create_model("test_efficientnet", num_classes=2),
    }
    return networks[kind]().double().train()


def batch(kind):
    generator = torch.Generator().manual_seed(1)
    shape = (3,) if kind == "1d" else (3, 32, 32)
    return torch.randn(8, *shape, generator=generator, dtype=torch.float64) * 3 + 1


def step(learner, plain, inputs, rank=0, n=1):
    """Slopes of a loss that treats every window unlike, its mean over the process's windows; and the buffers after."""
    out = learner(inputs[rank::n])
    weights = torch.arange(1.0, 9.0, dtype=torch.float64)[rank::n]
    (out.flatten(1).square().mean(1) * weights).mean().backward()
    return out.detach(), [p.grad for p in plain.parameters()], [b.clone() for b in plain.buffers()]


@pytest.mark.parametrize("kind", ["1d", "2d", "unscaled", "timm"])
def test_parts_of_a_batch_are_normalised_learn_and_are_measured_as_the_whole(kind, side_by_side):
    """In double precision, so that nothing but the formula counts. Slopes are averaged as several processes do."""
    plain, inputs = network(kind), batch(kind)
    copies = [copy.deepcopy(plain) for _ in range(N)]
    outs, slopes, buffers = zip(
        *side_by_side(lambda rank: step(sync_norms(copies[rank], N), copies[rank], inputs, rank, N)), strict=True
    )
    whole_out, whole_slopes, whole_buffers = step(plain, plain, inputs)
    assert whole_buffers
    for rank in range(N):
        torch.testing.assert_close(outs[rank], whole_out[rank::N], rtol=1e-9, atol=1e-10)
        for mine, whole in zip(buffers[rank], whole_buffers, strict=True):
            torch.testing.assert_close(mine, whole, rtol=1e-9, atol=1e-10)
    for each, whole in zip(zip(*slopes, strict=True), whole_slopes, strict=True):
        torch.testing.assert_close(torch.stack(each).mean(0), whole, rtol=1e-7, atol=1e-9)


def test_without_sharing_they_would_not_be():
    """What the test above would miss if parts were normalised by themselves and that made no difference."""
    plain, inputs = network("2d"), batch("2d")
    out, _, _ = step(plain, plain, inputs)
    alone, _, _ = step(plain, plain, inputs, 0, N)
    assert (alone - out[0::N]).abs().max() > 1e-3


def test_norms_that_hold_still_ask_no_one():
    """Nor does prediction: no collective is there to be called."""
    plain, inputs = network("2d"), batch("2d")
    freeze_norms(plain)
    expected = plain(inputs)
    assert torch.equal(sync_norms(plain, N)(inputs), expected)
    assert torch.equal(sync_norms(plain.eval(), N)(inputs), expected)


def test_nfnets_weights_are_standardised_by_each_for_itself():
    """It calls batch_norm, too, on its weights: nothing of a batch is in them, and no one is asked."""
    layer = import_timm().layers.ScaledStdConv2dSame(3, 4, 3).train()
    inputs = torch.randn(2, 3, 8, 8)
    assert torch.equal(SyncedNorms(layer, N)(inputs), layer(inputs))


def test_a_network_without_norms_stays_itself():
    plain = torch.nn.Linear(2, 2)
    assert sync_norms(plain, N) is plain


def test_parameters_and_names_stay_the_networks_own():
    plain = network("timm")
    names, before = list(plain.state_dict()), [id(x) for x in plain.parameters()]
    shared = sync_norms(plain, N)
    assert [id(x) for x in shared.parameters()] == before
    assert list(plain.state_dict()) == names


def test_half_precision_is_summed_in_single(side_by_side):
    """Means of 100,000 values near 300 are beyond fp16's range of sums; bf16 has three digits."""
    norm = torch.nn.BatchNorm2d(1)
    inputs = (torch.randn(4, 1, 160, 160, generator=torch.Generator().manual_seed(2)) + 300).bfloat16()
    copies = [copy.deepcopy(norm) for _ in range(N)]
    outs = side_by_side(lambda rank: SyncedNorms(copies[rank], N)(inputs[rank::N]))
    assert outs[0].dtype == torch.bfloat16
    torch.testing.assert_close(
        copies[0].running_mean, inputs.double().mean().float().reshape(1) * 0.1, rtol=1e-5, atol=0
    )
