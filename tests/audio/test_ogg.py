import pytest
from decoded_sound import page, slow_checksum
from make_bundles import SAMPLE_RATE, tone, write_sound

from birdinfer.audio.ogg import checksum, read_layout


def vorbis(serial, granules=(1_000, 2_000), end=True):
    """First page, a page of headers, pages of sound."""
    sound = [
        page(b"sound", serial, 2 + index, 4 if end and index == len(granules) - 1 else 0, granule)
        for index, granule in enumerate(granules)
    ]
    return [page(b"\x01vorbis...", serial, 0, 2), page(b"headers", serial, 1), *sound]


def layout_of(tmp_path, *pages):
    (tmp_path / "a.ogg").write_bytes(b"".join(pages))
    return read_layout(tmp_path / "a.ogg")


def stretches(layout):
    return [[(stretch.granule, stretch.is_after_break) for stretch in stream.stretches] for stream in layout.streams]


@pytest.mark.parametrize("data", [b"", b"\0", b"123456789", bytes(range(256)) * 3])
def test_checksum_is_that_of_the_standard(data):
    assert checksum(data) == slow_checksum(data)


def test_checksum_by_hand():
    # One byte of 1: the polynomial itself is what is left of it.
    assert checksum(b"\x01") == 0x04C11DB7


def test_a_written_file_is_plain(tmp_path):
    write_sound(tmp_path / "a.ogg", tone(8.0), SAMPLE_RATE)
    layout = read_layout(tmp_path / "a.ogg")
    assert layout.is_plain
    assert not layout.is_cut
    assert not layout.n_broken
    assert stretches(layout) == [[(8 * SAMPLE_RATE, False)]]


def test_a_chain_is_its_links_also_where_both_have_one_serial_number(tmp_path):
    for serial in (1, 2):
        layout = layout_of(tmp_path, *vorbis(1), *vorbis(serial, (500,)))
        assert not layout.is_plain
        assert stretches(layout) == [[(2_000, False)], [(500, False)]]
        first, second = (stream.stretches[0].ranges for stream in layout.streams)
        assert (first[0].begin, second[0].begin) == (0, sum(map(len, vorbis(1))))


def test_a_missing_page_begins_a_new_stretch_with_the_headers_before_it(tmp_path):
    pages = vorbis(1, (1_000, 2_000, 3_000, 4_000))
    layout = layout_of(tmp_path, *pages[:3], *pages[4:])
    assert stretches(layout) == [[(1_000, False), (4_000, True)]]
    heads, sound = layout.streams[0].stretches[1].ranges
    assert heads == (0, len(pages[0]) + len(pages[1]))
    assert sound == (sum(map(len, pages[:3])), len(pages[4]) + len(pages[5]))


def test_a_page_with_a_flipped_bit_is_broken(tmp_path):
    pages = vorbis(1, (1_000, 2_000, 3_000))
    pages[3] = pages[3][:-1] + b"?"
    layout = layout_of(tmp_path, *pages)
    assert layout.n_broken == 1
    assert stretches(layout) == [[(1_000, False), (3_000, True)]]


def test_garbage_between_pages_costs_no_page(tmp_path):
    pages = vorbis(1)
    layout = layout_of(tmp_path, *pages[:3], b"OggS garbage " * 9, pages[3])
    assert stretches(layout) == [[(2_000, False)]]
    assert layout.n_broken >= 1
    assert not layout.is_cut


@pytest.mark.parametrize("lost", [1, 10, 40])
def test_an_end_that_is_missing_is_a_cut_and_no_broken_page(tmp_path, lost):
    raw = b"".join(vorbis(1))
    layout = layout_of(tmp_path, raw[:-lost])
    assert layout.is_cut
    assert not layout.n_broken


@pytest.mark.parametrize("tail", [b"TAG" + bytes(125), bytes(10_000)])
def test_what_is_tagged_on_behind_the_last_page_is_no_damage(tmp_path, tail):
    layout = layout_of(tmp_path, *vorbis(1), tail)
    assert layout.is_plain
    assert not layout.is_cut
    assert not layout.n_broken


def test_the_flag_of_the_last_page_shows_a_cut_between_pages(tmp_path):
    assert layout_of(tmp_path, *vorbis(1, end=False)).is_cut
    assert not layout_of(tmp_path, *vorbis(1)).is_cut


def test_sound_beside_a_film_is_found_and_the_film_is_left(tmp_path):
    sound = vorbis(7)
    film = [page(b"\x80theora", 9, 0, 2), page(b"head", 9, 1), page(b"picture", 9, 2, 4, 77)]
    for first, second in ((film[0], sound[0]), (sound[0], film[0])):
        layout = layout_of(tmp_path, first, second, film[1], sound[1], sound[2], film[2], sound[3])
        assert [stream.codec for stream in layout.streams] == ["vorbis"]
        assert stretches(layout) == [[(2_000, False)]]
        assert not layout.is_plain


def test_a_file_of_broken_headers_is_given_up(tmp_path):
    header = page(b"x" * 60_000)[:27] + bytes([255] * 255)
    layout = layout_of(tmp_path, *[header] * 3_000)
    assert layout.n_broken + layout.is_cut == 1_000
    assert not layout.streams
