"""Checks that a corpus in another language, in lower case and with tones, goes through the recipe to Table 1.

python tools/check_language.py --out /tmp/vietnamese
"""

from __future__ import annotations

import dataclasses
import itertools
import random
import re
import subprocess
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import yaml
from scipy.signal import resample_poly

from asr_kd.common.cli import run
from asr_kd.common.errors import UserError
from asr_kd.common.settings import Positive, Settings
from asr_kd.corpora.espeak import Espeak
from asr_kd.lang.folder import Lang
from asr_kd.score.collect import Results
from asr_kd.score.wer import read_hypotheses

ROOT = Path(__file__).parents[1]
#: What somebody does, to what, and how many, with words that differ by the tone alone (ma, má, mà, mả, mã, mạ).
SLOTS = (
    ("mẹ", "bà", "ông", "chị", "anh", "bạn", "cô", "thầy"),
    ("mua", "bán", "nấu", "thấy", "tìm", "ăn", "lấy", "để"),
    ("một", "hai", "ba", "bốn", "năm", "sáu", "bảy", "tám", "chín", "mười"),
    ("ma", "má", "mà", "mả", "mã", "mạ", "phở", "bánh", "cơm", "nước", "sữa", "đường"),
    ("hôm", "nay", "ngày", "trong", "ngoài", "nhà", "chợ", "quê", "với", "và"),
)
PHONE, VOWELS = re.compile("ng|nh|ch|tr|th|ph|kh|qu|."), "aăâeêioôơuưy"
TONES = {"\u0300": "2", "\u0309": "3", "\u0303": "4", "\u0301": "5", "\u0323": "6"}  # 1: no mark
SPEAKERS = {
    "train": ("", "m1", "m2", "m3", "m4", "m5", "m8", "f1", "f3", "f4"), "dev": ("m6", "f5"), "test": ("m7", "f2"),
}  # fmt: skip
PART_SPEAKERS = {"train": 100, "dev": 200, "test": 300}
CONF = {
    "corpora": {}, "features": {}, "hmm": {"leaves": 120}, "boundaries": {}, "graph": {},
    "teachers": {"preset": "tiny", "epochs": 4}, "soft_targets": {}, "student": {"preset": "tiny", "epochs": 4},
    "quarter_hard": {"preset": "tiny", "epochs": 2}, "quarter_student": {"preset": "tiny", "epochs": 2},
    "decode": {}, "accuracy": {}, "bundle": {"calibration": 10, "tolerance": 5}, "score": {}, "report": {},
}  # fmt: skip


@dataclasses.dataclass
class Config(Settings):
    """Make a small Vietnamese corpus, its lexicon and its text, and run the recipe on it; exit with 1 if it fails.

    The synthesiser of the embedded corpus speaks.  Some transcripts have a capital, some are decomposed (NFD), and the
    text for the language model is in upper case: --text lower makes them one.
    """

    out: Path
    """Folder for the corpus and the experiment."""
    sentences: Positive = 16
    """Sentences of each speaker."""
    max_wer: Positive = 60.0
    """Largest WER of the student in per cent."""


def pronounce(word: str) -> str:
    """Letters as phones, the tone as a digit after the first vowel: phở is ph ơ3."""
    plain, tone = "", "1"
    for letter in unicodedata.normalize("NFD", word):
        plain, tone = (plain, TONES[letter]) if letter in TONES else (plain + letter, tone)
    phones = PHONE.findall(unicodedata.normalize("NFC", plain))
    vowel = next(i for i, phone in enumerate(phones) if phone in VOWELS)
    return " ".join([*phones[:vowel], phones[vowel] + tone, *phones[vowel + 1 :]])


def sentences(seed: int) -> Iterator[str]:
    """Yield sentences of five to ten words, none of them twice."""
    generator, seen = random.Random(seed), set()
    while True:
        sentence = " ".join(word for slot in SLOTS for word in generator.sample(slot, generator.choice((1, 1, 2))))
        if sentence not in seen:
            seen.add(sentence)
            yield sentence


def spelt(sentence: str, number: int) -> str:
    """A sentence as people write it: every second one with a capital, every third one decomposed."""
    sentence = sentence.capitalize() if number % 2 else sentence
    return unicodedata.normalize("NFD", sentence) if number % 3 == 0 else sentence


def make_corpus(out: Path, per_speaker: int) -> None:
    """Write OUT/{train,dev,test} in LibriSpeech layout, lexiconp.txt, text.txt and conf.yaml."""
    stream, noise = sentences(0), np.random.default_rng(0)
    for part, variants in SPEAKERS.items():
        for speaker, variant in enumerate(variants, PART_SPEAKERS[part]):
            folder = out / part / str(speaker) / "1"
            folder.mkdir(parents=True, exist_ok=True)
            lines = []
            with Espeak(f"vi+{variant}" if variant else "vi", seed=speaker) as synthesiser:
                for number, sentence in enumerate(itertools.islice(stream, int(per_speaker))):
                    wave, _ = synthesiser.say(sentence, speed=130 + 5 * (number % 8))
                    samples = np.pad(resample_poly(wave / 32768, 320, 441), 3200)
                    samples += 1e-3 * noise.standard_normal(len(samples))
                    name = f"{speaker}-1-{number:04d}"
                    soundfile.write(folder / f"{name}.flac", samples, 16000)
                    lines.append(f"{name} {spelt(sentence, number)}\n")
            (folder / f"{speaker}-1.trans.txt").write_text("".join(lines), encoding="utf-8")
    words = sorted({word for slot in SLOTS for word in slot})
    lexicon = "".join(f"{word} 1.0 {pronounce(word)}\n" for word in words)
    (out / "lexiconp.txt").write_text(lexicon, encoding="utf-8")
    text = "".join(f"{sentence.upper()}\n" for sentence in itertools.islice(stream, 2000))
    (out / "text.txt").write_text(text, encoding="utf-8")
    lang = {"text": "lower", "lexicon": str(out / "lexiconp.txt")}
    (out / "conf.yaml").write_text(yaml.safe_dump({**CONF, "lang": lang}), encoding="utf-8")


def check(exp: Path, max_wer: float) -> None:
    """Raises UserError unless the table is complete, tones are phones, and words are composed and in lower case."""
    lang = Lang.load(exp / "lang")
    if not {"a1", "a2", "a3", "a4", "a5", "a6"} <= set(lang.phones):
        raise UserError(f"{exp}: the phones lack tones: {' '.join(lang.phones)}")
    hypotheses = read_hypotheses(exp / "decode" / "student-0" / "hyp_test.tsv", "keep")
    if odd := sorted({word for words in hypotheses.values() for word in words} - set(lang.words)):
        raise UserError(f"{exp}: the words {' '.join(odd)} are not those of the lexicon")
    results = Results.load(exp / "score" / "score.json")
    student = results.row("student")
    if results.not_run or student is None or not student.words["test"].wer <= max_wer:
        raise UserError(f"{exp}: systems are missing, or the WER of the student is above {max_wer:g} %")


def main(config: Config) -> None:
    out = config.out.resolve()
    if not (out / "conf.yaml").is_file():
        make_corpus(out, int(config.sentences))
    command = [
        "bash", ROOT / "recipes/librispeech/run.sh", "--conf", out / "conf.yaml", "--exp", out / "exp",
        "--corpus-dir", out, "--train", "train", "--dev", "dev", "--test", "test", "--lm-text", out / "text.txt",
        "--teachers", "2",
    ]  # fmt: skip
    if subprocess.run(list(map(str, command)), check=False).returncode:
        raise UserError("the recipe failed: see above")
    check(out / "exp", config.max_wer)
    print((out / "exp" / "report" / "report.md").read_text(encoding="utf-8"), flush=True)


if __name__ == "__main__":
    run(Config, main)
