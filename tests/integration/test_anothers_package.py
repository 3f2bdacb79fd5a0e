"""The name `redisq` on the public index is another project's: a worker says when that is installed too."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.processes import ROOT, WorkerProcess


@pytest.mark.parametrize("options", [(), ("-w", "2")], ids=["one process", "under a supervisor"])
@pytest.mark.parametrize("installed", [True, False])
def test_worker_warns_once_of_another_projects_package(
    installed: bool, options: tuple[str, ...], redis_url: str, tmp_path: Path
) -> None:
    info = tmp_path / "packages" / "redisq-3.1.dist-info"
    info.mkdir(parents=True)
    if installed:
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: redisq\nVersion: 3.1\n")
        (info / "RECORD").write_text("redisq/__init__.py,,\nredisq/queue.py,,\n")
    (tmp_path / "bot.py").write_text("from redisq import RedisQ\napp = RedisQ('bot')\n@app.task\ndef f(): pass\n")
    path = f"{ROOT}:{info.parent}"
    worker = WorkerProcess(redis_url, tmp_path, "-b", *options, app="bot:app", folder_to_run_in=tmp_path, PYTHONPATH=path)
    assert worker.wait() == 0
    text = "WARNING - the package redisq 3.1 in "
    assert worker.text().count(text) == int(installed), worker.text()
    assert ("pip uninstall redisq" in worker.text()) is installed
