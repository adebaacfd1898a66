#!/usr/bin/env bash
# Start the processes of one stage on all nodes of a Slurm job: E2H_LAUNCHER=deploy/slurm/launch.sh.
#
# `e2h run` runs on the first node. A stage that trains in several processes is started through this
# script, with `-m resources.worker SPEC`, in place of `accelerate launch`. All nodes must see the same
# home (E2H_HOME) and the same installation. If a node fails, srun ends the others.
# Not run on a cluster by us; docs/rl.md says what was.
set -euo pipefail
: "${E2H_ACCELERATE_CONFIG:?set it to deploy/accelerate/fsdp.yaml, or another file of accelerate config}"
per_node="${E2H_PROCESSES_PER_NODE:-${SLURM_GPUS_ON_NODE:?ask for GPUs, or set E2H_PROCESSES_PER_NODE}}"
export E2H_MAIN_HOST E2H_WORLD E2H_PYTHON="${E2H_PYTHON:-python}"
E2H_MAIN_HOST="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
E2H_WORLD="$((per_node * SLURM_JOB_NUM_NODES))"
exec srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --kill-on-bad-exit=1 --wait=30 bash -c '
  exec "$E2H_PYTHON" -m accelerate.commands.launch --config_file "$E2H_ACCELERATE_CONFIG" \
    --num_machines "$SLURM_JOB_NUM_NODES" --machine_rank "$SLURM_PROCID" --num_processes "$E2H_WORLD" \
    --main_process_ip "$E2H_MAIN_HOST" --main_process_port "${E2H_MAIN_PORT:-29500}" "$@"' launch "$@"
