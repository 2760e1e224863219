"""The embedded corpus: generated sentences in noise, spoken by many synthetic voices, with exact phone times.

Train has no voices of dev and test.  The same seed gives the same bytes with any number of processes.
"""

import io
import itertools
import os
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import espeakng_loader
import numpy as np
import soundfile
from scipy.signal import resample_poly

from asr_kd.common.errors import UserError
from asr_kd.common.parallel import run_in_order
from asr_kd.common.storage import atomic_open
from asr_kd.corpora.effects import RATE, Difficulty, coloured_noise, record, rms, room_response
from asr_kd.corpora.espeak import Espeak, Phone
from asr_kd.corpora.manifests import jsonl_writer
from asr_kd.corpora.sentences import sentences

DIFFICULTY = Difficulty()
FIRST_SPEAKER = {"train": 1001, "dev": 2001, "test": 3001}
#: Accents of English; one that is listed n times is n times as frequent.
ACCENTS = ("en-us", "en-us", "en-us", "en-us-nyc", "en", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-scotland")
UNNATURAL = re.compile(r"robo|robot|whisper|demonic", re.IGNORECASE)
#: Resampling from 22,050 Hz to 16 kHz is 320/441; another denominator changes the length of the vocal tract.
UP, DOWN = 320, (418, 464)
MIN_SECONDS = 1.5  # of a sentence, which bounds the number of sentences that a speaker needs
LM_SENTENCES = 15000

#: eSpeak's phones as ARPAbet without stress.  A vowel and the r that colours it are one sound (CAR: K AA), and so are
#: a vowel and a following l (APPLE: AE P AH).
ARPABET = {
    "_": "SIL", "?": "T", "0": "AA", "3": "ER", "3:": "ER", ";": "Y", "@": "AH", "@2": "AH", "@L": "AH", "@5": "AH",
    "A:": "AA", "A@": "AA", "D": "DH", "E": "EH", "E2": "EH", "I": "IH", "I#": "IH", "I2": "IH", "IR": "ER",
    "N": "NG", "O": "AO", "O2": "AO", "O:": "AO", "O@": "AO", "OI": "OY", "S": "SH", "T": "TH", "U": "UH",
    "U@": "UH", "V": "AH", "VR": "ER", "Z": "ZH", "a": "AE", "a#": "AH", "aI": "AY", "aI2": "AY", "aI3": "AY",
    "aI@": "AY", "aU": "AW", "aU@": "AW", "aa": "AE", "b": "B", "d": "D", "dZ": "JH", "e@": "EH", "eI": "EY",
    "f": "F", "g": "G", "h": "HH", "i": "IY", "i:": "IY", "i@": "IY", "i@3": "IH", "j": "Y", "k": "K", "l": "L",
    "m": "M", "n": "N", "n-": "N", "o@": "AO", "oU": "OW", "p": "P", "r": "R", "r-": "R", "s": "S", "t": "T",
    "t#": "T", "t2": "T", "t[": "TH", "tS": "CH", "u:": "UW", "v": "V", "w": "W", "w#": "W", "z": "Z",
}  # fmt: skip


@dataclass(frozen=True)
class Voice:
    """A speaker.  ``down`` (see ``DOWN``) sets the length of the vocal tract."""

    speaker: str
    name: str
    down: int
    speed: int
    pitch: int
    pitch_range: int


@dataclass(frozen=True)
class _Job:
    folder: Path
    voice: Voice
    others: tuple[Voice, ...]  # may babble in the background
    texts: tuple[str, ...]
    seconds: float
    seed: int


def make_voices(seed: int, counts: Mapping[str, int]) -> dict[str, list[Voice]]:
    """The speakers of each split; variants of a voice that differ by a number are similar and belong to train.

    Raises:
        UserError: there are not enough voices.
    """
    folder = Path(espeakng_loader.get_data_path()) / "voices" / "!v"
    families: dict[str, list[str]] = defaultdict(list)
    for name in sorted(os.listdir(folder)):
        if not UNNATURAL.search(name):
            families[name.rstrip("0123456789").lower()].append(name)
    generator = random.Random(f"voices {seed}")
    single = [names[0] for names in families.values() if len(names) == 1]
    generator.shuffle(single)
    names = {"test": single[: counts["test"]], "dev": single[counts["test"] :][: counts["dev"]]}
    rest = single[counts["test"] + counts["dev"] :]
    rest += [name for variants in families.values() if len(variants) > 1 for name in variants]
    generator.shuffle(rest)
    names["train"] = rest[: counts["train"]]
    if any(len(names[split]) < counts[split] for split in counts):
        raise UserError(
            f"--voices exceeds the {len(single)} voices for dev and test and the {len(rest)} left for train: lower it"
        )
    accents = itertools.cycle(ACCENTS)
    return {
        split: [
            Voice(
                speaker=str(FIRST_SPEAKER[split] + i), name=f"{next(accents)}+{name}", down=generator.randint(*DOWN),
                speed=generator.randint(150, 215), pitch=generator.randint(35, 65),
                pitch_range=generator.randint(30, 75),
            )
            for i, name in enumerate(names[split])
        ]
        for split in FIRST_SPEAKER
    }  # fmt: skip


def make_corpus(
    root: Path, out: Path, minutes: Mapping[str, float], counts: Mapping[str, int], seed: int, executor: Executor
) -> None:
    """Write ROOT/{train,dev,test} in LibriSpeech layout, and OUT/truth_SPLIT.jsonl.gz and OUT/lm_text.txt.

    The sentences of lm_text.txt are for a language model; none of them is in the corpus.

    Args:
        minutes: minimum of speech in each split.
        counts: number of voices in each split.

    Raises:
        UserError: there are not enough voices.
    """
    voices = make_voices(seed, counts)
    stream = sentences(seed)  # shared by all splits, so that no sentence occurs twice
    jobs: dict[str, list[_Job]] = {}
    for split in ("test", "dev", "train"):
        share = 60 * minutes[split] / len(voices[split])
        # Sentences are dealt like cards: the speakers together use about the first part of the stream, without gaps,
        # so that every word occurs in train.
        texts = list(itertools.islice(stream, len(voices[split]) * (int(share / MIN_SECONDS) + 1)))
        jobs[split] = [
            _Job(
                folder=root / split / voice.speaker / "1", voice=voice,
                others=tuple(other for other in voices[split] if other is not voice),
                texts=tuple(texts[i :: len(voices[split])]), seconds=share, seed=seed,
            )
            for i, voice in enumerate(voices[split])
        ]  # fmt: skip
    with atomic_open(out / "lm_text.txt") as file:
        file.writelines(sentence.replace(",", "") + "\n" for sentence in itertools.islice(stream, LM_SENTENCES))
    all_jobs = [job for split in voices for job in jobs[split]]
    results = run_in_order(executor, _speak, all_jobs, "synthesis", "voice")
    for split in voices:
        with jsonl_writer(out / f"truth_{split}.jsonl.gz") as add:
            for truths in itertools.islice(results, len(jobs[split])):
                for truth in truths:
                    add(truth)
    with atomic_open(root / "SPEAKERS.TXT") as file:
        file.writelines(f"{v.speaker} | - | {split} | - | {v.name}\n" for split in voices for v in voices[split])


def _speak(job: _Job) -> list[dict[str, Any]]:
    """Record one speaker; return the true phone and word times of each utterance."""
    voice = job.voice
    generator = np.random.default_rng([job.seed, int(voice.speaker)])
    draw = generator.uniform
    audible = generator.random() < DIFFICULTY.reverberant
    response = room_response(draw(*DIFFICULTY.rt60), draw(*DIFFICULTY.direct_db), generator) if audible else None
    tilt = draw(*DIFFICULTY.tilt)
    babble = _babble(job, generator)
    lines: list[str] = []
    truths: list[dict[str, Any]] = []
    spoken = 0.0
    job.folder.mkdir(parents=True, exist_ok=True)
    with Espeak(voice.name, seed=int(voice.speaker)) as synthesiser:
        for text, wave, phones in _utterances(synthesiser, voice, job.texts, generator):
            before, after = (int(draw(0.1, 0.4) * RATE) for _ in range(2))
            speech = np.pad(wave, (before, after))
            noise = _noise(len(speech), babble, generator)
            audio = record(speech, noise, response, draw(*DIFFICULTY.snr_db), tilt, draw(*DIFFICULTY.level_db))
            seconds = len(audio) / RATE
            utterance = f"{voice.speaker}-1-{len(lines):04d}"
            encoded = io.BytesIO()  # so that a full disk is an error with a number
            soundfile.write(encoded, audio, RATE, format="FLAC", subtype="PCM_16")
            with atomic_open(job.folder / f"{utterance}.flac", "wb") as file:
                file.write(encoded.getvalue())
            words = text.replace(",", "").split()
            lines.append(f"{utterance} {' '.join(words)}\n")
            truths.append(_truth(utterance, phones, words, before / RATE, UP / voice.down / RATE, seconds))
            spoken += seconds
            if spoken >= job.seconds:
                break
    with atomic_open(job.folder / f"{voice.speaker}-1.trans.txt") as file:
        file.writelines(lines)
    return truths


def _noise(samples: int, babble: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Noise of unit RMS, (samples,): a section of the babble, or coloured noise."""
    if generator.random() >= DIFFICULTY.babble:
        return coloured_noise(samples, generator.uniform(*DIFFICULTY.noise_slope), generator)
    start = int(generator.integers(len(babble)))
    section = np.take(babble, np.arange(start, start + samples), mode="wrap")
    return section / rms(section)


def _utterances(
    synthesiser: Espeak, voice: Voice, texts: Sequence[str], generator: np.random.Generator
) -> Iterator[tuple[str, np.ndarray, list[Phone]]]:
    """Yield (text, 16 kHz samples, phones at eSpeak's own rate), with random variation of tempo and pitch."""
    for text in texts:
        wave, phones = synthesiser.say(
            text.lower(),
            speed=int(voice.speed * generator.uniform(0.88, 1.12)),
            pitch=int(voice.pitch + generator.uniform(-8, 8)), pitch_range=voice.pitch_range,
        )  # fmt: skip
        yield text, resample_poly(wave.astype(np.float32) / 32768, UP, voice.down), phones


def _babble(job: _Job, generator: np.random.Generator) -> np.ndarray:
    """15 s of four other voices of the split, which speak at once."""
    babble = np.zeros(15 * RATE, dtype=np.float32)
    for i in generator.choice(len(job.others), size=min(4, len(job.others)), replace=False):
        other = job.others[i]
        with Espeak(other.name, seed=int(other.speaker)) as synthesiser:
            texts = [job.texts[j] for j in generator.permutation(len(job.texts))[:5]]
            waves = [wave / rms(wave) for _, wave, _ in _utterances(synthesiser, other, texts, generator)]
        babble += np.resize(np.concatenate(waves), len(babble))
    return babble


def _truth(
    utterance: str, phones: Sequence[Phone], words: Sequence[str], before: float, scale: float, seconds: float
) -> dict[str, Any]:
    """Phones and words with their times in seconds, including silences."""
    spans: list[list[Any]] = [[0.0, before, "SIL"]]
    word_times: dict[int, list[float]] = {}
    for phone in phones:
        start, end = before + phone.start * scale, before + phone.end * scale
        name = ARPABET.get(phone.name, "SPN")
        if name == spans[-1][2] == "SIL" or (phone.name == ";" and spans[-1][2] in ("IH", "IY")):
            spans[-1][1] = end  # the same pause, or the glide between two vowels (THE APPLE)
        else:
            spans.append([start, end, name])
        if phone.word >= 0:
            word_times.setdefault(phone.word, [start, end])[1] = end
    if spans[-1][2] != "SIL":
        spans.append([spans[-1][1], seconds, "SIL"])
    spans[-1][1] = seconds
    return {
        "id": utterance,
        "phones": [[round(start, 5), round(end, 5), name] for start, end, name in spans],
        "words": [[round(start, 5), round(end, 5), words[i]] for i, (start, end) in sorted(word_times.items())],
    }
