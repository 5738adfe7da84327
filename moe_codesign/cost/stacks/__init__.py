"""Times of vLLM's and SGLang's fused MoE layers."""
