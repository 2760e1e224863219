"""The paper's DNN, its checkpoints, and posteriors of networks and ensembles."""
