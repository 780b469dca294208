"""From files to tensors: reading, sampling, augmenting, generating and batching videos with their sound."""
