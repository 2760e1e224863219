"""``python -m asr_kd.accuracy``: the short name of ``asr_kd.score.accuracy``."""

import runpy

if __name__ == "__main__":
    runpy.run_module("asr_kd.score.accuracy", run_name="__main__", alter_sys=True)
