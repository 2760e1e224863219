"""The paper's study of MNIST (section 3).

``python -m asr_kd.mnist`` trains one network, ``python -m asr_kd.mnist.study`` all of them.
"""
