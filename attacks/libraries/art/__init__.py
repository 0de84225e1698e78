"""Attacks of the Adversarial Robustness Toolbox (Nicolae et al. 2018), aimed at retrieval."""
