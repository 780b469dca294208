from __future__ import annotations

import torch

# Threads that wait for each other on a busy machine make small problems a hundred times slower.
torch.set_num_threads(1)
