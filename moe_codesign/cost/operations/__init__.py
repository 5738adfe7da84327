"""Times of the operations that a whole model's step is made of, other than its fused MoE layers."""
