"""The second phase: codes that keep inner products, and the loss they are trained with."""
