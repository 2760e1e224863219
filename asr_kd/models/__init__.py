"""The paper's DNN, checkpoints, and the posteriors of networks and ensembles."""
