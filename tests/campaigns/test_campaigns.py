"""Short versions of the campaigns, in processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_spoilt_datasets_are_refused_or_read_rightly(tmp_path):
    script = HERE / "spoilt_datasets.py"
    done = subprocess.run(
        [sys.executable, str(script), "--trials", "25", "--real", "1",
         "--commands", "pack,append,train"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(HERE.parent.parent)},
    )  # fmt: skip
    assert done.returncode == 0, f"ended by {done.returncode}: {done.stderr[-2000:]}"
    report = json.loads(done.stdout)
    assert report["datasets"] == 25 and report["ended"]["pack: 3"] > 5 and not report["wrong"]
