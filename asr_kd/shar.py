"""``python -m asr_kd.shar``: the short name of ``asr_kd.corpora.shar``."""

import runpy

if __name__ == "__main__":
    runpy.run_module("asr_kd.corpora.shar", run_name="__main__", alter_sys=True)
