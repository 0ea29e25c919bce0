"""Every row of the list of faults has its test at the command line."""

import ast
import re
from collections import Counter
from pathlib import Path

NUM_ROWS = 52


def test_each_of_the_52_faults_has_a_test():
    rows = Counter()
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                match = re.match(r"test_fault_(\d+)_", node.name)
                if match:
                    rows[int(match[1])] += 1
    assert sorted(rows) == list(range(1, NUM_ROWS + 1))
