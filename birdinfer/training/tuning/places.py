"""Where the workers of one machine work: how many, and on which devices -> a device for each."""

import torch

from birdinfer.errors import ConfigError
from birdinfer.training.devices import check_devices
from birdinfer.training.side_by_side import CPU, parse_devices


def places(workers: int | None, devices: str | None, device: str) -> tuple[str, ...]:
    """A device for each worker, in turns where there are more workers than devices.

    Args:
        workers: how many; None: one for each device.
        devices: as ``--devices`` takes them; None: all GPUs, or shares of the cores where there is none.
        device: ``auto``, ``cpu`` or ``cuda``: what kind is taken where no devices are named.

    Returns:
        As :func:`~birdinfer.training.side_by_side.run_side_by_side` takes them.

    Raises:
        ConfigError: there are no such devices, or no workers.
    """
    if workers is not None and workers < 1:
        raise ConfigError("--workers", f"is {workers}, at least 1 is needed")
    there = parse_devices(devices) if devices is not None else _found(device)
    check_devices(there)
    return tuple(there[index % len(there)] for index in range(workers or len(there)))


def _found(device: str) -> tuple[str, ...]:
    n_gpus = 0 if device == CPU else torch.cuda.device_count()
    return tuple(map(str, range(n_gpus))) or (CPU,)
