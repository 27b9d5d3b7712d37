"""What does each layer of the encoder and of the LM hold? Probes, controls, erasure, projections."""
