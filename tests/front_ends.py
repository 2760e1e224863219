"""Front ends by their flags."""

from pathlib import Path
from typing import Any

from asr_kd.features.config import Config
from asr_kd.features.extractors import make_front_end
from asr_kd.features.front_end import FrontEnd


def front_end(**flags: Any) -> FrontEnd:
    return make_front_end(Config(Path(), Path(), **flags))
