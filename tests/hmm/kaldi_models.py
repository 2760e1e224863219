"""Kaldi's own GMM objects, as references."""

from __future__ import annotations

import kaldi_hmm_gmm
import numpy as np

from asr_kd.hmm.gmm import Gmms


def kaldi_gmms(gmms: Gmms) -> kaldi_hmm_gmm.AmDiagGmm:
    model = kaldi_hmm_gmm.AmDiagGmm()
    for start, end in zip(gmms.starts[:-1], gmms.starts[1:], strict=True):
        one = kaldi_hmm_gmm.DiagGmm(int(end - start), gmms.dim)
        one.set_weights(gmms.weights[start:end].astype(np.float32))
        one.set_invvars_and_means(gmms.inverse_variances[start:end], gmms.means[start:end].astype(np.float32))
        one.compute_gconsts()
        model.add_pdf(one)
    return model
