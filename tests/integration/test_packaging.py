"""The wheel works on its own: built, installed in a clean environment, its scripts run on a real server."""

from __future__ import annotations

import configparser
import importlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from redisq.broker.scripts import SCRIPT_NAMES

ROOT = Path(__file__).parents[2]

USE_IT = """
import sys
from redisq import RedisQ
from redisq.broker import commands
from redisq.broker.scripts import SCRIPT_NAMES, Scripts
assert "site-packages" in sys.modules["redisq"].__file__, sys.modules["redisq"].__file__

app = RedisQ("wheel", url=sys.argv[1])

@app.task
def hello(name: str) -> None: ...

job = hello.delay("you")
keys, run = app.keys("wheel"), app.connector.execute
claimed = run(commands.claim(keys, worker="w", limit=1, lease=30_000_000, max_crashes=3)).deliveries[0]
assert claimed.id == job.id
assert run(commands.extend(keys, [(claimed.id, claimed.fence)], lease=30_000_000)) == {}
assert run(commands.find(keys, job.id)).state == "processing"
assert run(commands.settle(keys, [commands.Settlement("ack", claimed.id, claimed.fence)])) == []
run(commands.wake(keys))
assert run(commands.inspect(keys)).stats["processed_requests"] == 1
assert len(SCRIPT_NAMES) == len({Scripts()[name].sha for name in SCRIPT_NAMES})
app.close()
print("used:", *SCRIPT_NAMES)
"""


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(300)
def test_the_built_wheel_runs_its_scripts_in_a_clean_environment(redis_url: str, tmp_path: Path) -> None:
    run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, ROOT, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "redisq").rglob("*.lua")}
    assert sources <= set(names)
    assert {"redisq/py.typed", "redisq_contrib/py.typed"} <= set(names)
    (entry_points,) = (name for name in names if name.endswith("/entry_points.txt"))
    declared = configparser.ConfigParser()
    declared.read_string(zipfile.ZipFile(wheel).read(entry_points).decode())
    # Celery finds its Redis result backend under the schemes of the transport.
    assert set(declared["celery.result_backends"]) == {"redisq", "redisqs"}
    for target in declared["celery.result_backends"].values():
        module, _, name = target.partition(":")
        assert hasattr(importlib.import_module(module), name)
    assert not [name for name in names if name.startswith(("tests/", "docs/", "benchmarks/"))]
    run(sys.executable, "-m", "venv", tmp_path / "clean", cwd=tmp_path)
    python = tmp_path / "clean" / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", wheel, cwd=tmp_path)
    (tmp_path / "use_it.py").write_text(USE_IT)
    printed = run(python, "use_it.py", redis_url, cwd=tmp_path)
    assert printed.split() == ["used:", *SCRIPT_NAMES]
    assert "redisq, version" in run(tmp_path / "clean" / "bin" / "redisq", "--version", cwd=tmp_path)
