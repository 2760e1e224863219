"""Lhotse manifests that others made: cuts, or recordings and supervisions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from lhotse import Recording, SupervisionSegment
from lhotse.cut import MonoCut, MultiCut
from lhotse.serialization import deserialize_item
from lhotse.utils import to_list

from asr_kd.common.errors import UserError
from asr_kd.corpora.manifests import read_manifest
from asr_kd.corpora.parts import Options, locate, manifest_pair
from asr_kd.corpora.utterances import Utterance


def read_cuts(path: Path, options: Options) -> Iterator[Utterance]:
    """The supervisions of a manifest of cuts.  A cut that has one is an utterance as a whole, with the cut's id.

    Raises:
        UserError: see ``_audio``, or the manifest is damaged.
    """

    def build(item: dict[str, object]) -> list[Utterance]:
        cut = deserialize_item(item)
        if not isinstance(cut, (MonoCut, MultiCut)) or cut.recording is None:
            return [Utterance(str(cut.id), fault="a cut without a recording of its own: write its audio to a file")]
        if not cut.supervisions:
            return [Utterance(str(cut.id))]
        if len(cut.supervisions) == 1:
            (spoken,) = cut.supervisions
            channels = cut.channel if isinstance(cut, MonoCut) else spoken.channel
            return [build_one(cut.id, spoken, cut.recording, cut.start, cut.end, channels)]
        return [
            build_one(s.id, s, cut.recording, cut.start + s.start, cut.start + s.end, s.channel)
            for s in cut.supervisions
        ]

    build_one = _builder(path, options)
    for utterances in read_manifest(path, build):
        yield from utterances


def read_recordings(path: Path, options: Options) -> Iterator[Utterance]:
    """The supervisions of a pair of manifests (see ``manifest_pair``), and the recordings that have none.

    Raises:
        UserError: see ``_audio``, or a manifest is missing or damaged.
    """
    first, second = manifest_pair(path)
    recordings: dict[str, Recording] = {}
    twice: set[str] = set()
    for recording in read_manifest(first, Recording.from_dict):
        twice |= {str(recording.id)} & recordings.keys()
        recordings[str(recording.id)] = recording

    def build(item: dict[str, object]) -> Utterance:
        spoken = SupervisionSegment.from_dict(item)
        name = str(spoken.recording_id)
        silent.discard(name)
        if (recording := recordings.get(name)) is None:
            return Utterance(str(spoken.id), fault=f"its recording {name} is not in {first.name}")
        if name in twice:
            return Utterance(str(spoken.id), fault=f"its recording {name} is twice in {first.name}")
        return build_one(spoken.id, spoken, recording, spoken.start, spoken.end, spoken.channel)

    silent, build_one = set(recordings), _builder(first, options)
    yield from read_manifest(second, build)
    yield from map(Utterance, sorted(silent))


def _builder(path: Path, options: Options) -> Callable[..., Utterance]:
    """What makes an utterance of a supervision; it expects the types of Lhotse, as ``read_manifest`` says otherwise."""

    def build(
        name: str, spoken: SupervisionSegment, recording: Recording, start: float, end: float, channels: int | list[int]
    ) -> Utterance:
        audio, channel, fault = _audio(path, recording, to_list(channels), options.channel)
        speaker = None if spoken.speaker is None else str(spoken.speaker)
        if not isinstance(spoken.text, str | None):
            raise TypeError(f"the text of {name} is {spoken.text!r}")
        return Utterance(
            str(name), spoken.text, speaker, audio, str(recording.id), float(start), float(end), channel, fault
        )

    return build


def _audio(path: Path, recording: Recording, spoken: list[int], wanted: int | None) -> tuple[Path | None, int, str]:
    """File and channel of it in which an utterance is that is spoken on certain channels, and what is wrong with them.

    Raises:
        UserError: the recording is no file, but a command or an address, say.
    """
    for source in recording.sources:
        if source.type != "file":
            raise UserError(
                f"{path}: the recording {recording.id} is to come from a {source.type} ({str(source.source)[:80]!r}): "
                "nothing is run or fetched here, so write its audio to a file first, and name that in the manifest"
            )
    if other := [name for t in recording.transforms or [] if (name := _transform(t)) != "Resample"]:
        return None, 0, f"its recording is to be changed ({', '.join(other)}): write its audio to a file"
    if wanted is not None and wanted not in spoken:
        return None, 0, f"spoken on channel {', '.join(map(str, spoken))}, not on channel {wanted}"
    if wanted is None and len(spoken) > 1:
        return None, 0, f"spoken on channels {', '.join(map(str, spoken))}: name one with --channel"
    channel = spoken[0] if wanted is None else wanted
    for source in recording.sources:
        if channel in source.channels:
            return locate(path.parent, source.source), source.channels.index(channel), ""
    return None, 0, f"its recording has no channel {channel}"


def _transform(transform: object) -> str:
    return str(transform["name"]) if isinstance(transform, dict) else type(transform).__name__
