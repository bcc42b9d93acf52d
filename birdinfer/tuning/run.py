"""A whole search from one call: in this process, or by several workers, each a process with a device of its own.

A worker's process starts from the study's folder; ``python -m birdinfer.tuning.run STUDY_DIR ...`` is one.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from birdinfer.errors import ConfigError
from birdinfer.runs.layout import LOGS_DIR, RECIPE_FILE, SPACE_FILE, STUDY_FILE
from birdinfer.training.devices import check_devices
from birdinfer.training.distributed import from_environment
from birdinfer.training.launch.local import CPU, Job, Send, parse_devices, receive, run_child, run_side_by_side, sending
from birdinfer.training.recipe.toml import load_recipe
from birdinfer.tuning.callbacks import TuningCallback
from birdinfer.tuning.search import Search, TuningSettings, begin, load_question, plan_search
from birdinfer.tuning.space import load_space
from birdinfer.tuning.worker import Forward, TuningResult, result_of, work

__all__ = ["TuningCallback", "TuningResult", "TuningSettings", "tune", "worker_devices"]


def tune(settings: TuningSettings, callback: TuningCallback | None = None) -> TuningResult:
    """Search for a recipe's best values, until as many trials are finished as were asked for.

    Called again with the same settings, here or on another machine, it is a further worker of the study, or continues
    it.

    Raises:
        BirdinferError: recipe, space, data or the study's folder cannot be used, or one trial after another fails.
        KeyboardInterrupt, SystemExit: a stop was requested; trials are released, to be resumed.
    """
    if from_environment().n > 1:
        raise ConfigError("torchrun", "starts several processes of one trial", "use --devices or --workers instead")
    callback, devices = callback or TuningCallback(), settings.devices
    search = plan_search(settings)
    if len(devices) == 1 and not devices[0].isdecimal():
        return work(search, callback)
    names = parse_devices(",".join(devices))
    check_devices(names)
    search = dataclasses.replace(search, device=CPU if CPU in names else "cuda")
    return _search_side_by_side(search, names, callback)


def worker_devices(workers: int | None, devices: Sequence[str] | None = None, device: str = "auto") -> tuple[str, ...]:
    """A device for each of several workers; they share devices where there are more workers.

    Without ``workers`` each device has one. ``devices`` are GPU numbers, or ``cpu`` repeatedly; without them ``device``
    says whether all GPUs are taken, or shares of the cores.
    """
    if workers is not None and workers < 1:
        raise ConfigError("--workers", f"is {workers}, at least 1 is needed")
    n_gpus = 0 if device == CPU or devices is not None else torch.cuda.device_count()
    found = tuple(devices or map(str, range(n_gpus))) or (CPU,)
    check_devices(found)
    return tuple(found[index % len(found)] for index in range(workers or len(found)))


def _search_side_by_side(search: Search, devices: Sequence[str], callback: TuningCallback) -> TuningResult:
    begin(search, Forward(callback))
    trials = search.open_trials()
    if not trials.is_done():
        given = {name: getattr(search, name) for name in _OPTIONS}
        words = [f"--{name}={value}" for name, value in given.items() if value is not None]
        command = (sys.executable, "-m", "birdinfer.tuning.run", str(search.study_dir), *words)
        logs = search.study_dir / LOGS_DIR
        jobs = [Job(f"worker {n}", command, logs / f"worker{n}.log") for n in range(len(devices))]

        def on_event(worker: str, event: str, arguments: list[Any]) -> None:
            if event in {"on_trial_start", "on_trial_end"}:  # with the number of a trial, which the study knows
                records = trials.records()
                record = records[arguments[0]]
                if event == "on_trial_start":
                    callback.on_trial_start(record)
                else:
                    callback.on_trial_end(record, records)
            elif event == "on_warning":
                callback.on_warning(f"{worker}: {arguments[0]}")
            else:
                receive(callback, event, arguments, {"on_trial_step": (int, int, int, float | None)})

        problems = run_side_by_side(jobs, devices, callback, on_event)
        for worker, problem in problems.items():
            if problem:
                suffix = ", the others have done its work" if trials.is_done() else ""
                callback.on_warning(f"{worker} failed: {problem}{suffix}")
    return result_of(search, trials)


_OPTIONS = ("trials", "sampler", "pruner", "seed", "data", "device", "cache_dir", "storage")
"""What a worker needs to know of a search besides the study's folder."""


def main(arguments: list[str]) -> int:
    """Be one worker of a study that has begun; the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("study_dir", type=Path)
    for name in _OPTIONS:
        kind = {"trials": int, "seed": int, "data": Path, "cache_dir": Path}.get(name, str)
        parser.add_argument(f"--{name}", type=kind)
    asked = vars(parser.parse_args(arguments))

    def begin_work(send: Send) -> None:
        study_dir = asked["study_dir"]
        recipe, question = load_recipe(study_dir / RECIPE_FILE), load_question(study_dir / STUDY_FILE)
        space = load_space(study_dir / SPACE_FILE, recipe)
        search = Search(recipe=recipe, space=space, folds=question.folds, repeats=question.repeats, **asked)

        def send_number(event: str, *arguments: Any) -> None:
            is_of_trial = event in {"on_trial_start", "on_trial_end"}
            send(event, *([arguments[0].number] if is_of_trial else arguments))

        work(search, sending(TuningCallback, send_number))

    return run_child(begin_work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
