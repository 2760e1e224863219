"""GMM-HMM: topology, training, decision tree, forced alignment (one senone per frame), and the graph HCLG."""
