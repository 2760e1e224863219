"""Transcripts as the corpora stage writes them."""

import gzip
import json
from pathlib import Path


def write_transcripts(data: Path, **texts: list[str]) -> Path:
    data.mkdir(parents=True, exist_ok=True)
    for split, lines in texts.items():
        with gzip.open(data / f"cuts_{split}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps({"supervisions": [{"text": text}]}) + "\n" for text in lines)
    return data
