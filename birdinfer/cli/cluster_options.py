"""The options that hand a command to a cluster instead of running it here; the same for ``train`` and ``tune``."""

from pathlib import Path
from typing import Annotated, NamedTuple

import typer

_PANEL = "Cluster"

ClusterName = Annotated[
    str | None,
    typer.Option("--cluster", help="slurm: submit as jobs instead of running here.", rich_help_panel=_PANEL),
]
Partition = Annotated[str | None, typer.Option(help="Of the jobs; the cluster's own default.", rich_help_panel=_PANEL)]
Gres = Annotated[str | None, typer.Option(help="What a job needs, as gpu:1 or gpu:V100:1.", rich_help_panel=_PANEL)]
TimeLimit = Annotated[
    str | None,
    typer.Option("--time", help="A job's limit, as 12:00:00; it is requeued and goes on.", rich_help_panel=_PANEL),
]
Memory = Annotated[str | None, typer.Option("--mem", help="A job's memory, as 32G.", rich_help_panel=_PANEL)]
Cpus = Annotated[int | None, typer.Option("--cpus-per-task", min=1, help="Cores of a process.", rich_help_panel=_PANEL)]
Further = Annotated[
    list[str] | None,
    typer.Option("--sbatch", help="Any other option of sbatch, as account=birds; repeatable.", rich_help_panel=_PANEL),
]
Setup = Annotated[
    list[str] | None,
    typer.Option(
        "--setup", help="A line of shell before the work, as 'module load cuda'; repeatable.", rich_help_panel=_PANEL
    ),
]
Nodes = Annotated[
    int | None, typer.Option("--nodes", min=1, help="Nodes that train one fold together.", rich_help_panel=_PANEL)
]
ProcessesPerNode = Annotated[
    int | None,
    typer.Option("--processes", min=1, help="Processes of a node, a GPU each, for one fold.", rich_help_panel=_PANEL),
]
Template = Annotated[
    Path | None,
    typer.Option("--template", help="A job's script, a changed copy of one of train/slurm/.", rich_help_panel=_PANEL),
]
PrintOnly = Annotated[
    bool, typer.Option("--print", help="Show what would be submitted, submit nothing.", rich_help_panel=_PANEL)
]

CLUSTER_OPTIONS = {
    "cluster": "--cluster",
    "partition": "--partition",
    "gres": "--gres",
    "time_limit": "--time",
    "memory": "--mem",
    "cpus": "--cpus-per-task",
    "sbatch": "--sbatch",
    "setup": "--setup",
    "print_only": "--print",
    "nodes": "--nodes",
    "processes": "--processes",
    "template": "--template",
}
"""How each is spelled, by its name in a command's function."""

CLUSTER_PARAMETERS = frozenset(CLUSTER_OPTIONS)
"""What a job's own command leaves out."""


class ClusterOptions(NamedTuple):
    """What was asked of the cluster; None where nothing was. The fields are called as the parameters are."""

    cluster: str | None = None
    partition: str | None = None
    gres: str | None = None
    time_limit: str | None = None
    memory: str | None = None
    cpus: int | None = None
    sbatch: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    print_only: bool = False
    nodes: int | None = None
    processes: int | None = None
    template: Path | None = None
