"""Kaldi's binary format of trees, transition models and GMMs, which its Python wheels cannot write.

A file starts with ``\\0B``.  Tokens end with a space; an int32 is ``\\x04`` and four little-endian bytes, a uint32
``\\xfc`` and four (base/io-funcs-inl.h, tree/event-map.cc, hmm/transition-model.cc, gmm/am-diag-gmm.cc).
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from asr_kd.common.errors import UserError
from asr_kd.common.files import all_finite
from asr_kd.common.storage import atomic_open, verify
from asr_kd.hmm.gmm import Gmms
from asr_kd.hmm.tree import Node

if TYPE_CHECKING:
    import kaldi_hmm_gmm

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
    """Return a decision tree as Kaldi writes a ContextDependency, without the ``\\0B`` of files."""
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
    """Write a transition model and its GMMs as a Kaldi ``.mdl`` file.

    Raises:
        UserError: a Gaussian is not finite.
    """
    if not all_finite(gmms.parameters):
        raise UserError(f"the Gaussians of {path.name} are not finite: make the features again")
    with atomic_open(path, "wb") as file:
        file.write(BINARY + _transition_model_bytes(transitions))
        file.writelines(_gmm_bytes(gmms))


def write_tree(path: Path, tree: bytes) -> None:
    """Write the bytes from ``tree_bytes`` to a file."""
    with atomic_open(path, "wb") as file:
        file.write(BINARY + tree)


# ---------------------------------------------------------------- reading


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.position = data, 0

    def token(self, *expected: str) -> str:
        end = self.data.index(b" ", self.position)
        token = self.data[self.position : end].decode("ascii")
        if expected and token not in expected:
            raise ValueError(f"found {token!r} instead of {' or '.join(expected)}")
        self.position = end + 1
        return token

    def integer(self) -> int:
        return int(self._unpack("<bi")[1])

    def real(self) -> float:
        return float(self._unpack("<bf")[1])

    def unsigned(self) -> int:
        value: int = struct.unpack_from("<bI", self.data, self.position)[1]
        self.position += 5
        return value

    def _unpack(self, layout: str) -> tuple[int | float, ...]:
        size, value = struct.unpack_from(layout, self.data, self.position)
        if size != 4:
            raise ValueError(f"found a number of {size} bytes instead of 4")
        self.position += struct.calcsize(layout)
        return size, value

    def numbers(self, count: int, kind: str) -> np.ndarray:
        if count < 0:
            raise ValueError(f"found {count} numbers")
        values = np.frombuffer(self.data, kind, count, self.position)
        self.position += 4 * count
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
    """Open a reader after the header of a Kaldi binary file; any damage raises a UserError."""
    try:
        reader = _Reader(verify(Path(path)).read_bytes())
        if not reader.data.startswith(BINARY):
            raise ValueError("it is not a Kaldi binary file")
        reader.position = len(BINARY)
        yield reader
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run python -m asr_kd.hmm first") from None
    except (OSError, ValueError, LookupError, MemoryError, RuntimeError, struct.error) as error:
        reason = " ".join(str(error).split())  # Kaldi's have several lines
        raise UserError(f"{path} is damaged ({reason}): run python -m asr_kd.hmm again") from None


def read_tree(path: Path) -> kaldi_hmm_gmm.ContextDependency:
    """Read a tree file.

    Raises:
        UserError: the file is missing or damaged.
    """
    with _reading(path) as reader:
        if not reader.data.endswith(b"EndContextDependency "):
            raise ValueError("its end is missing")
        return make_tree(reader.data[reader.position :])


def make_tree(data: bytes) -> kaldi_hmm_gmm.ContextDependency:
    """Return Kaldi's tree object for the bytes from ``tree_bytes``."""
    import kaldi_hmm_gmm

    tree = kaldi_hmm_gmm.ContextDependency.__new__(kaldi_hmm_gmm.ContextDependency)
    tree.__setstate__((np.frombuffer(data, np.int8).tolist(),))
    return tree


def read_nodes(path: Path) -> Node:
    """Read a tree file as ``tree_bytes`` takes it.

    Raises:
        UserError: the file is missing or damaged, or its contexts are not of three phones.
    """
    with _reading(path) as reader:
        reader.token("ContextDependency")
        if (reader.integer(), reader.integer()) != (3, 1):
            raise ValueError("its contexts are not of three phones")
        reader.token("ToPdf")
        root = _read_node(reader)
        if root is None:
            raise ValueError("it is empty")
        return root


def _read_node(reader: _Reader) -> Node | None:
    kind = reader.token("NULL", "CE", "TE", "SE")
    if kind == "NULL":
        return None
    if kind == "CE":
        return Node(leaf=reader.integer())
    key = reader.integer()
    if kind == "SE":
        yes_set = frozenset(reader.ints())
        reader.token("{")
        yes, no = _read_node(reader), _read_node(reader)
        reader.token("}")
        return Node(key=key, yes_set=yes_set, yes=yes, no=no)
    size = reader.unsigned()
    reader.token("(")
    table = tuple(_read_node(reader) for _ in range(size))
    reader.token(")")
    return Node(key=key, table=table)


def read_model(path: Path) -> tuple[kaldi_hmm_gmm.TransitionModel, Gmms]:
    """Read the transition model and the GMMs of a ``.mdl`` file.

    Raises:
        UserError: the file is missing or damaged.
    """
    with _reading(path) as reader:
        transitions, gmms = _read_transition_model(reader), _read_gmms(reader)
        if not all_finite(gmms.parameters):
            raise ValueError("a Gaussian is not finite")
        return transitions, gmms


def read_transition_model(path: Path) -> kaldi_hmm_gmm.TransitionModel:
    """Read the transition model of a ``.mdl`` file, which may hold any acoustic model.

    Raises:
        UserError: the file is missing or damaged.
    """
    with _reading(path) as reader:
        return _read_transition_model(reader)


def _read_transition_model(reader: _Reader) -> kaldi_hmm_gmm.TransitionModel:
    import kaldi_hmm_gmm
    from _kaldi_hmm_gmm import TransitionModelTuple  # the package does not export it

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
    # The other tables are derived from these (TransitionModel::ComputeDerived).
    first, state_of, pdf_of, non_loop_log_probs = [0], [0], [0], [0.0]
    for number, (phone, state, pdf) in enumerate(triples, 1):
        first.append(len(state_of))
        destinations = entries[phone][state]
        loops = [i for i, destination in enumerate(destinations) if destination == state]
        leave = np.log1p(-np.exp(log_probs[len(state_of) + loops[0]])) if loops else 0.0
        non_loop_log_probs.append(float(leave))
        state_of += [number] * len(destinations)
        pdf_of += [pdf] * len(destinations)
    first.append(len(state_of))
    tuples = [TransitionModelTuple(*triple, triple[2]) for triple in triples]
    model = kaldi_hmm_gmm.TransitionModel.__new__(kaldi_hmm_gmm.TransitionModel)
    pdfs = max(pdf_of) + 1
    model.__setstate__((tuples, topology, first, state_of, pdf_of, pdfs, log_probs.tolist(), non_loop_log_probs))
    return model


def _read_topology(reader: _Reader) -> tuple[str, dict[int, list[list[int]]]]:
    """Return the topology as text, and the destinations of the transitions of each phone and state."""
    reader.token("<Topology>")
    phones, index = reader.ints(), reader.ints()
    count = reader.integer()
    if count < 0:
        raise ValueError("topologies with separate pdfs for self-loops (chain models) are not supported")
    text, destinations = "<Topology>\n", {}
    for number in range(count):
        members = [phone for phone in phones if index[phone] == number]
        text += f"<TopologyEntry>\n<ForPhones> {' '.join(map(str, members))} </ForPhones>\n"
        states: list[list[int]] = []
        for state in range(reader.integer()):
            pdf_class = reader.integer()
            arcs = [(reader.integer(), reader.real()) for _ in range(reader.integer())]
            emission = f" <PdfClass> {pdf_class}" if pdf_class >= 0 else ""
            transitions = "".join(f" <Transition> {to} {probability!r}" for to, probability in arcs)
            text += f"<State> {state}{emission}{transitions} </State>\n"
            states.append([to for to, _ in arcs])
        text += "</TopologyEntry>\n"
        destinations.update(dict.fromkeys(members, states))
    reader.token("</Topology>")
    return text + "</Topology>\n", destinations


def _read_gmms(reader: _Reader) -> Gmms:
    reader.token("<DIMENSION>")
    reader.integer()
    reader.token("<NUMPDFS>")
    starts, weights, scaled, inverse = [0], [], [], []
    for _ in range(reader.integer()):
        reader.token("<DiagGMM>", "<DiagGMMBegin>")
        reader.token("<GCONSTS>")
        reader.vector()
        reader.token("<WEIGHTS>")
        weights.append(reader.vector())
        reader.token("<MEANS_INVVARS>")
        scaled.append(reader.matrix())
        reader.token("<INV_VARS>")
        inverse.append(reader.matrix())
        reader.token("</DiagGMM>", "<DiagGMMEnd>")
        starts.append(starts[-1] + len(inverse[-1]))
    precisions = np.concatenate(inverse).astype(np.float64)
    means = np.concatenate(scaled) / precisions
    return Gmms(np.array(starts), np.concatenate(weights).astype(np.float64), means, 1 / precisions)
