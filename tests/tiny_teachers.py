"""A teacher that takes milliseconds: the linear bundle with the means of its bands as embedding."""

import msgspec
import onnx
from make_bundles import write_bundle
from onnx import TensorProto, helper
from tiny_clips import LABELS, TINY_FRONTEND

from birdinfer import Bundle
from birdinfer.inference.bundle import file_sha256, save_manifest
from birdinfer.inference.trained_on import RECORD


def write_teacher(folder, members=1, frontend=TINY_FRONTEND, labels=LABELS, folds=None):
    """A bundle whose members have embeddings of 16 numbers; ``folds``: what they were trained on."""
    write_bundle(folder, members, frontend, labels)
    manifest = Bundle.load(folder).manifest
    changed = []
    for member in manifest.members:
        path = folder / member.graphs["fp32"].file
        model = onnx.load(path)
        model.graph.output.append(
            helper.make_tensor_value_info("scaled", TensorProto.FLOAT, ["batch", frontend.mel.n_mels])
        )
        onnx.save(model, path)
        graph = msgspec.structs.replace(member.graphs["fp32"], sha256=file_sha256(path))
        outputs = msgspec.structs.replace(member.outputs, embedding="scaled")
        changed.append(msgspec.structs.replace(member, graphs={"fp32": graph}, outputs=outputs))
    save_manifest(folder, msgspec.structs.replace(manifest, members=tuple(changed)))
    if folds is not None:
        lines = ["filename,fold", *(f"{name},{fold}" for name, fold in folds.items())]
        (folder / RECORD).write_text("\n".join([*lines, ""]))
    return folder
