import sys

import pytest
import torch

from birdinfer.errors import MissingExtraError
from birdinfer.training.models import timm_import as torchvision_shim
from birdinfer.training.models.timm_import import import_timm


class TestTorchvisionShim:
    """Only the one failure is cured, and only where it happens."""

    @pytest.fixture
    def imports(self, monkeypatch):
        """Answer imports of torchvision with these outcomes, one after the other; schemas go to a stand-in."""
        asked, defined = [], []

        class Library:
            def __init__(self, *_):
                pass

            def define(self, schema):
                defined.append(schema)

        monkeypatch.setattr(torch.library, "Library", Library)

        def answer(*outcomes):
            queue = list(outcomes)

            def import_module(name):
                asked.append(name)
                outcome = queue.pop(0) if queue else None
                if isinstance(outcome, Exception):
                    raise outcome
                return outcome

            monkeypatch.setattr(torchvision_shim.importlib, "import_module", import_module)
            return asked, defined

        return answer

    def test_a_torchvision_that_imports_is_left_alone(self, imports):
        asked, defined = imports("torchvision", "timm")
        assert import_timm() == "timm"
        assert asked == ["torchvision", "timm"]
        assert defined == []

    def test_cures_the_missing_operator(self, imports, monkeypatch):
        asked, defined = imports(RuntimeError("operator torchvision::nms does not exist"), "torchvision", "timm")
        monkeypatch.setitem(sys.modules, "torchvision.half_imported", object())
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            monkeypatch.setitem(sys.modules, name, sys.modules[name])  # restored afterwards
        assert import_timm() == "timm"
        assert asked == ["torchvision", "torchvision", "timm"]
        assert [schema.split("(")[0] for schema in defined] == ["nms", "qnms"]
        assert "torchvision.half_imported" not in sys.modules

    def test_another_failure_is_not_hidden(self, imports):
        imports(RuntimeError("something else"))
        with pytest.raises(RuntimeError, match="something else"):
            import_timm()

    def test_without_torchvision_timm_decides(self, imports):
        imports(ModuleNotFoundError("torchvision"), "timm")
        assert import_timm() == "timm"

    def test_without_timm(self, imports):
        imports("torchvision", ModuleNotFoundError("timm"))
        with pytest.raises(MissingExtraError, match=r"pip install \"birdinfer\[train\]\""):
            import_timm()
