"""What other tools call the columns of a problem table; lower case, blanks and hyphens as underscores."""

_SPELLINGS = {
    "chip": "gpu gpu_name device_name",
    "stack": "framework backend",
    "dtype": "data_type precision moe_dtype quant quantization torch_dtype",
    "routing": "distribution routing_distribution expert_distribution",
    "seed": "random_seed",
    "kernel": "kernel_name",
    "tile": "tile_config",
    "hidden_size": "hidden_dim d_model model_dim",
    "moe_intermediate_size": "inter_size moe_inter_size expert_intermediate_size expert_hidden_size "
    "expert_ffn_hidden_size moe_ffn_hidden_size",
    "num_experts": "n_routed_experts num_routed_experts moe_num_experts n_experts",
    "num_experts_per_tok": "topk top_k num_topk moe_topk moe_top_k moe_k num_experts_per_token experts_per_token",
    "num_tokens": "tokens n_tokens",
    "n_shared_experts": "num_shared_experts num_shared_expert n_shared_expert moe_num_shared_experts",
    "gated": "is_gated",
    "tp": "tp_size moe_tp moe_tp_size tensor_parallel_size tensor_model_parallel_size",
    "ep": "ep_size moe_ep moe_ep_size expert_parallel_size expert_model_parallel_size",
    "groups": "num_groups n_groups",
}
_LOOKALIKES = {
    "chip": "device system hardware accelerator sku",
    "op": "op_name operation",
    "stack": "engine software",
    "dtype": "type weight_dtype quant_type",
    "kernel": "kernel_source",
    "tile": "config",
    "hidden_size": "hidden h",
    "moe_intermediate_size": "intermediate_size ffn_hidden_size d_ff inter",
    "num_experts": "num_local_experts local_experts experts e",
    "num_tokens": "batch_size batch bs num_tokens_per_rank",
    "n_shared_experts": "shared_experts shared_expert_intermediate_size",
    "tp": "tensor_parallel",
    "ep": "expert_parallel",
    "groups": "g",
}


def _by_spelling(table: dict[str, str]) -> dict[str, str]:
    return {spelling: column for column, spellings in table.items() for spelling in spellings.split()}


SPELLINGS = _by_spelling(_SPELLINGS)
"""Column by another spelling, which means this column and nothing else."""
LOOKALIKES = _by_spelling(_LOOKALIKES)
"""Column by a word that may mean it or something else: it is not read, and a warning says so."""
