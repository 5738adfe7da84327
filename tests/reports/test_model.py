"""A model as a terminal shows it."""

import io

from rich.console import Console

import moe_codesign as mc
from moe_codesign.reports.terminal.model import print_model, print_whole

QWEN = """\
Qwen3.5-397B, whole: 60 layers, hidden size 4096, vocabulary 248,320
┏━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┓
┃ layers ┃ attention                                                        ┃ feed-forward                   ┃
┡━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┩
│     45 │ gated delta net: 16 key heads of 128, 64 value heads of 128,     │ experts H4096 I1024 E512 k10+1 │
│        │ convolution of 4                                                 │                                │
│     15 │ GQA: 32 heads, 2 KV heads of 256, output gate                    │ experts H4096 I1024 E512 k10+1 │
└────────┴──────────────────────────────────────────────────────────────────┴────────────────────────────────┘
parameters and bytes of weights
┏━━━━━━━━━━━┳━━━━━━━━━━┳━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━┓
┃ part      ┃ type     ┃ parameters (B) ┃ used by a token (B) ┃     GB ┃
┡━━━━━━━━━━━╇━━━━━━━━━━╇━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━┩
│ attention │ bfloat16 │          6.883 │               6.883 │  13.77 │
│ experts   │ bfloat16 │        386.547 │               7.550 │ 773.09 │
│ shared    │ bfloat16 │          0.755 │               0.755 │   1.51 │
│ router    │ bfloat16 │          0.126 │               0.126 │   0.25 │
│ embedding │ bfloat16 │          1.017 │                   0 │   2.03 │
│ head      │ bfloat16 │          1.017 │               1.017 │   2.03 │
├───────────┼──────────┼────────────────┼─────────────────────┼────────┤
│ total     │          │        396.346 │              16.331 │ 792.69 │
└───────────┴──────────┴────────────────┴─────────────────────┴────────┘
KV cache (bfloat16): 30,720 bytes for each further token; 251.7 MB for a sequence of 8,192 tokens
states (float32): 192.1 MB for a sequence of any length
note: its layer for multi-token prediction is not counted
note: read from config.json of Qwen/Qwen3.5-397B-A17B, as aisimulate 0.13.0 (PyPI) holds it
keys that it was read from
┏━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┓
┃ field                        ┃ from                               ┃
┡━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┩
│ hidden_size                  │ text_config.hidden_size            │
│ vocab_size                   │ text_config.vocab_size             │
│ num_layers                   │ text_config.num_hidden_layers      │
│ attention                    │ text_config.layer_types            │
│ attention.linear.num_k_heads │ text_config.linear_num_key_heads   │
│ attention.linear.num_v_heads │ text_config.linear_num_value_heads │
│ attention.linear.k_head_dim  │ text_config.linear_key_head_dim    │
│ attention.linear.v_head_dim  │ text_config.linear_value_head_dim  │
│ attention.linear.conv_kernel │ text_config.linear_conv_kernel_dim │
│ attention.num_heads          │ text_config.num_attention_heads    │
│ attention.num_kv_heads       │ text_config.num_key_value_heads    │
│ attention.head_dim           │ text_config.head_dim               │
│ attention.gate_width         │ text_config.attn_output_gate       │
│ tied_embeddings              │ tie_word_embeddings                │
│ types.rest                   │ text_config.dtype                  │
│ types.shared                 │ text_config.dtype                  │
│ types.attention              │ text_config.dtype                  │
│ types.head                   │ text_config.dtype                  │
│ types.experts                │ text_config.dtype                  │
│ types.kv_cache               │ no field: as what is not quantised │
│ types.state                  │ text_config.mamba_ssm_dtype        │
└──────────────────────────────┴────────────────────────────────────┘
"""


def shown(name: str) -> str:
    """What is printed of a whole model."""
    out = io.StringIO()
    print_whole(Console(file=out, width=110, markup=False), mc.model_shape(name))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def test_a_whole_model() -> None:
    assert shown("Qwen3.5-397B") == QWEN


def test_notes_are_printed_once() -> None:
    out = io.StringIO()
    print_model(Console(file=out, width=110, markup=False), mc.model("Nemotron-3-Super"))
    assert out.getvalue().count("latent width of 1024") == 1
