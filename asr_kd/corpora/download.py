"""LibriSpeech and Mini LibriSpeech through Lhotse's downloads."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from tarfile import TarError
from urllib.error import URLError

from lhotse.recipes.librispeech import MINI_LIBRISPEECH, download_librispeech

from asr_kd.storage import UserError

#: Corpus name -> part specs of train, dev and test.
DEFAULT_PARTS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "mini_librispeech": (("train-clean-5",), ("dev-clean-2:1/2",), ("dev-clean-2:2/2",)),
    "train-clean-100": (("train-clean-100",), ("dev-clean",), ("test-clean",)),
    "librispeech": (("train-clean-100", "train-clean-360", "train-other-500"), ("dev-clean",), ("test-clean",)),
}


def fetch(folder: Path, specs: Iterable[str]) -> Path:
    """Download and unpack the parts that are not there yet; returns the root of the LibriSpeech layout.

    Raises:
        UserError: no network, or a damaged archive; says where to put the files by hand.
    """
    root = folder / "LibriSpeech"
    for part in dict.fromkeys(spec.partition(":")[0] for spec in specs):
        if any((root / part).glob("*/*/*.trans.txt")) and not (folder / f"{part}.tar.gz").exists():
            continue  # unpacked by hand
        page = "https://www.openslr.org/31" if part in MINI_LIBRISPEECH else "https://www.openslr.org/12"
        try:
            download_librispeech(folder, part)
        except (URLError, TimeoutError, ConnectionError, TarError, EOFError) as error:
            raise UserError(
                f"downloading {part} failed ({error}): check the network and run this again, or fetch "
                f"{part}.tar.gz from {page} by hand and unpack it so that {root / part} exists"
            ) from None
    return root
