"""A clip -> all of its sound as it goes into the cache: at one rate, cut to a length, without people's voices.

In: a clip. Out: :class:`~birdinfer.training.clips.bucket.Decoded`, 16-bit. One that cannot be decoded is a value, too.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from birdinfer.audio import AudioStream
from birdinfer.config import Hearing
from birdinfer.errors import AudioError, InputNotFoundError
from birdinfer.training.clips.bucket import FORMAT, Decoded, to_counts
from birdinfer.training.clips.metadata import Clip
from birdinfer.training.clips.voice import VOICE_RATE, VoiceDetector, detector_version, remove_spans

Float32 = npt.NDArray[np.float32]


class CacheSettings(NamedTuple):
    """What cached sound depends on, besides the files."""

    hearing: Hearing
    """Gives the rate; and the window, less than which is not left when voices are cut out."""
    max_seconds: float = 0.0
    """``data.max_seconds``; 0 for all of a clip."""
    remove_voice: bool = False
    """``data.remove_voice``."""

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for settings that give the same sound."""
        voice = (self.hearing.window.window_seconds, detector_version()) if self.remove_voice else ()
        return FORMAT, self.hearing.audio.sample_rate, float(self.max_seconds), *voice

    @property
    def folder_name(self) -> str:
        """What a person reads who wonders what fills the disk: "32000hz-60s-without-voice"."""
        length = f"-{self.max_seconds:g}s" if self.max_seconds else ""
        return f"{self.hearing.audio.sample_rate}hz{length}{'-without-voice' if self.remove_voice else ''}"

    def heard_seconds(self, duration_seconds: float) -> float:
        """What is heard of a clip."""
        return min(duration_seconds, self.max_seconds) if self.max_seconds else duration_seconds


class ClipDecoder:
    """Decodes clips; may be called from several threads at once."""

    def __init__(self, settings: CacheSettings) -> None:
        """Load what the settings need.

        Raises:
            ConfigError, MissingExtraError: voices are to be removed and cannot be found here.
        """
        self._settings = settings
        self._voice = VoiceDetector() if settings.remove_voice else None

    def __call__(self, clip: Clip) -> Decoded:
        """All of a clip's sound that will be heard."""
        try:
            return self._decode(clip)
        except (AudioError, InputNotFoundError) as error:
            return _failed(clip, error.what)
        except OSError as error:
            return _failed(clip, f"cannot be read ({error.strerror})")

    def _decode(self, clip: Clip) -> Decoded:
        rate, note, removed = self._settings.hearing.audio.sample_rate, "", 0.0
        sound, damage = self._read(clip.path)
        samples = sound[rate]
        if not len(samples):
            raise AudioError(clip.path, "holds no sound")
        if self._voice is not None:
            spans = self._voice.speech_spans(sound[VOICE_RATE])
            samples, removed, note = remove_spans(samples, spans, rate, self._settings.hearing.window.window_seconds)
        notes = "; ".join(filter(None, (damage, note)))
        return Decoded(clip.filename, *to_counts(samples), note=notes, voice_seconds=round(removed, 3))

    def _read(self, path: Path) -> tuple[dict[int, Float32], str]:
        """The sound at each rate that is needed, and what is wrong with the file, as far as it was read."""
        rate, most_seconds = self._settings.hearing.audio.sample_rate, self._settings.max_seconds
        rates = [rate, VOICE_RATE] if self._voice is not None else [rate]
        pieces: dict[int, list[Float32]] = {one: [np.zeros(0, np.float32)] for one in rates}
        with AudioStream(path, rate) as stream:
            for block in stream.blocks_at(rates):
                for one, samples in block.items():
                    pieces[one].append(samples)
                if most_seconds and all(sum(map(len, pieces[one])) >= most_seconds * one for one in pieces):
                    break
        ends = {one: round(most_seconds * one) if most_seconds else None for one in rates}
        return {one: np.concatenate(pieces[one])[: ends[one]] for one in rates}, stream.damage


def _failed(clip: Clip, why: str) -> Decoded:
    return Decoded(clip.filename, np.zeros(0, np.int16), 1.0, failed=why)
