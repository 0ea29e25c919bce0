"""Runs brats-evaluation and panoptica over pairs of masks, in a Python that has them.

    python oracles.py PAIRS.npz OUT.json

The file holds `NAME|prediction`, `NAME|reference` (bool) and `NAME|spacing_mm`.
"""

import contextlib
import io
import json
import sys
import tempfile
import warnings
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
from brats_evaluation import metrics_parser
from panoptica import Panoptica_Evaluator

warnings.simplefilter("ignore")
LARGE_MM3, MIN_DICE = 20.0, 0.1  # the parser's defaults


def run(pairs):
    """Columns of the challenge's table and of panoptica's default, by pair."""
    config = files("brats_evaluation").joinpath("configs", "config_mets.yaml")
    challenge = Panoptica_Evaluator.load_from_config(str(config))
    default = Panoptica_Evaluator.load_from_config("panoptica_evaluator_default")
    subjects, quality = [], {}
    for name in sorted({key.split("|")[0] for key in pairs}):
        masks = [pairs[f"{name}|{k}"] for k in ("prediction", "reference")]
        options = {"voxelspacing": tuple(map(float, pairs[f"{name}|spacing_mm"]))}
        groups = challenge.evaluate(*(np.uint8(3 * m) for m in masks), **options)
        found = {group: result.to_dict(True) for group, result in groups.items()}
        subjects.append({**found, "subject_name": name})
        result = default.evaluate(*(np.uint8(m) for m in masks), **options)
        quality[name] = result["ungrouped"].to_dict()
    with tempfile.TemporaryDirectory() as folder:
        source, table = Path(folder, "all.json"), Path(folder, "all.csv")
        content = {"metrics": subjects, "missings": []}
        source.write_text(json.dumps(content, default=float))
        metrics_parser.parse_mets_results(str(source), LARGE_MM3, MIN_DICE, str(table))
        rows = pd.read_csv(table).set_index("subject_id")
    return {
        name: {
            **rows.loc[name].to_dict(),
            **{k: quality[name][k] for k in ("tp", "fp", "fn", "rq", "sq", "pq")},
        }
        for name in quality
    }


if __name__ == "__main__":
    with contextlib.redirect_stdout(io.StringIO()):
        found = run(np.load(sys.argv[1]))
    Path(sys.argv[2]).write_text(json.dumps(found, default=float))
