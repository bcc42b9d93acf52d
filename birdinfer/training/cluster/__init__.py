"""Training on a cluster: what is asked of SLURM, the scripts of its jobs, and SLURM itself.

    resources -> options of sbatch    --.
    templates -> a job's script       ---> arrays -> slurm -> the numbers of jobs

Nothing of a run is pickled and sent: a job is a command line and a recipe that lies in the run's folder.
"""
