"""Pools of processes."""

import json
import logging
import os
import signal
import subprocess
import sys
import time

import pytest

from asr_kd.common import cli, parallel
from asr_kd.common.parallel import Workers, cpu_count, make_executor, run_all, run_stages
from asr_kd.common.storage import Stage, stage_figures

PARENT = """
import os, time
from asr_kd.common.parallel import make_executor
if __name__ == "__main__":
    executor = make_executor(1)
    print(executor.submit(os.getpid).result(), flush=True)
    executor.submit(time.sleep, 60)
    time.sleep(60)
"""

#: Its workers import this script, and so NumPy, before their threads are limited.
IMPORTS_FIRST = """
import numpy, threadpoolctl
from asr_kd.common.parallel import make_executor
if __name__ == "__main__":
    with make_executor(1) as executor:
        print([pool["num_threads"] for pool in executor.submit(threadpoolctl.threadpool_info).result()])
"""


def test_threads_are_limited_after_numpy_was_imported(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(IMPORTS_FIRST)
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, env=environment)
    assert set(json.loads(done.stdout)) == {1}


def test_workers_compute_with_one_thread_and_keep_order():
    with make_executor(2) as executor:
        results = dict(run_all(executor, abs, [-1, -2, 3], "test"))
        assert executor.submit(os.getenv, "OMP_NUM_THREADS").result() == "1"
    assert results == {0: 1, 1: 2, 2: 3}


def test_the_folder_for_temporary_files_may_have_a_long_name(tmp_path, monkeypatch):
    """A socket must not, and the server that forks processes listens at one in this folder."""
    script = tmp_path / "script.py"
    script.write_text(IMPORTS_FIRST)
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    subprocess.run([sys.executable, script], capture_output=True, check=True, env={**os.environ, "TMPDIR": str(folder)})


@pytest.mark.parametrize("idle", [False, True])
def test_a_stopped_worker_is_named_and_may_go_on(monkeypatch, caplog, idle):
    monkeypatch.setattr(parallel, "QUIET_SECONDS", 0.3)

    class GoOn(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            os.kill(worker, signal.SIGCONT)

    logging.getLogger().addHandler(handler := GoOn())
    try:
        with make_executor(1) as executor:
            worker = executor.submit(os.getpid).result()
            os.kill(worker, signal.SIGSTOP)
            if not idle:
                assert dict(run_all(executor, abs, [-1], "test")) == {0: 1}
    finally:
        logging.getLogger().removeHandler(handler)
    assert f"waits for process {worker}, which is stopped: `kill -CONT {worker}`" in caplog.text


def test_a_killed_worker_ends_the_stage_with_a_sentence():
    def work(_: Workers) -> None:
        with make_executor(1) as executor:
            os.kill(executor.submit(os.getpid).result(), signal.SIGKILL)
            list(run_all(executor, abs, [-1], "test"))

    with pytest.raises(SystemExit, match="error: a worker process was killed, perhaps"):
        cli.run(Workers, work, [])


def test_idle_cores_become_threads():
    for jobs, tasks in ((1, 3), (0, 1)):
        with make_executor(jobs, tasks=tasks) as executor:
            assert executor.submit(os.getenv, "OMP_NUM_THREADS").result() == str(cpu_count())


def test_stages_report_their_own_seconds(tmp_path):
    stages = [Stage("nap", tmp_path / str(number), {}) for number in range(2)]
    with make_executor(1) as executor:
        run_stages(executor, nap, [(stage, 0.4) for stage in stages if stage.begin()], "naps")
    for number in range(2):
        figures = stage_figures(tmp_path / str(number))
        assert figures["slept"] == 0.4 and 0.4 <= figures["seconds"] < 0.8


def nap(seconds):
    time.sleep(seconds)
    return {"slept": seconds}


def test_workers_end_with_a_killed_parent(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    for _ in range(100):
        state = alive(worker)
        if not state:
            break
        time.sleep(0.1)
    assert not alive(worker)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
