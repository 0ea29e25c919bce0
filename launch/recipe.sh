#!/usr/bin/env bash
# Is nnU-Net's whole augmentation better than mirrored images alone? Equal steps, three seeds.
# bmjax prepare RAW STORE --spacing-mm 2 2 2 --patch-size 64 64 64 --batch-size 2
# bash launch/recipe.sh STORE WORKDIR [STEPS]     runs that are there are kept or gone on with
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
store=$1 workdir=$2 steps=${3:-400}
off=(--augment.spatial.p-rotation 0 --augment.spatial.p-scaling 0 --augment.p-noise 0 --augment.p-blur 0
  --augment.p-brightness 0 --augment.p-contrast 0 --augment.p-low-resolution 0
  --augment.p-gamma-inverted 0 --augment.p-gamma 0)
for seed in 0 1 2; do
  for arm in full flips; do
    flags=(--workdir "$workdir/$arm-$seed" --data.store "$store" --seed "$seed"
      --optimizer.num-steps "$steps" --fit.validate-every "$steps" --fit.checkpoint-every 100)
    if [ "$arm" = flips ]; then flags+=("${off[@]}"); fi
    bmjax train configs/real_2mm.py "${flags[@]}"
  done
done
python - "$workdir" << 'PRINT'
"""Mean held-out Dice of each run, and by seed what the whole recipe gains."""
import json, sys
from pathlib import Path
from statistics import mean, stdev

def dice(arm, seed, region):
    text = (Path(sys.argv[1]) / f"{arm}-{seed}" / "validation" / "summary.json").read_text()
    return json.loads(text)["regions"][region]["dice"]["mean"]

for region in ("WT", "TC", "ET"):
    full, flips = ([dice(arm, seed, region) for seed in range(3)] for arm in ("full", "flips"))
    gain = [a - b for a, b in zip(full, flips)]
    for name, values in (("full", full), ("flips", flips), ("full - flips", gain)):
        print(f"{region} {name:12} mean {mean(values):+.3f} sd {stdev(values):.3f}:", *(f"{v:.3f}" for v in values))
PRINT
