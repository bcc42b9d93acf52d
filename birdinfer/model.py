"""birdinfer in a program: a loaded bundle predicts files, arrays, live sources and folders.

::

    model = birdinfer.load("exports/NAME")
    result = model.predict("dawn.wav")                            # a Result: probabilities [windows, species]
    for result in model.predict_many(["siteA", "siteB"]): ...     # each as it is finished, on all cores
    for window in model.stream(blocks, sample_rate=48_000): ...   # each as soon as nothing can change it
    model.embed("dawn.wav").values                                # what the network says about each window

The probabilities are those of the command line, bit for bit. Tables, resuming and time budgets belong to
:mod:`birdinfer.prediction`.
"""

import os
import tempfile
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from birdinfer.audio.channels import MEAN
from birdinfer.audio.find import Found, find_recordings, recording_name
from birdinfer.audio.reader import SoundscapeReader
from birdinfer.audio.status import Status
from birdinfer.audio.stream import AudioStream
from birdinfer.audio.waveform import EncodedSound, WaveformSound, blocks_of, check_array, write_encoded
from birdinfer.callbacks import Callback
from birdinfer.detections.recordings import OriginSettings, describe_recording
from birdinfer.detections.thresholds import MIN_CONFIDENCE
from birdinfer.errors import AudioError, BundleError, ConfigError
from birdinfer.inference.blend_text import parse_blend
from birdinfer.inference.bundle import MANIFEST_NAME, Bundle, demo_bundle_path
from birdinfer.inference.calibration import thresholds_of
from birdinfer.inference.embeddings import Embeddings, embeddings_of
from birdinfer.inference.engines import EnginePlan
from birdinfer.inference.ensemble import Blend, check_live
from birdinfer.inference.member_group import MemberScores
from birdinfer.inference.open_file import end_status
from birdinfer.inference.predictor import Predictor, join_chunks, make_plan
from birdinfer.inference.results import SoundscapeResult
from birdinfer.inference.soundscapes import predict_soundscapes
from birdinfer.inference.voice import VoiceMode, speech_finders
from birdinfer.postprocess.config import PostConfig
from birdinfer.prediction.run import default_engine
from birdinfer.result import Result, ScoredWindow
from birdinfer.system.cpu import one_thread_per_worker
from birdinfer.system.files import utf8_text
from birdinfer.typing import Float32

AnyPath = str | os.PathLike[str]
DEMO = "demo"


def load(
    bundle: AnyPath | Bundle,
    *,
    engine: str | EnginePlan | None = None,
    workers: int | None = None,
    batch_size: int | None = None,
    post: PostConfig | None = None,
    blend: str | Blend | None = None,
    channel: str = MEAN,
    voice: VoiceMode | None = None,
    origin: OriginSettings | None = None,
) -> "Model":
    """Load a bundle to predict with it.

    Args:
        bundle: its folder, or one that is loaded and perhaps changed (``Bundle.load(folder).with_overlap(2.5)``);
            ``"demo"`` is the small one of birdinfer.
        engine: ``onnxruntime``, ``openvino:bf16`` ...; None: that of the command line, ONNX Runtime in fp32, on the
            GPU where onnxruntime-gpu finds one.
        workers: threads; None: one for each core.
        batch_size: windows in one call of a graph; it changes the speed and no score.
        post: post-processing in place of the bundle's own; ``PostConfig((1.0,))`` is none.
        blend: how members are combined in place of the bundle's own: ``mean``, ``rms`` ..., as ``predict --blend``. A
            bundle that blends by rank needs it: ranks compare all recordings of a run
            (:func:`birdinfer.prediction.run.predict_to_csv`).
        channel: ``mean`` of a recording's channels, the number of one from 1, or (of files) ``loudest``.
        voice: look for human speech, which needs silero-vad: ``skip`` its windows in detections, or ``mute`` it
            before anything is scored.
        origin: time zone of the recorders, how names of files are built, where the site is from.

    Raises:
        BirdinferError: it is no bundle, or this machine cannot run it; see :meth:`Bundle.load`, :class:`Predictor`.

    >>> load("demo", engine="onnxruntime", workers=2)
    <Model demo: 8 species, 2 members, windows of 5 s; onnxruntime:fp32, 2 workers, batch 3>
    """
    for option, number in (("workers", workers), ("batch_size", batch_size)):
        if number is not None and number < 1:
            raise ConfigError(option, f"is {number}, needed is at least 1")
    if engine == "auto":
        hint = "pass engine=autotune(bundle, paths).plan, of birdinfer.inference.autotune"
        raise ConfigError("engine", "auto measures with recordings, and there are none yet", hint)
    if isinstance(engine, EnginePlan):
        plan = make_plan(engine.spec, workers or engine.workers, batch_size or engine.batch_size)
    else:
        plan = make_plan(engine or default_engine(_Warnings()), workers, batch_size)
    if not isinstance(bundle, Bundle):
        is_demo = bundle == DEMO and not (Path(DEMO) / MANIFEST_NAME).is_file()
        bundle = Bundle.load(demo_bundle_path() if is_demo else Path(bundle))
    if post is not None or blend is not None:
        wanted = bundle.manifest.blend if blend is None else parse_blend(blend) if isinstance(blend, str) else blend
        bundle = bundle.with_scoring(wanted, bundle.manifest.post if post is None else post)
    check_live(bundle.manifest.blend, 'load it with blend="mean", or let birdinfer predict write a table')
    speech = None if voice is None else speech_finders(voice)
    return Model(Predictor(bundle, plan, channel=channel, speech=speech), origin, voice)


class Model:
    """A loaded bundle; may be shared by threads. Made by :func:`load`.

    >>> from birdinfer.synthetic.soundscapes import write_soundscapes
    >>> truth = write_soundscapes(Path("demo_sound"), n_files=2, duration_seconds=10)
    >>> model = load("demo")
    >>> result = model.predict("demo_sound/synthetic_S01_20260501_053000.ogg")
    >>> result.status, result.probabilities.shape, result.times.tolist()
    (<Status.ok: 'ok'>, (2, 8), [0.0, 5.0])
    >>> sorted(len(result.detections(0.5)) >= 0 for result in model.predict_many("demo_sound"))
    [True, True]
    >>> blocks = (np.zeros(16_000, np.float32) for _ in range(7))
    >>> [(window.start_seconds, window.end_seconds) for window in model.stream(blocks, sample_rate=16_000)]
    [(0.0, 5.0), (5.0, 7.0)]
    """

    def __init__(
        self, predictor: Predictor, origin: OriginSettings | None = None, voice: VoiceMode | None = None
    ) -> None:
        self.predictor, self.bundle, self._voice = predictor, predictor.bundle, voice
        origin = origin or OriginSettings()
        self._origin, self._origin_in_memory = origin, replace(origin, site_from="name")
        self.species = self.bundle.manifest.species
        self.labels = self.bundle.labels
        self.window_seconds = predictor.rows.window_seconds
        self._embedders: dict[str, Predictor] = {}
        self._thresholds: Float32 | None = None
        with suppress(ConfigError):  # a calibration of other scores is of no use
            self._thresholds = thresholds_of(self.bundle.manifest, MIN_CONFIDENCE)

    def predict(
        self,
        sound: AnyPath | EncodedSound | npt.ArrayLike,
        sample_rate: float | None = None,
        *,
        name: str | None = None,
    ) -> Result:
        """Predict one recording, on all cores.

        Args:
            sound: the path of a sound file; a sound file that was read (``bytes``) or opened, which is copied to a
                temporary file; or samples [samples] or [samples, channels], floats in -1 to 1, int16 or int32.
            sample_rate: of samples, in Hz. A file states its own.
            name: of the recording, from which post-processing reads site and hour, as ``S05_20260501_053000``; the
                file's own name if left out.

        Raises:
            InputNotFoundError: there is no such file.
            AudioError: it is not sound, or not a single sample of it can be decoded. Sound with less wrong is
                predicted, and ``status`` and ``problem`` of the result say what it is.
            ConfigError: an argument does not fit to another, or is out of its range.
            BundleError: a model failed at it.
        """
        if isinstance(sound, str | os.PathLike):
            _refuse_rate(sample_rate)
            path = Path(sound)
            return self._predict_file(path, name or recording_name(path), self._origin)
        if isinstance(sound, EncodedSound):
            _refuse_rate(sample_rate)
            return self._predict_encoded(sound, name)
        return self._predict_array(sound, sample_rate, name or "array")

    def predict_many(self, paths: AnyPath | Iterable[AnyPath]) -> Iterator[Result]:
        """Predict files, and folders that are searched for them, on all cores; a failure is a result.

        Yields one result for each recording, as it is finished: files that take longer come later. A file that cannot
        be read yields a result without windows, whose ``status`` and ``problem`` give the reason. The names of the
        recordings are their paths within the input. Only results that are kept take memory.

        Raises:
            InputNotFoundError: an input does not exist, or there is no recording at all; or, after the results, the
                disk of the recordings is gone.
            BundleError: after the results, a model failed at each of the first files.
        """
        several = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
        for path in several:
            if not isinstance(path, str | os.PathLike):
                raise ConfigError("paths", f"holds {_kind(path)}", "needed are paths of sound files and folders")
        found = find_recordings([Path(path) for path in several])
        found.require()
        return self._predict_found(found)

    def stream(
        self, blocks: Iterable[npt.ArrayLike], sample_rate: float, *, name: str = "stream"
    ) -> Iterator[ScoredWindow]:
        """Predict a source that may never end, as a microphone: each window as soon as nothing can change it.

        A window is final when its sound and that of its neighbours in post-processing are there: with the usual
        smoothing one window later. The probabilities are those of :meth:`predict` with all blocks at once, bit for
        bit. Memory does not grow. For a file of any length :meth:`predict` is faster.

        Args:
            blocks: samples as :meth:`predict` takes them, blocks of any length; they follow each other without a gap.
            sample_rate: of the blocks, in Hz.
            name: of the recording, as in :meth:`predict`.

        Raises:
            ConfigError: the blocks are one array, there is no such rate, or a step of post-processing needs the whole
                recording.
            AudioError: a block is no sound, or there was none.
        """
        if isinstance(blocks, np.ndarray | str | bytes | os.PathLike) or not isinstance(blocks, Iterable):
            raise ConfigError("blocks", f"is {_kind(blocks)}, needed are several arrays", "model.predict takes one")
        if steps := self.predictor.whole_file_steps:
            what = f"post-processing ({', '.join(steps)}) needs all windows of a recording, so a live source has none"
            raise ConfigError("stream", what, "load the bundle with other steps: post=PostConfig()")
        if self._voice == "skip":
            hint = 'load the bundle with voice="mute"'
            raise ConfigError("stream", "speech is found too late to skip the windows of a live source", hint)
        return self._windows(self._in_memory(blocks, sample_rate, name), name)

    def embed(
        self,
        sound: AnyPath | EncodedSound | npt.ArrayLike,
        sample_rate: float | None = None,
        *,
        name: str | None = None,
        member: str | None = None,
    ) -> Embeddings:
        """Embed the windows of one recording, on all cores: what ``predict --embeddings`` keeps of it, in float32.

        The member's network is loaded once more, at the first call. Of a damaged recording what can be decoded is
        embedded, with a warning.

        Args:
            sound: as in :meth:`predict`, like ``sample_rate`` and ``name``.
            sample_rate: of samples, in Hz.
            name: of the recording.
            member: that gives the embeddings; None: the only one that gives some.

        Raises:
            InputNotFoundError, AudioError, ConfigError, BundleError: as :meth:`predict`; no member gives embeddings, or
                several do and none is named.
        """
        able = {each.name: each for each in self.bundle.manifest.members if each.outputs.embedding}
        if not able:
            hint = "birdinfer bundle embed BUNDLE lets them, where they can"
            raise ConfigError("embed", f"no member of {self.bundle.manifest.name} gives embeddings", hint)
        chosen = able.get(next(iter(able)) if member is None and len(able) == 1 else member or "")
        if chosen is None:
            problem = "is missing" if member is None else f"is {member!r}, which gives no embeddings"
            raise ConfigError("member", problem, f"name one of {', '.join(able)}")
        values: list[Float32] = []
        with self._reader(predictor := self._embedder(chosen.name), sound, sample_rate, name) as (reader, own_name):
            try:
                for (scores,) in self._scored(predictor, reader):
                    assert scores.embeddings is not None  # the member was asked for them
                    values.append(scores.embeddings)
            except (AudioError, OSError) as error:
                if not values:
                    raise
                warnings.warn(str(error), stacklevel=2)
        return embeddings_of(self.bundle, chosen, own_name, np.concatenate(values), reader.n_rows)

    def __repr__(self) -> str:
        n_members = len(self.bundle.manifest.members)
        members = f"{n_members} member" + ("s" if n_members > 1 else "")
        size = f"{len(self.labels)} species, {members}, windows of {self.window_seconds:g} s"
        return f"<Model {self.bundle.manifest.name}: {size}; {self.predictor.plan}>"

    def _predict_file(self, path: Path, name: str, origin: OriginSettings) -> Result:
        with suppress(OSError):  # a name that is too long
            if path.is_dir():
                raise AudioError(path, "is a folder", "model.predict_many takes folders")
        (found,) = predict_soundscapes(self.predictor, [path], names={path: name})
        if found.status is Status.failed:
            raise BundleError(path, found.problem)
        if not found.n_rows:
            self.predictor.open(path).close()  # raises the reason, with what to do
            raise AudioError(path, found.problem)
        return self._result(found, name, origin)

    def _predict_encoded(self, sound: EncodedSound, name: str | None) -> Result:
        """Copy a sound file and predict the copy: whatever is wrong with it is found as in any other file."""
        with _copied(sound) as (copy, shown):
            result = self._predict_file(copy, name or recording_name(shown), self._origin_in_memory)
        return replace(result, recording=replace(result.recording, path=shown, file=utf8_text(shown.name)))

    def _predict_array(self, samples: npt.ArrayLike, sample_rate: float | None, name: str) -> Result:
        reader = self._array_reader(self.predictor, samples, sample_rate, name)
        probabilities = join_chunks(self._score(reader, name), len(self.labels))
        stream = reader.stream
        status, problem = end_status(stream, self.predictor.rows.min_tail_seconds)
        found = SoundscapeResult(
            stream.path, status, probabilities=probabilities, seconds=stream.decoded_seconds, problem=problem,
            channel=stream.channel, levels=stream.levels, sample_rate=stream.native_rate,
            speech=None if reader.speech is None else reader.speech.spans,
        )  # fmt: skip
        return self._result(found, name, self._origin_in_memory)

    @contextmanager
    def _reader(
        self, predictor: Predictor, sound: AnyPath | EncodedSound | npt.ArrayLike, sample_rate: float | None,
        name: str | None,
    ) -> Iterator[tuple[SoundscapeReader, str]]:  # fmt: skip
        """Open a sound of any kind, with the name of its recording."""
        if isinstance(sound, str | os.PathLike):
            _refuse_rate(sample_rate)
            with predictor.open(Path(sound)) as reader:
                yield reader, name or recording_name(Path(sound))
        elif isinstance(sound, EncodedSound):
            _refuse_rate(sample_rate)
            with _copied(sound) as (copy, shown), predictor.open(copy) as reader:
                yield reader, name or recording_name(shown)
        else:
            yield self._array_reader(predictor, sound, sample_rate, name or "array"), name or "array"

    def _array_reader(
        self, predictor: Predictor, samples: npt.ArrayLike, sample_rate: float | None, name: str
    ) -> SoundscapeReader:
        if samples is None or _holds_paths(samples):
            hint = "needed is a path, a file that was read or opened, or samples; model.predict_many takes several"
            raise ConfigError("sound", f"is {_kind(samples)}", hint)
        array = check_array(samples, name)
        if sample_rate is None:
            hint = "pass sample_rate=48_000, or whatever it was recorded at"
            raise ConfigError("sample_rate", f"is missing, and {_kind(samples)} does not state its own", hint)
        return predictor.read(self._in_memory(blocks_of(array, sample_rate), sample_rate, name))

    def _embedder(self, member: str) -> Predictor:
        """What computes the embeddings of a member, and nothing else."""
        if member not in self._embedders:
            speech = None if self._voice is None else speech_finders(self._voice)
            bundle, plan, channel = self.bundle.with_members([member]), self.predictor.plan, self.predictor.channel
            self._embedders[member] = Predictor(bundle, plan, channel=channel, speech=speech, embeddings=True)
        return self._embedders[member]

    def _in_memory(self, blocks: Iterable[npt.ArrayLike], sample_rate: float, name: str) -> AudioStream:
        sound = WaveformSound(blocks, sample_rate, name, channel=self.predictor.channel)
        return AudioStream(Path(name), sound.sample_rate, sound=sound)

    def _score(self, reader: SoundscapeReader, name: str) -> list[Float32]:
        """Score sound in memory."""
        scores = self.predictor.file_scores(reader.stream.path, name)
        for each in self._scored(self.predictor, reader):
            scores.add(each)
        scores.finish(reader.n_rows)
        return scores.take()

    def _scored(self, predictor: Predictor, reader: SoundscapeReader) -> Iterator[list[MemberScores]]:
        """This thread cuts windows, the workers score the batches; in order."""
        waiting: deque[Future[list[MemberScores]]] = deque()
        with one_thread_per_worker(), ThreadPoolExecutor(predictor.plan.workers) as pool:
            for batch in reader.batches():
                waiting.append(pool.submit(predictor.score_batch, batch))
                if len(waiting) > predictor.plan.workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _windows(self, stream: AudioStream, name: str) -> Iterator[ScoredWindow]:
        for index, row in enumerate(row for rows in self._live_rows(stream, name) for row in rows):
            start = index * self.window_seconds
            end = min(start + self.window_seconds, stream.decoded_seconds)
            yield ScoredWindow(start_seconds=start, end_seconds=end, probabilities=row, species=self.species)

    def _live_rows(self, stream: AudioStream, name: str) -> Iterator[Float32]:
        reader, scores = self.predictor.read_live(stream), self.predictor.file_scores(stream.path, name)
        # Resamplers round: at several rates a last row may be one that the source does not have.
        n_unsure = min(1, len({group.grid.sample_rate for group in self.predictor.member_groups}) - 1)
        for batch in reader.batches():
            with one_thread_per_worker():  # the caller's own arithmetic may use all cores
                scores.add(self.predictor.score_batch(batch))
            scores.flush(n_unsure)
            yield from scores.take()
        scores.finish(reader.n_rows)
        yield from scores.take()

    def _predict_found(self, found: Found) -> Iterator[Result]:
        for path, problem in found.unopened:
            found_nothing = SoundscapeResult(path, Status.not_opened, problem=problem)
            yield self._result(found_nothing, recording_name(path), self._origin)
        for each in predict_soundscapes(self.predictor, list(found.names), names=found.names):
            yield self._result(each, found.names[each.path], self._origin)

    def _result(self, found: SoundscapeResult, name: str, origin: OriginSettings) -> Result:
        probabilities = found.probabilities
        recording = describe_recording(found.path, name, origin, seconds=found.seconds, sample_rate=found.sample_rate)
        channel = int(found.channel) if found.channel.isdecimal() else None
        return Result(
            recording=replace(recording, channel=channel),
            probabilities=np.zeros((0, len(self.labels)), np.float32) if probabilities is None else probabilities,
            species=self.species,
            window_seconds=self.window_seconds,
            status=found.status,
            problem=found.problem,
            microphone=found.microphone,
            thresholds=self._thresholds,
            speech=found.speech,
            skips_speech=self._voice == "skip",
        )


@contextmanager
def _copied(sound: EncodedSound) -> Iterator[tuple[Path, Path]]:
    """Copy a sound file that was read or opened; errors name it instead of its copy."""
    own = getattr(sound, "name", None)
    shown = Path(own if isinstance(own, str) and own else "sound")
    with tempfile.TemporaryDirectory(prefix="birdinfer-") as folder:
        copy = Path(folder) / "sound"
        write_encoded(sound, copy)
        try:
            yield copy, shown
        except (AudioError, BundleError) as error:
            raise type(error)(shown, error.what, error.hint) from error


class _Warnings(Callback):
    """What a program should know, as Python's warnings."""

    def on_warning(self, line: str) -> None:
        warnings.warn(line, stacklevel=4)


def _refuse_rate(sample_rate: float | None) -> None:
    if sample_rate is not None:
        hint = "leave it out; raw samples are an array: np.frombuffer(data, np.int16)"
        raise ConfigError("sample_rate", "is that of an array, and a sound file states its own", hint)


def _holds_paths(samples: object) -> bool:
    return isinstance(samples, list | tuple) and any(isinstance(each, str | os.PathLike) for each in samples[:1])


def _kind(thing: object) -> str:
    """Name what was passed: ``an array``, ``a list``, ``an int``."""
    if thing is None:
        return "None"
    name = "array" if isinstance(thing, np.ndarray) else type(thing).__name__
    return ("an " if name[0] in "aeiou" else "a ") + name
