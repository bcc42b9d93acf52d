# Runs ${step[@]} and looks after it. It continues by itself where it was stopped, in the same log, when the job is
# preempted, at its time limit, and, twice, when it was killed: out of memory, say. It does not after scancel, nor when
# birdinfer has refused something or failed.

task=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID # one task's SLURM_JOB_ID is the number of the whole array, too
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1} # srun does not take it from sbatch since SLURM 22.05

cancelled='' limit='' signalled=yes
trap 'signalled=yes cancelled=yes' TERM
trap 'signalled=yes limit=yes; scancel --signal=TERM "$task" || true' USR1

# SLURM requeues what it preempts, unless the partition has a GraceTime: then it signals the step alone, and leaves to us
# what becomes of the job when the step has saved and left.
is_preempted() {
    [[ $(scontrol show job "$task") == *PreemptTime=[0-9]* ]]
}

again() {
    echo "birdinfer: $1, task $task continues where it was saved"
    scontrol requeue "$task" || echo "birdinfer: it cannot be requeued here: submit it again, with --resume"
}

"${step[@]}" &
work=$!
# A signal ends the waiting, not the work.
while [[ $signalled ]]; do
    signalled='' code=0
    wait "$work" || code=$?
done

if [[ ! $cancelled && $limit && $code != 0 ]]; then
    again "time limit"
elif [[ ! $cancelled && $code == 143 ]] && is_preempted; then
    again "preempted"
elif [[ ! $cancelled && ($code == 137 || $code == 253) && ${SLURM_RESTART_COUNT:-0} -lt 2 ]]; then
    again "killed (exit code $code)"
fi
exit "$code"
