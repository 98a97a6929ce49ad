"""CoT Distillery: builders, views, losses and teachers for reasoning distillation."""

__version__ = "0.1.0"
