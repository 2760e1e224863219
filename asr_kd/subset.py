"""``python -m asr_kd.subset``: the short name of ``asr_kd.corpora.subset``."""

import runpy

if __name__ == "__main__":
    runpy.run_module("asr_kd.corpora.subset", run_name="__main__", alter_sys=True)
