"""Downloads LibriSpeech and Mini LibriSpeech through Lhotse."""

import errno
import zlib
from collections.abc import Iterable
from http.client import HTTPException
from pathlib import Path
from tarfile import TarError

from lhotse.recipes.librispeech import MINI_LIBRISPEECH, download_librispeech

from asr_kd.common.errors import UserError

#: Corpus -> parts of train, dev and test.
DEFAULT_PARTS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "mini_librispeech": (("train-clean-5",), ("dev-clean-2:1/2",), ("dev-clean-2:2/2",)),
    "train-clean-100": (("train-clean-100",), ("dev-clean",), ("test-clean",)),
    "librispeech": (("train-clean-100", "train-clean-360", "train-other-500"), ("dev-clean",), ("test-clean",)),
}


def fetch(folder: Path, specs: Iterable[str]) -> Path:
    """Download and unpack missing parts; return the root of the LibriSpeech layout.

    Raises:
        UserError: the network fails or an archive is damaged; the message says how to place the files by hand.
    """
    root = folder / "LibriSpeech"
    for part in dict.fromkeys(spec.partition(":")[0] for spec in specs):
        number = 31 if part in MINI_LIBRISPEECH else 12
        archive = folder / f"{part}.tar.gz"
        try:
            download_librispeech(folder, part)
        except (TarError, EOFError, zlib.error) as error:
            raise UserError(f"{archive} is damaged ({error}): delete it and run the stage again") from None
        except (OSError, HTTPException) as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise
            raise UserError(
                f"downloading {part} failed ({error}): check the network and run the stage again; or download "
                f"{archive.name} from https://www.openslr.org/{number} by hand, unpack it in {folder} and create the "
                f"empty file {root / part / '.completed'}"
            ) from None
    return root
