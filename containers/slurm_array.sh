#!/bin/bash
# One participant a job:
#   DATASET=/data/study OUT=/data/study/derivatives/dynamicdps IMAGE=$HOME/dynamicdps-bids.sif
#   export DATASET OUT IMAGE
#   sbatch --array=0-$(($(find "$DATASET" -maxdepth 1 -type d -name 'sub-*' | wc -l) - 1)) containers/slurm_array.sh
# and, when all have ended, the table and the page:
#   apptainer run --bind "$DATASET" --bind "$OUT" "$IMAGE" "$DATASET" "$OUT" group
#SBATCH --job-name=dynamicdps
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=02:00:00
#SBATCH --output=dynamicdps-%A-%a.log
set -euo pipefail

mapfile -t subjects < <(find "$DATASET" -maxdepth 1 -type d -name 'sub-*' -printf '%f\n' | LC_ALL=C sort)
mkdir -p "$OUT"

# The scans of one participant one after the other, each with all cores.
apptainer run --cleanenv --bind "$DATASET:$DATASET:ro" --bind "$OUT" "$IMAGE" "$DATASET" "$OUT" participant \
    --participant-label "${subjects[$SLURM_ARRAY_TASK_ID]#sub-}" \
    --n-cpus "$SLURM_CPUS_PER_TASK" --omp-nthreads "$SLURM_CPUS_PER_TASK" --mem-mb "$SLURM_MEM_PER_NODE"
