import shutil

from made_data import noise, write_sound

from birdinfer.report.files import identical_files, read_facts, read_headers


def test_read_headers_reports_facts_and_faults(tmp_path):
    good = write_sound(tmp_path / "good.wav", noise(2))
    cut = tmp_path / "cut.wav"
    cut.write_bytes(good.read_bytes()[:-8_000])
    empty = tmp_path / "empty.wav"
    empty.touch()
    done = []
    paths = [good, cut, empty, tmp_path / "gone.wav", good, tmp_path / "a\0b.wav"]
    found = read_headers(paths, lambda *counts: done.append(counts))
    assert done[-1] == (5, 5)
    assert (found[good].sample_rate, found[good].channels, found[good].seconds, found[good].problem) == (
        8_000,
        1,
        2.0,
        "",
    )
    assert (found[cut].seconds, found[cut].problem) == (1.5, "truncated: 1.5 of 2.0 s")
    assert (found[empty].is_unreadable, found[empty].is_missing) == (True, False)
    assert found[tmp_path / "gone.wav"].is_missing
    assert found[tmp_path / "a\0b.wav"].is_unreadable


def test_read_facts_sees_the_missing_end_of_an_ogg(tmp_path):
    import soundfile

    whole = tmp_path / "whole.ogg"
    soundfile.write(whole, noise(30), 8_000)
    cut = tmp_path / "cut.ogg"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    tagged = tmp_path / "tagged.ogg"
    tagged.write_bytes(whole.read_bytes() + b"TAG" + bytes(125))
    assert [read_facts(path).problem for path in (whole, tagged)] == ["", ""]
    assert "truncated" in read_facts(cut).problem
    assert not read_facts(cut).is_unreadable


def test_identical_files_are_those_with_the_same_bytes(tmp_path):
    one, other, third = (write_sound(tmp_path / f"{seed}.wav", noise(1, seed)) for seed in range(3))
    copy = tmp_path / "copy.wav"
    shutil.copy(other, copy)
    facts = [read_facts(path) for path in (one, other, third, copy)]
    assert identical_files(facts) == [(other, copy)]
