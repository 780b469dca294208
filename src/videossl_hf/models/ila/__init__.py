"""ILA: implicit temporal modelling with learnable alignment, on CLIP."""
