"""multivae imported part by part: the same names as without, and little of what its other parts need."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

PROBE = """
import json, sys
{first}
import multivae.data.datasets, multivae.models
names = {{p: {{n: getattr(m, n).__module__ for n in m.__all__}} for p, m in
         (("data", multivae.data.datasets), ("models", multivae.models))}}
print(json.dumps(names, sort_keys=True))
"""
LIGHT = """
import sys

import repro.baselines.models, repro.baselines.joint
print([m for m in ("scipy.stats", "nltk", "pandas", "matplotlib", "torchvision", "sklearn") if m in sys.modules])
"""


def answer(code: str) -> str:
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert found.returncode == 0, found.stderr
    return found.stdout.strip().splitlines()[-1]


@pytest.mark.slow
def test_the_names_are_those_of_multivae() -> None:
    plain = json.loads(answer(PROBE.format(first="")))
    assert json.loads(answer(PROBE.format(first="import repro.baselines"))) == plain
    assert set(plain["models"]) >= {"MVAE", "MMVAE", "AutoModel"}


def test_what_other_parts_need_stays_away() -> None:
    assert answer(LIGHT) == "[]"


def test_a_part_that_is_not_there() -> None:
    code = "import repro.baselines, multivae.models\nprint(hasattr(multivae.models, 'Nothing'))"
    assert answer(code) == "False"
