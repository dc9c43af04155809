"""Which pixels a training step draws."""
