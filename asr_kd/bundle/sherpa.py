"""The network of a bundle in a form that sherpa-onnx streams: that of WeNet's CTC models.

sherpa-onnx (https://github.com/k2-fsa/sherpa-onnx) computes the log-mels, hands a model chunks of them with two caches,
and searches HCLG with Kaldi's FasterDecoder.  One cache here holds the last log-mels, the other the sums over the
speech so far.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from asr_kd.bundle.export import write_onnx
from asr_kd.bundle.network import Samples2Scores, frame_range
from asr_kd.common.errors import UserError
from asr_kd.common.storage import atomic_open, atomic_path
from asr_kd.features.front_end import MARGIN
from asr_kd.runtime.stream import Settings

#: Frames that are scored at once, and chunks in the cache of log-mels: sherpa-onnx's defaults for such models.
CHUNK, LEFT_CHUNKS = 16, 4
#: Frames after a chunk (0.44 s) that must be there: a first chunk has as many as that of a stream of asr_kd.runtime.
RIGHT = Settings().begin - CHUNK
MODEL, TOKENS = "sherpa-onnx/model.onnx", "sherpa-onnx/tokens.txt"


class Chunks2Scores(nn.Module):
    """Chunks of log-mels → scores, with the inputs and outputs of a WeNet CTC model.

    Raises:
        UserError: the network hears more than the cache holds, or the number of log-mels is odd.
    """

    def __init__(self, network: Samples2Scores, num_features: int, prior: float) -> None:
        super().__init__()
        self.prior = max(prior, Settings().prior)
        self.network, self.num_features, self.cache = network, num_features, CHUNK * LEFT_CHUNKS
        if network.left + MARGIN > self.cache or network.right > RIGHT or num_features % 2:
            raise UserError(
                f"sherpa-onnx gives a network {self.cache} frames before a chunk and {RIGHT} after it, and an even "
                f"number of log-mels: this one hears {network.left} and {network.right} of {num_features} log-mels"
            )
        self.sums = 3 + 2 * num_features
        self.kernel = -(-self.sums // (num_features // 2)) + 1  # of the convolution whose cache WeNet's would be

    def forward(
        self, chunk: Tensor, offset: Tensor, cache_size: Tensor, features: Tensor, speech: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Score a chunk.

        Args:
            chunk: (1, CHUNK + RIGHT, F) log-mels of samples of 16 bits.
            offset: (1,) frames before the chunk, plus ``cache_size``.
            features: (1, 1, cache, F) log-mels before the chunk.
            speech: (1, 1, F / 2, kernel − 1), whose first values are ``Samples2Scores``'s sums over the speech so far.
            mask: not used, as attention would.

        Returns:
            scores (1, CHUNK, C), and both caches for the next chunk.
        """
        frames = torch.cat([features[0, 0], chunk[0]])
        before = (offset - cache_size)[0]
        known = before.clamp_max(self.cache)
        raw = frames.index_select(0, frame_range(self.cache - known, torch.tensor(self.cache + CHUNK + RIGHT)))
        new = torch.where(before > 0, CHUNK, CHUNK + RIGHT)
        prior, known_sums = torch.tensor(self.prior, dtype=torch.float64), speech.flatten()[: self.sums].double()
        scores, sums, _, _ = self.network.score(raw, known_sums, new, prior, known, known + CHUNK)
        unused = speech.flatten()[self.sums :] + 0.0 * mask.float().sum()
        kept = torch.cat([sums.float(), unused]).view(1, 1, self.num_features // 2, self.kernel - 1)
        return scores[None], frames[CHUNK : CHUNK + self.cache][None, None], kept


def write_sherpa(
    network: Samples2Scores, num_features: int, num_senones: int, prior: float, blank: int, out: Path
) -> None:
    """Write sherpa-onnx/model.onnx and tokens.txt into a bundle; graph and words are the bundle's.

    Args:
        prior: frames of usual speech of the bundle.
        blank: senone of silence, whose frames sherpa-onnx counts to find the end of an utterance.
    """
    module = Chunks2Scores(network, num_features, prior)
    half = num_features // 2
    inputs = (
        torch.zeros(1, CHUNK + RIGHT, num_features), torch.tensor([module.cache]), torch.tensor([module.cache]),
        torch.zeros(1, 1, module.cache, num_features), torch.zeros(1, 1, half, module.kernel - 1),
        torch.ones(1, 1, module.cache + CHUNK, dtype=torch.bool),
    )  # fmt: skip
    names = ["chunk", "offset", "required_cache_size", "att_cache", "cnn_cache", "att_mask"]
    with atomic_path(out / MODEL) as temporary:
        write_onnx(module, inputs, names, ("scores", "next_att", "next_cnn"), temporary)
        model = onnx.load(str(temporary))
        settings = {
            "head": 1, "num_blocks": 1, "output_size": half, "cnn_module_kernel": module.kernel, "right_context": RIGHT,
            "subsampling_factor": 1, "vocab_size": num_senones, "model_type": "wenet_ctc",
        }  # fmt: skip
        onnx.helper.set_model_props(model, {name: str(value) for name, value in settings.items()})
        onnx.save(model, str(temporary))
    with atomic_open(out / TOKENS) as file:
        file.writelines(f"{'<blk>' if pdf == blank else f's{pdf}'} {pdf}\n" for pdf in range(num_senones))
