"""Kaldi's binary formats for what Kaldi's Python wheels cannot write: trees, transition models and GMMs.

Tokens end in a space; an int32 is ``\\x04`` and four little-endian bytes, an uint32 ``\\xfc`` and four; a file
starts with ``\\0B`` (base/io-funcs-inl.h, tree/event-map.cc, hmm/transition-model.cc, gmm/am-diag-gmm.cc).
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from asr_kd.common.errors import UserError
from asr_kd.common.storage import atomic_open
from asr_kd.hmm.gmm import Gmms
from asr_kd.hmm.tree import Node

if TYPE_CHECKING:
    import kaldi_hmm_gmm
    from kaldi_hmm_gmm import ContextDependency, TransitionModel

BINARY = b"\0B"


# ---------------------------------------------------------------- writing


def _int(value: int) -> bytes:
    return struct.pack("<bi", 4, value)


def _ints(values: Sequence[int]) -> bytes:
    return struct.pack("<bi", 4, len(values)) + np.asarray(values, dtype="<i4").tobytes()


def _vector(values: np.ndarray) -> bytes:
    return b"FV " + _int(len(values)) + np.asarray(values, dtype="<f4").tobytes()


def _matrix(values: np.ndarray) -> bytes:
    return b"FM " + _int(values.shape[0]) + _int(values.shape[1]) + np.asarray(values, dtype="<f4").tobytes()


def tree_bytes(root: Node, context_width: int = 3, central: int = 1) -> bytes:
    """A decision tree as Kaldi writes a ContextDependency, without the ``\\0B`` of files."""
    head = b"ContextDependency " + _int(context_width) + _int(central)
    return head + b"ToPdf " + _event_map(root) + b"EndContextDependency "


def _event_map(node: Node | None) -> bytes:
    if node is None:
        return b"NULL "
    if node.leaf is not None:
        return b"CE " + _int(node.leaf)
    key = _int(node.key)
    if node.table is not None:
        size = struct.pack("<bI", -4, len(node.table))
        return b"TE " + key + size + b"( " + b"".join(map(_event_map, node.table)) + b") "
    return b"SE " + key + _ints(sorted(node.yes_set)) + b"{ " + _event_map(node.yes) + _event_map(node.no) + b"} "


def _topology_bytes(topology: kaldi_hmm_gmm.HmmTopology) -> bytes:
    phones, index, entries = topology.__getstate__()
    out = b"<Topology> " + _ints(phones) + _ints(index) + _int(len(entries))
    for entry in entries:
        out += _int(len(entry))
        for state in entry:
            out += _int(state.forward_pdf_class) + _int(len(state.transitions))
            for destination, probability in state.transitions:
                out += _int(destination) + struct.pack("<bf", 4, probability)
    return out + b"</Topology> "


def _transition_model_bytes(model: kaldi_hmm_gmm.TransitionModel) -> bytes:
    tuples = [t.__getstate__() for t in model.tuples]
    out = b"<TransitionModel> " + _topology_bytes(model.topo) + b"<Triples> " + _int(len(tuples))
    out += b"".join(_int(phone) + _int(state) + _int(pdf) for phone, state, pdf, _ in tuples)
    return out + b"</Triples> <LogProbs> " + _vector(model.log_probs) + b"</LogProbs> </TransitionModel> "


def _gmm_bytes(gmms: Gmms) -> Iterator[bytes]:
    yield b"<DIMENSION> " + _int(gmms.dim) + b"<NUMPDFS> " + _int(gmms.num_pdfs)
    for start, end in zip(gmms.starts[:-1], gmms.starts[1:], strict=True):
        yield b"<DiagGMM> <GCONSTS> " + _vector(gmms.constants[start:end])
        yield b"<WEIGHTS> " + _vector(gmms.weights[start:end])
        yield b"<MEANS_INVVARS> " + _matrix(gmms.means_inverse_variances[start:end])
        yield b"<INV_VARS> " + _matrix(gmms.inverse_variances[start:end]) + b"</DiagGMM> "


def write_model(path: Path, transitions: kaldi_hmm_gmm.TransitionModel, gmms: Gmms) -> None:
    """A transition model and its GMMs: Kaldi's ``.mdl``."""
    with atomic_open(path, "wb") as file:
        file.write(BINARY + _transition_model_bytes(transitions))
        file.writelines(_gmm_bytes(gmms))


def write_tree(path: Path, tree: bytes) -> None:
    with atomic_open(path, "wb") as file:
        file.write(BINARY + tree)


# ---------------------------------------------------------------- reading


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def token(self, *expected: str) -> str:
        end = self.data.index(b" ", self.at)
        token = self.data[self.at : end].decode("ascii")
        if expected and token not in expected:
            raise ValueError(f"{token!r} where {' or '.join(expected)} should be")
        self.at = end + 1
        return token

    def integer(self) -> int:
        return int(self._unpack("<bi")[1])

    def real(self) -> float:
        return float(self._unpack("<bf")[1])

    def _unpack(self, layout: str) -> tuple[int | float, ...]:
        size, value = struct.unpack_from(layout, self.data, self.at)
        if size != 4:
            raise ValueError(f"a number of {size} bytes where one of 4 should be")
        self.at += struct.calcsize(layout)
        return size, value

    def numbers(self, count: int, kind: str) -> np.ndarray:
        values = np.frombuffer(self.data, kind, count, self.at)
        self.at += 4 * count
        return values

    def ints(self) -> list[int]:
        return self.numbers(self.integer(), "<i4").tolist()

    def vector(self) -> np.ndarray:
        self.token("FV")
        return self.numbers(self.integer(), "<f4")

    def matrix(self) -> np.ndarray:
        self.token("FM")
        rows, columns = self.integer(), self.integer()
        return self.numbers(rows * columns, "<f4").reshape(rows, columns)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[_Reader]:
    """A reader behind the head of one of Kaldi's binary files; any damage becomes a UserError."""
    try:
        reader = _Reader(Path(path).read_bytes())
        if not reader.data.startswith(BINARY):
            raise ValueError("it is not one of Kaldi's binary files")
        reader.at = len(BINARY)
        yield reader
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run python -m asr_kd.hmm first") from None
    except (ValueError, struct.error) as error:
        raise UserError(f"{path} is damaged ({error}): run python -m asr_kd.hmm again") from None


def read_tree(path: Path) -> kaldi_hmm_gmm.ContextDependency:
    """A tree file.

    Raises:
        UserError: missing or damaged.
    """
    with _reading(path) as reader:
        if not reader.data.endswith(b"EndContextDependency "):
            raise ValueError("its end is missing")
        return make_tree(reader.data[reader.at :])


def make_tree(data: bytes) -> kaldi_hmm_gmm.ContextDependency:
    """The tree that ``tree_bytes`` described."""
    import kaldi_hmm_gmm

    tree = kaldi_hmm_gmm.ContextDependency.__new__(kaldi_hmm_gmm.ContextDependency)
    tree.__setstate__((np.frombuffer(data, np.int8).tolist(),))
    return tree


def read_model(path: Path) -> tuple[kaldi_hmm_gmm.TransitionModel, Gmms]:
    """A transition model and GMMs, as ``write_model`` or Kaldi wrote them.

    Raises:
        UserError: missing or damaged.
    """
    with _reading(path) as reader:
        return _read_transition_model(reader), _read_gmms(reader)


def read_transition_model(path: Path) -> kaldi_hmm_gmm.TransitionModel:
    """The transition model at the head of a ``.mdl``, whatever follows.

    Raises:
        UserError: missing or damaged.
    """
    with _reading(path) as reader:
        return _read_transition_model(reader)


def _read_transition_model(reader: _Reader) -> kaldi_hmm_gmm.TransitionModel:
    import kaldi_hmm_gmm
    from _kaldi_hmm_gmm import TransitionModelTuple  # the package itself does not export it

    reader.token("<TransitionModel>")
    text, entries = _read_topology(reader)
    topology = kaldi_hmm_gmm.HmmTopology()
    topology.read(text)
    reader.token("<Triples>")
    triples = [(reader.integer(), reader.integer(), reader.integer()) for _ in range(reader.integer())]
    reader.token("</Triples>")
    reader.token("<LogProbs>")
    log_probs = reader.vector()
    reader.token("</LogProbs>")
    reader.token("</TransitionModel>")
    # Everything else in the object follows from these (TransitionModel::ComputeDerived).
    first, state_of, pdf_of, stay = [0], [0], [0], [0.0]
    for number, (phone, state, pdf) in enumerate(triples, 1):
        first.append(len(state_of))
        destinations = entries[phone][state]
        loops = [i for i, destination in enumerate(destinations) if destination == state]
        stay.append(float(np.log1p(-np.exp(log_probs[len(state_of) + loops[0]]))) if loops else 0.0)
        state_of += [number] * len(destinations)
        pdf_of += [pdf] * len(destinations)
    first.append(len(state_of))
    tuples = [TransitionModelTuple(*triple, triple[2]) for triple in triples]
    model = kaldi_hmm_gmm.TransitionModel.__new__(kaldi_hmm_gmm.TransitionModel)
    pdfs = max(pdf_of) + 1
    model.__setstate__((tuples, topology, first, state_of, pdf_of, pdfs, log_probs.tolist(), stay))
    return model


def _read_topology(reader: _Reader) -> tuple[str, dict[int, list[list[int]]]]:
    """The topology as text, and for each phone and state where its transitions lead."""
    reader.token("<Topology>")
    phones, index = reader.ints(), reader.ints()
    count = reader.integer()
    if count < 0:
        raise ValueError("a topology whose self-loops have pdfs of their own (chain models) is not supported")
    text, destinations = "<Topology>\n", {}
    for number in range(count):
        mine = [phone for phone in phones if index[phone] == number]
        text += f"<TopologyEntry>\n<ForPhones> {' '.join(map(str, mine))} </ForPhones>\n"
        states: list[list[int]] = []
        for state in range(reader.integer()):
            pdf_class = reader.integer()
            arcs = [(reader.integer(), reader.real()) for _ in range(reader.integer())]
            emits = f" <PdfClass> {pdf_class}" if pdf_class >= 0 else ""
            jumps = "".join(f" <Transition> {to} {probability!r}" for to, probability in arcs)
            text += f"<State> {state}{emits}{jumps} </State>\n"
            states.append([to for to, _ in arcs])
        text += "</TopologyEntry>\n"
        destinations.update(dict.fromkeys(mine, states))
    reader.token("</Topology>")
    return text + "</Topology>\n", destinations


def _read_gmms(reader: _Reader) -> Gmms:
    reader.token("<DIMENSION>")
    reader.integer()
    reader.token("<NUMPDFS>")
    starts, weights, means, variances = [0], [], [], []
    for _ in range(reader.integer()):
        reader.token("<DiagGMM>", "<DiagGMMBegin>")
        reader.token("<GCONSTS>")
        reader.vector()
        reader.token("<WEIGHTS>")
        weights.append(reader.vector().astype(np.float64))
        reader.token("<MEANS_INVVARS>")
        scaled = reader.matrix().astype(np.float64)
        reader.token("<INV_VARS>")
        inverse = reader.matrix().astype(np.float64)
        reader.token("</DiagGMM>", "<DiagGMMEnd>")
        means.append(scaled / inverse)
        variances.append(1 / inverse)
        starts.append(starts[-1] + len(inverse))
    return Gmms(np.array(starts), np.concatenate(weights), np.concatenate(means), np.concatenate(variances))


def load_transition_model(gmm_dir: Path) -> TransitionModel:
    """The triphones' transition model.

    Raises:
        UserError: missing or damaged.
    """
    return read_transition_model(gmm_dir / "tri.mdl")


def load_tree(gmm_dir: Path) -> ContextDependency:
    """The decision tree.

    Raises:
        UserError: missing or damaged.
    """
    return read_tree(gmm_dir / "tree")
