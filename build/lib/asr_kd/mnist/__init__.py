"""The paper's MNIST experiments (section 3).

``python -m asr_kd.mnist`` trains one network, ``python -m asr_kd.mnist.study`` trains all of them.
"""
