"""The picture of rounds shows what their table holds."""

from birdinfer.plots.rounds import draw_rounds, rounds_figure

TABLE = """round,recipe,macro_auc,gain,low,high,is_sure,pseudo_windows,seconds,best
0,b0,0.7312,,,,yes,0,812,
1,v2s,0.7633,+0.0321,+0.0110,+0.0522,yes,2304,1011,*
2,b0,0.7590,-0.0043,-0.0140,+0.0090,no,2304,1020,
"""


def test_rounds_are_drawn_with_their_gains_and_the_best_is_marked(tmp_path):
    table = tmp_path / "rounds.csv"
    table.write_text(TABLE)
    above, below = rounds_figure(table).axes
    assert above.lines[0].get_xydata().tolist() == [[0, 0.7312], [1, 0.7633], [2, 0.7590]]
    assert [points.get_offsets().tolist() for points in above.collections] == [[[1, 0.7633]]]
    gains = [points.get_offsets().tolist()[0] for points in below.collections]
    assert gains == [[1, 0.0321], [2, -0.0043]]
    intervals = [line.get_ydata() for line in below.lines[1:]]
    assert [list(each) for each in intervals] == [[0.0110, 0.0522], [-0.0140, 0.0090]]
    draw_rounds(table, tmp_path / "rounds.png")
    assert (tmp_path / "rounds.png").read_bytes().startswith(b"\x89PNG")
