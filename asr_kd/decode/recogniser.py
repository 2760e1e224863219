"""What the flags describe, without slow imports: models, graph and interpreter, and the options of a search."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json
from asr_kd.decode import kernel
from asr_kd.decode.client import By
from asr_kd.decode.config import Config
from asr_kd.decode.output import read_tuned
from asr_kd.decode.prepare import find_k2_python, prepared_graph
from asr_kd.decode.worker import SearchOptions
from asr_kd.models.front_end import check_same_front_end
from asr_kd.models.senones import check_same_senones
from asr_kd.specialists.files import specialist_folders


@dataclass(frozen=True)
class Recogniser:
    """Everything that a process needs to build a decoder (see ``pipeline.build_decoder``).

    Attributes:
        models: folders of networks, or that of the GMM.
        features: folder of the features, with their normalisation.
        num_pdfs: number of senones of the graph.
        silence_pdfs: senones of silence.
        mean: how the posteriors of an ensemble are averaged.
        specialists: folders of specialists that are combined with the one network.
        top_k: specialists are active that cover one of its top-k senones.
        graph: folder of the graph, converted for k2.
        by: the interpreter of the search processes, which has k2; or what searches in this process.
        batch: maximum number of utterances per search.
        words: folder of the graph, with words.txt and the language model.
        rescore: ARPA model for the second pass.
        mbr: whether the second pass minimises the expected errors.
        times: whether the second pass finds the times and confidences of the words.
    """

    models: tuple[Path, ...]
    features: Path
    num_pdfs: int
    silence_pdfs: tuple[int, ...]
    mean: Literal["arithmetic", "geometric"]
    specialists: tuple[Path, ...]
    top_k: int
    graph: Path
    by: By
    batch: int
    words: Path
    rescore: Path | None
    mbr: bool
    times: bool


def find_specialists(config: Config) -> list[Path]:
    """The folders of the specialists in --specialists; none without that flag.

    Raises:
        UserError: the folder has no specialists.
    """
    if config.specialists is None:
        return []
    folders = specialist_folders(config.specialists)
    if not folders:
        raise UserError(f"{config.specialists} has no specialists: train some (python -m asr_kd.specialists.train)")
    return folders


def make_recogniser(config: Config) -> Recogniser:
    """The recogniser that the flags describe; the graph is converted for k2 if necessary.

    Raises:
        UserError: the graph or a specialist is missing, no interpreter has k2, or there is no kernel.
    """
    python = None if config.in_process else find_k2_python(config.k2_python)
    graph = prepared_graph(config.graph, python, config.cache)
    if config.search == "kernel":
        kernel.required()
    by: By = "kernel" if config.search == "kernel" else python or "k2"
    description = read_json(config.graph / "graph.json")
    num_pdfs, silence = int(description["num_pdfs"]), tuple(description.get("silence_pdfs", ()))
    for model in config.model:
        check_same_senones(model, config.graph)
    check_same_front_end(config.model, config.features)
    specialists = tuple(find_specialists(config))
    return Recogniser(
        config.model, config.features, num_pdfs, silence, config.mean, specialists, config.top_k, graph, by,
        config.batch, config.graph, config.rescore, config.mbr, config.with_times,
    )  # fmt: skip


def search_options(config: Config) -> SearchOptions:
    """The options of a search by the flags; those of --tuned replace --acoustic-scale and --insertion-penalty."""
    scale, penalty = config.acoustic_scale, config.insertion_penalty
    if config.tuned is not None:
        scale, penalty = read_tuned(config.tuned)
    return SearchOptions(
        beam=config.beam, lattice_beam=config.lattice_beam, min_active=config.min_active,
        max_active=config.max_active, acoustic_scale=scale, insertion_penalty=penalty, lattice=config.lattices,
    )  # fmt: skip
