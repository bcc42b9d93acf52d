"""Pack a head into a bundle: behind its encoder in one graph, or as a second graph over the windows of a file.

In: the bundle that made the embeddings, and a head that was fitted to them. Out: a bundle that predicts the head's
species in one pass, like any other, with the scores that the head has in Python.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import onnx
import torch

from birdinfer.errors import BundleError
from birdinfer.export.onnx.torch_export import OPSET, quiet_exporter
from birdinfer.heads.graph import OUTPUT, encoder_graph, own_layer, set_labels, with_head
from birdinfer.heads.sequence import OwnLogits, SequenceNetwork, Shifted, predict_file
from birdinfer.heads.window_head import WindowHead
from birdinfer.inference.bundle import Bundle, file_sha256, save_manifest
from birdinfer.inference.engines import EnginePlan
from birdinfer.inference.manifest import FORMAT, Graph, Manifest, Member, Outputs, Provenance, SequenceHead
from birdinfer.inference.member_group import MemberScores, load_member_groups, sample_shape
from birdinfer.inference.predictor import Predictor
from birdinfer.inference.sequence import sequence_input, site_and_hours
from birdinfer.postprocess.config import PostConfig
from birdinfer.species import Species, SpeciesNames
from birdinfer.system.files import atomic_folder, write_atomic
from birdinfer.typing import Float32
from birdinfer.version import __version__

MAX_DIFFERENCE = 1e-5
"""Of a probability, between the packed graph and the head in Python."""
_SEQUENCE = "sequence.onnx"


@dataclass(frozen=True, kw_only=True, slots=True)
class FittedSequence:
    """A head over the windows of a file, as it was fitted."""

    network: Shifted
    n_windows: int
    sites: tuple[str, ...]
    stride_seconds: float
    """Of the windows of its embeddings."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadFacts:
    """What a manifest says of a head."""

    species: Sequence[Species]
    """In the order of the head's columns."""
    fallback: Float32
    """Probability of each species for a file that cannot be read."""
    macro_auc: float | None
    """Of the cross-validation."""
    recipe: dict[str, object]
    """How it was fitted."""


def pack_head(
    encoder: Bundle, member_name: str, head: WindowHead | FittedSequence, facts: HeadFacts, folder: Path
) -> Bundle:
    """Make a bundle of a member of another one with a head in the place of its last layer.

    Args:
        encoder: the bundle whose embeddings the head was fitted to.
        member_name: of the member that gave them.
        head: scores the species of the facts.
        facts: for the manifest.
        folder: of the new bundle; must be free, or an older head's.

    Raises:
        BundleError: the graph has no such embedding, or the packed one scores otherwise than the head.
        OutputError: the folder cannot be written, or holds something else.
    """
    member = next(each for each in encoder.manifest.members if each.name == member_name)
    labels = tuple(each.label for each in facts.species)
    hint = "name another folder with -o"
    with atomic_folder(folder, "a bundle", hint) as staging:
        file = staging / f"{member.name}.onnx"
        make = _window_member if isinstance(head, WindowHead) else _sequence_member
        packed = msgspec.structs.replace(
            make(encoder, member, head, labels, file),  # type: ignore[arg-type]  # each with its own kind
            graphs={"fp32": Graph(file.name, file_sha256(file))}, label_columns=None, weight=1.0, fold=None,
            out_of_fold_macro_auc=facts.macro_auc, variants=(),
        )  # fmt: skip
        fallback = tuple(round(float(each), 7) for each in np.clip(facts.fallback, 0, 1))
        manifest = Manifest(
            format=FORMAT, name=folder.resolve().name, species=tuple(facts.species), rows=encoder.manifest.rows,
            post=PostConfig((1.0,)), members=(packed,), fallback_probabilities=fallback,
            provenance=Provenance(
                created_utc=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), run=f"head on {encoder.manifest.name}",
                versions={**encoder.manifest.provenance.versions, "birdinfer": __version__}, recipe=facts.recipe,
            ),
        )  # fmt: skip
        save_manifest(staging, manifest)
        if isinstance(head, WindowHead):
            _check_window_scores(Bundle.load(staging), head)
        else:
            _check_sequence_scores(Bundle.load(staging), head)
    return Bundle.load(folder)


def _window_member(encoder: Bundle, member: Member, head: WindowHead, labels: tuple[str, ...], file: Path) -> Member:
    path = encoder.graph_path(member.graphs["fp32"])
    model = with_head(path, member.outputs.embedding or "", head, labels)
    write_atomic(file, model.SerializeToString())
    return msgspec.structs.replace(
        member, outputs=Outputs(clip=OUTPUT, activation=head.activation, embedding=member.outputs.embedding),
        aggregation=msgspec.structs.replace(member.aggregation, frame_share=0.0), sequence=None,
    )  # fmt: skip


def _sequence_member(
    encoder: Bundle, member: Member, head: FittedSequence, labels: tuple[str, ...], file: Path
) -> Member:
    embedding = member.outputs.embedding or ""
    model = encoder_graph(encoder.graph_path(member.graphs["fp32"]), embedding)
    set_labels(model, labels)
    write_atomic(file, model.SerializeToString())
    network = head.network.network
    assert isinstance(network, SequenceNetwork)
    path = file.with_name(_SEQUENCE)
    _export(head, network.n_numbers, labels, path)
    return msgspec.structs.replace(
        member, outputs=Outputs(clip=None, embedding=embedding),
        aggregation=msgspec.structs.replace(
            member.aggregation, frame_share=0.0, stride_seconds=head.stride_seconds),
        sequence=SequenceHead(
            graph=Graph(path.name, file_sha256(path)), n_windows=head.n_windows, n_numbers=network.n_numbers,
            sites=head.sites),
    )  # fmt: skip


def _export(head: FittedSequence, n_numbers: int, labels: tuple[str, ...], path: Path) -> None:
    """Write the network as a graph for one sequence; with a batch, scores could depend on it."""
    import onnxslim

    example = torch.zeros(1, head.n_windows, n_numbers + 2)
    raw = path.with_name(f"raw-{path.name}")
    with torch.no_grad(), quiet_exporter():
        torch.onnx.export(
            head.network, (example,), raw, dynamo=False, opset_version=OPSET, input_names=["windows"],
            output_names=["logits"],
        )  # fmt: skip
    model: onnx.ModelProto = onnxslim.slim(onnx.load(raw))
    raw.unlink()
    set_labels(model, labels)
    onnx.checker.check_model(model, full_check=True)
    write_atomic(path, model.SerializeToString())


def own_logits(encoder: Bundle, member: Member, species: Sequence[Species]) -> OwnLogits | None:
    """Find what an encoder scores itself of some species, known by label or scientific name; None if nothing."""
    graph = onnx.load(encoder.graph_path(member.graphs["fp32"])).graph
    layer = own_layer(graph, member.outputs.clip, member.outputs.embedding or "")
    if layer is None:
        return None
    weights, offsets = layer
    columns = member.label_columns or {label: column for column, label in enumerate(encoder.labels)}
    names = SpeciesNames(encoder.manifest.species)
    found: dict[int, int] = {}
    for index, each in enumerate(species):
        meant = names.find(each.label) or (names.find(each.scientific_name) if each.scientific_name else ())
        if len(meant) == 1 and isinstance(own := columns.get(meant[0]), int):
            found[index] = own
    if not found:
        return None
    of = list(found.values())
    return OwnLogits(np.ascontiguousarray(weights[:, of]), offsets[of], np.array(list(found), np.intp))


def _noise(bundle: Bundle, n_windows: int) -> list[MemberScores]:
    """What the member gives for windows of noise."""
    (group,) = load_member_groups(bundle, EnginePlan(), embeddings=True)
    shape = sample_shape(group.input_config)
    noise = np.random.default_rng(0).normal(0, 0.1, (n_windows, *shape)).astype(np.float32)
    return group.score(0, noise)


def _check_window_scores(bundle: Bundle, head: WindowHead) -> None:
    """Hold the packed graph against the head, on noise."""
    (scores,) = _noise(bundle, 2)
    if scores.clip is None or scores.embeddings is None:
        raise BundleError(bundle.folder, "gives no scores or no embeddings", "predict the embeddings again")
    _check_difference(bundle, scores.clip, head.predict(scores.embeddings))


def _check_sequence_scores(bundle: Bundle, head: FittedSequence) -> None:
    """Hold the head's graph against the network, on a file of noise that is longer than a sequence."""
    scores = _noise(bundle, head.n_windows + 2)
    sequences = Predictor(bundle).file_sequences("noise")
    found = [*sequences.add(scores), *sequences.finish()]
    values = scores[0].embeddings
    assert values is not None  # else add had raised
    site, hours = site_and_hours("noise", head.sites, [0.0] * len(values))
    inputs = sequence_input(values, np.full(len(values), site), np.array(hours), 0, len(values))
    packed = np.concatenate([each.clip for each in found if each.clip is not None])
    _check_difference(bundle, packed, predict_file(head.network, inputs, head.n_windows))


def _check_difference(bundle: Bundle, packed: Float32, plain: Float32) -> None:
    most = float(np.abs(packed - plain).max())
    if not most <= MAX_DIFFERENCE:
        raise BundleError(bundle.folder, f"scores otherwise than the head in Python, by {most:.2g}")
