"""Speech by the probabilities of its chunks, found and silenced while a file is read."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.audio.speech import VOICE_CHUNK, VOICE_RATE, SpeechFinder, SpeechMuter, SpeechSpans, spans_of

CHUNK_SECONDS = 0.032


def chunks(*pieces):
    """(probability, seconds) ... -> probabilities of chunks."""
    return np.concatenate([np.full(round(seconds / CHUNK_SECONDS), value, np.float32) for value, seconds in pieces])


class TestSpans:
    def spans(self, *pieces):
        probabilities = chunks(*pieces)
        return spans_of(probabilities, len(probabilities) * CHUNK_SECONDS)

    def test_a_stretch_of_speech_is_widened_on_either_side(self):
        ((begin, end),) = self.spans((0, 0.96), (0.9, 0.64), (0, 0.96))
        assert (begin, end) == pytest.approx((0.86, 1.7))

    def test_the_edges_of_the_sound_end_it(self):
        ((begin, end),) = self.spans((0.9, 0.64))
        assert (begin, end) == pytest.approx((0.0, 0.64))

    def test_between_the_thresholds_speech_continues_but_does_not_begin(self):
        assert self.spans((0.4, 3.2)) == []
        ((begin, end),) = self.spans((0.4, 0.96), (0.9, 0.32), (0.4, 1.28), (0, 0.96))
        assert (begin, end) == pytest.approx((0.86, 2.66))

    def test_a_click_is_no_speech(self):
        assert self.spans((0, 0.96), (0.99, 0.224), (0, 0.96)) == []

    def test_a_pause_between_words_is_speech_a_longer_one_is_not(self):
        assert len(self.spans((0.9, 0.64), (0, 0.256), (0.9, 0.64), (0, 0.96))) == 1
        assert len(self.spans((0.9, 0.64), (0, 0.64), (0.9, 0.64), (0, 0.96))) == 2

    def test_nothing_used_nothing_found(self):
        assert spans_of(np.zeros(0, np.float32), 0.0) == []

    @given(st.lists(st.floats(0, 1, width=32), max_size=300))
    def test_spans_are_in_order_apart_and_within_the_sound(self, values):
        duration = len(values) * CHUNK_SECONDS
        edges = [edge for span in spans_of(np.array(values, np.float32), duration) for edge in span]
        assert all(one < other for one, other in itertools.pairwise(edges))
        assert not edges or (edges[0] >= 0 and edges[-1] <= duration)

    @given(st.lists(st.floats(0, 1, width=32), max_size=300), st.lists(st.integers(0, 300), max_size=5))
    def test_what_is_settled_stays(self, values, cuts):
        probabilities, found = np.array(values, np.float32), SpeechSpans()
        expected = spans_of(probabilities, len(values) * CHUNK_SECONDS)
        for part in np.split(probabilities, sorted(min(cut, len(values)) for cut in cuts)):
            found.push(part)
            settled = max(0.0, found.settled_seconds)
            clipped = [(begin, min(end, settled)) for begin, end in expected if begin < settled]
            assert [(begin, min(end, settled)) for begin, end in found.within(1e9) if begin < settled] == clipped
        assert found.within(len(values) * CHUNK_SECONDS) == expected


class Known:
    """Probabilities that are known before; those of 8 chunks come at once, as from a network."""

    def __init__(self, probabilities):
        self.left, self.n_held = probabilities, 0

    def push(self, samples):
        self.n_held += len(samples)
        n_ready = self.n_held // VOICE_CHUNK // 8 * 8
        self.n_held -= n_ready * VOICE_CHUNK
        ready, self.left = np.split(self.left, [n_ready])
        return ready

    def finish(self):
        return self.left


SPEECH = ((0, 0.96), (0.9, 0.64), (0, 0.96), (0.9, 0.064), (0.4, 0.32), (0, 0.64), (0.9, 0.32))
"""From 0.96 to 1.6 s, from 2.56 to 2.944 s, and from 3.584 s to the end."""


def muted(values, cuts, rates=(VOICE_RATE,)):
    """Ones at several rates, in blocks that end at these chunks, behind the muter; and the spans."""
    probabilities = chunks(*values)
    muter = SpeechMuter(Known(probabilities))
    blocks = []
    for n_chunks in np.diff([0, *sorted(min(cut, len(probabilities)) for cut in cuts), len(probabilities)]):
        seconds = n_chunks * CHUNK_SECONDS
        blocks.append(muter.push({rate: np.ones(round(seconds * rate), np.float32) for rate in rates}))
    blocks.append(muter.rest())
    return {rate: np.concatenate([block[rate] for block in blocks if rate in block]) for rate in rates}, muter.spans


class TestMuter:
    def test_speech_is_silence_and_the_rest_is_as_it_was(self):
        sound, spans = muted(SPEECH, [])
        assert spans == ((0.86, 1.7), (2.46, 3.044), (3.484, 3.904))
        sound = sound[VOICE_RATE]
        assert len(sound) == round(3.904 * VOICE_RATE)
        fade = round(0.01 * VOICE_RATE)
        for begin, end in spans:
            first, last = round(begin * VOICE_RATE), round(end * VOICE_RATE)
            assert not sound[first + fade : last - fade].any()
            assert (sound[first - 5 : first] == 1).all()
            assert 0 < np.abs(np.diff(sound[first : first + fade])).max() < 0.01
        assert (sound[round(1.7 * VOICE_RATE) : round(2.46 * VOICE_RATE)] == 1).all()
        assert sound[-1] == 0  # speech at the file's end is not faded in

    @given(st.lists(st.integers(0, 122), max_size=6))
    def test_blocks_change_no_bit_at_any_rate(self, cuts):
        whole, _ = muted(SPEECH, [], (VOICE_RATE, 48_000))
        for rate, sound in muted(SPEECH, cuts, (VOICE_RATE, 48_000))[0].items():
            np.testing.assert_array_equal(sound, whole[rate])

    def test_little_is_kept_while_speech_continues(self):
        muter = SpeechMuter(Known(chunks((0.9, 320.0))))
        out = 0
        for second in range(1, 321):
            block = muter.push({VOICE_RATE: np.ones(VOICE_RATE, np.float32)})
            out += len(block.get(VOICE_RATE, ()))
            assert second - out / VOICE_RATE < 1.0

    def test_sound_that_is_passed_in_is_not_changed(self):
        sound = np.ones(VOICE_RATE, np.float32)
        muter = SpeechMuter(Known(chunks((0.9, 0.96))))
        muter.push({VOICE_RATE: sound})
        assert not muter.rest()[VOICE_RATE][200:].any()
        assert sound.all()


def test_a_finder_passes_blocks_on_as_they_are():
    finder = SpeechFinder(Known(chunks(*SPEECH)))
    block = {VOICE_RATE: np.ones(round(3.904 * VOICE_RATE), np.float32)}
    assert finder.push(block) is block
    assert finder.rest() == {}
    assert finder.spans == ((0.86, 1.7), (2.46, 3.044), (3.484, 3.904))
