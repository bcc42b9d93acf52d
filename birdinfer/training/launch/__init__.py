"""Training in other processes: on several devices of this machine, or as jobs of a SLURM cluster.

    worker -> local             a process a fold, or a worker of a search; it reports as lines of JSON
    slurm -> submit             arrays of jobs; a fold a task

Nothing is pickled: a process starts from the files in the run's folder, a job is a command that one could type.
"""
