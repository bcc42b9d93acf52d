"""An archive of a few seconds, with what archives have: two sites, a cut file, one that is no sound, two channels."""

import numpy as np
import pytest
from make_bundles import SAMPLE_RATE, tone, write_sound

from birdinfer.callbacks import Callback
from birdinfer.inference.bundle import Bundle
from birdinfer.scale.plan import PlanSettings, make_plan_at


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    for index, site in enumerate(("siteA", "siteB")):
        (folder / site).mkdir()
        for hour in (6, 7):
            sound = tone(12.0, seed=index + hour, hz=700.0 * (index + hour - 5))
            write_sound(folder / site / f"20250227_{hour:02d}0000.wav", sound, SAMPLE_RATE)
    whole = folder / "siteA" / "20250227_060000.wav"
    (folder / "siteA" / "20250227_080000.wav").write_bytes(whole.read_bytes()[:300_000])
    (folder / "siteB" / "20250227_080000.wav").write_text("not sound")
    write_sound(folder / "siteB" / "stereo.wav", np.stack([tone(6.0), tone(6.0, seed=1)], axis=1), SAMPLE_RATE)
    return folder


@pytest.fixture
def planned(tmp_path, bundle):
    """Make a plan of an archive whose units are one to two files each."""

    def plan(inputs, where=None, **settings):
        settings = {"unit_seconds": 1e-9, **settings}
        where = where or tmp_path / "plan"
        return make_plan_at(str(where), [str(inputs)], Bundle.load(bundle), PlanSettings(**settings), Callback())

    return plan
