"""The network of a bundle as ONNX, in float32 and quantised to int8."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor, nn

from asr_kd.bundle.network import INPUTS, OUTPUTS, Samples2Scores
from asr_kd.common.storage import atomic_path
from asr_kd.runtime.bundle import Bundle
from asr_kd.runtime.network import whole_inputs

OPSET = 17


def export_float(network: Samples2Scores, num_features: int, path: Path) -> None:
    """Write a network as ONNX."""
    inputs = (
        torch.zeros(network.front_end.sampling_rate), torch.zeros(3 + 2 * num_features, dtype=torch.float64),
        torch.tensor(90), torch.tensor(0.0, dtype=torch.float64), torch.tensor(3), torch.tensor(50),
    )  # fmt: skip
    dynamic = {"samples": {0: "samples"}, "scores": {0: "frames"}, "features": {0: "all"}, "loudness": {0: "all"}}
    with atomic_path(path) as temporary:
        write_onnx(network, inputs, INPUTS, OUTPUTS, temporary, dynamic)
        _transpose_weights(temporary)


def _transpose_weights(path: Path) -> None:
    """Store the weights that a network transposes as they are used: only such weights are quantised."""
    model = onnx.load(str(path))
    graph = model.graph
    weights = {weight.name: weight for weight in graph.initializer}
    transposed = [node for node in graph.node if node.op_type == "Transpose" and node.input[0] in weights]
    for node in transposed:
        axes = next((attribute.ints for attribute in node.attribute if attribute.name == "perm"), None)  # all, reversed
        weight = onnx.numpy_helper.to_array(weights[node.input[0]]).transpose(axes)
        graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(weight), node.output[0]))
        graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    for name in {node.input[0] for node in transposed} - used:
        graph.initializer.remove(weights[name])
    onnx.save(model, str(path))


def write_onnx(
    module: nn.Module, inputs: tuple[Tensor, ...], names: Sequence[str], outputs: Sequence[str], path: Path,
    dynamic: Mapping[str, Mapping[int, str]] | None = None,
) -> None:  # fmt: skip
    """Trace a module with ``inputs`` and write it as ONNX.

    Args:
        names, outputs: of its inputs and outputs.
        dynamic: dimensions that change, by name and number.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter is old, and knows the shapes of streams
        torch.onnx.export(
            module.eval(), inputs, str(path), input_names=list(names), output_names=list(outputs),
            dynamic_axes=dynamic, dynamo=False, opset_version=OPSET,
            do_constant_folding=False,  # onnxruntime does it when it loads the file, which stays small
        )  # fmt: skip


def export_int8(path: Path, bundle: Bundle, utterances: Iterable[np.ndarray], out: Path) -> None:
    """Write the network in ``path`` with 8-bit products; what comes before and after it stays as it is.

    Args:
        utterances: samples (N,) from which the ranges of the values are taken.
    """
    with tempfile.TemporaryDirectory() as scratch, atomic_path(out) as temporary:
        prepared = Path(scratch) / "prepared.onnx"
        # Without optimisation, which would write out what is computed of constants.
        quant_pre_process(str(path), str(prepared), skip_optimization=True, skip_symbolic_shape=True)
        nodes = onnx.load(str(prepared)).graph.node
        kept = [node.name for node in nodes if node.name.startswith("/front_end/")]
        logging.getLogger().setLevel(logging.WARNING)  # onnxruntime logs through the root
        try:
            quantize_static(
                str(prepared), str(temporary), _Reader(bundle, utterances), quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["MatMul", "Gemm"], per_channel=True, activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8, nodes_to_exclude=kept,
                # Weights of 7 bits: processors with AVX2 alone add two products in 16 bits, which 8 bits overflow.
                reduce_range=True,
            )  # fmt: skip
        finally:
            logging.getLogger().setLevel(logging.INFO)
        model = onnx.load(str(temporary))
        del model.graph.value_info[:]  # shapes between layers, for nobody
        onnx.save(model, str(temporary))


class _Reader(CalibrationDataReader):
    """Feeds of whole utterances."""

    def __init__(self, bundle: Bundle, utterances: Iterable[np.ndarray]) -> None:
        self._feeds = self._make(bundle, utterances)

    @staticmethod
    def _make(bundle: Bundle, utterances: Iterable[np.ndarray]) -> Iterator[dict[str, Any]]:
        for samples in utterances:
            yield whole_inputs(bundle, samples)

    def get_next(self) -> dict[str, Any] | None:
        return next(self._feeds, None)
