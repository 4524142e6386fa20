"""Training: the loop, its checkpoints, and several processes that share a batch."""

from repro.training.loop import NonFiniteLossError, TrainingSettings, TrainingStopped, default_key, epoch_seed, train

__all__ = ["NonFiniteLossError", "TrainingSettings", "TrainingStopped", "default_key", "epoch_seed", "train"]
