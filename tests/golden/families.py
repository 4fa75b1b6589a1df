"""The families that transformers implements, each so narrow that its numbers fit in the repository.

Every number that shapes the routing is the published one or, where that needs the published width,
one that exercises the same branch: groups that are masked, an odd K, a scale that is not 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

TOKENS, WIDTH, WIDE, EXPERTS, CHOSEN, VOCABULARY = 14, 18, 11, 8, 3, 40

_MODEL = dict(
    vocab_size=VOCABULARY,
    hidden_size=WIDTH,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=64,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
_LATENT_ATTENTION = dict(
    q_lora_rank=8, kv_lora_rank=8, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8
)
_SIGMOID = dict(
    n_routed_experts=EXPERTS,
    num_experts_per_tok=CHOSEN,
    moe_intermediate_size=WIDE,
    norm_topk_prob=True,
    first_k_dense_replace=0,
)


@dataclass(frozen=True)
class Family:
    """A family: its configuration, and where its one MoE layer stands in the model."""

    name: str
    model_type: str
    config: dict[str, Any]
    bf16: dict[str, Any] = field(default_factory=dict)  # what differs in 16 bits
    layer: int = 0
    block: str = "mlp"
    router: str = "gate"
    by_token: bool = False  # experts by a table of token ids


DEEPSEEK_V4 = dict(
    moe_intermediate_size=WIDE,
    n_routed_experts=EXPERTS,
    num_experts_per_tok=CHOSEN,
    num_key_value_heads=1,
    routed_scaling_factor=1.5,
    layer_types=["heavily_compressed_attention"],
    swiglu_limit=1.25,
    q_lora_rank=8,
    o_lora_rank=8,
    o_groups=2,
    index_n_heads=2,
    index_head_dim=8,
)

FAMILIES = (
    Family(
        "mixtral",
        "mixtral",
        dict(intermediate_size=WIDE, num_local_experts=EXPERTS, num_experts_per_tok=2),
    ),
    Family(
        "olmoe",
        "olmoe",
        dict(
            intermediate_size=WIDE,
            num_experts=EXPERTS,
            num_experts_per_tok=CHOSEN,
            norm_topk_prob=False,
        ),
    ),
    Family(
        "qwen2_moe",
        "qwen2_moe",
        dict(
            moe_intermediate_size=WIDE,
            shared_expert_intermediate_size=10,
            num_experts=EXPERTS,
            num_experts_per_tok=CHOSEN,
            norm_topk_prob=False,
            decoder_sparse_step=1,
        ),
    ),
    Family(
        "qwen3_moe",
        "qwen3_moe",
        dict(
            moe_intermediate_size=WIDE,
            num_experts=EXPERTS,
            num_experts_per_tok=CHOSEN,
            norm_topk_prob=True,
            decoder_sparse_step=1,
        ),
    ),
    Family(
        "qwen3_next",
        "qwen3_next",
        dict(
            moe_intermediate_size=WIDE,
            shared_expert_intermediate_size=10,
            num_experts=EXPERTS,
            num_experts_per_tok=CHOSEN,
            norm_topk_prob=True,
            decoder_sparse_step=1,
            linear_num_value_heads=2,
            linear_num_key_heads=2,
            linear_key_head_dim=4,
            linear_value_head_dim=4,
        ),
    ),
    Family(
        "deepseek_v2_lite",
        "deepseek_v2",
        dict(
            _LATENT_ATTENTION,
            q_lora_rank=None,
            n_routed_experts=EXPERTS,
            num_experts_per_tok=CHOSEN,
            moe_intermediate_size=WIDE,
            n_shared_experts=2,
            topk_method="greedy",
            routed_scaling_factor=1.0,
            first_k_dense_replace=0,
        ),
    ),
    Family(
        "deepseek_v2",
        "deepseek_v2",
        dict(
            _LATENT_ATTENTION,
            n_routed_experts=EXPERTS,
            num_experts_per_tok=CHOSEN,
            moe_intermediate_size=WIDE,
            n_shared_experts=2,
            topk_method="group_limited_greedy",
            n_group=4,
            topk_group=2,
            routed_scaling_factor=16.0,
            first_k_dense_replace=0,
        ),
    ),
    Family(
        "deepseek_v3",
        "deepseek_v3",
        dict(
            _LATENT_ATTENTION,
            **_SIGMOID,
            n_shared_experts=1,
            n_group=4,
            topk_group=2,
            routed_scaling_factor=2.5,
        ),
    ),
    Family(
        "kimi_linear",
        "kimi_linear",
        dict(
            num_experts=EXPERTS,
            num_experts_per_token=CHOSEN,
            moe_intermediate_size=WIDE,
            moe_renormalize=True,
            num_shared_experts=1,
            num_expert_group=1,
            topk_group=1,
            routed_scaling_factor=2.446,
            mlp_layer_types=["sparse"],
            layer_types=["full_attention"],
            kv_lora_rank=8,
            qk_nope_head_dim=8,
            qk_rope_head_dim=8,
            v_head_dim=8,
        ),
    ),
    Family(
        "glm4_moe",
        "glm4_moe",
        dict(_SIGMOID, n_shared_experts=1, n_group=1, topk_group=1, routed_scaling_factor=2.5),
    ),
    Family(
        "glm_5",
        "glm_moe_dsa",
        dict(
            _LATENT_ATTENTION,
            **_SIGMOID,
            mlp_layer_types=["sparse"],
            n_shared_experts=1,
            n_group=1,
            topk_group=1,
            routed_scaling_factor=2.5,
            index_n_heads=2,
            index_head_dim=16,
        ),
    ),
    Family(
        "minimax_m2",
        "minimax_m2",
        dict(intermediate_size=WIDE, num_local_experts=EXPERTS, num_experts_per_tok=CHOSEN),
    ),
    Family(
        "deepseek_v4",
        "deepseek_v4",
        dict(DEEPSEEK_V4, mlp_layer_types=["moe"]),
        bf16=dict(swiglu_limit=10.0),
    ),
    Family(
        "deepseek_v4_hash",
        "deepseek_v4",
        dict(DEEPSEEK_V4, mlp_layer_types=["hash_moe"]),
        bf16=dict(swiglu_limit=10.0),
        by_token=True,
    ),
    Family(
        "gpt_oss",
        "gpt_oss",
        dict(
            intermediate_size=WIDE,
            num_local_experts=EXPERTS,
            num_experts_per_tok=CHOSEN,
            swiglu_limit=1.25,
            layer_types=["full_attention"],
        ),
        bf16=dict(swiglu_limit=7.0),
        router="router",
    ),
    Family(
        "llama4",
        "llama4_text",
        dict(
            intermediate_size=WIDE,
            intermediate_size_mlp=WIDE,
            num_local_experts=EXPERTS,
            num_experts_per_tok=1,
            interleave_moe_layer_step=1,
        ),
        block="feed_forward",
        router="router",
    ),
    Family(
        "nemotron_h",
        "nemotron_h",
        dict(
            layers_block_type=["moe"],
            n_routed_experts=EXPERTS,
            num_experts_per_tok=CHOSEN,
            moe_intermediate_size=WIDE,
            moe_shared_expert_intermediate_size=10,
            moe_latent_size=10,
            n_group=1,
            topk_group=1,
            routed_scaling_factor=5.0,
            mamba_num_heads=2,
            mamba_head_dim=8,
            n_groups=1,
            ssm_state_size=8,
        ),
        block="mixer",
    ),
    Family(
        "longcat_flash",
        "longcat_flash",
        dict(
            _LATENT_ATTENTION,
            num_layers=1,
            ffn_hidden_size=WIDE,
            expert_ffn_hidden_size=WIDE,
            n_routed_experts=EXPERTS,
            zero_expert_num=4,
            moe_topk=4,
            routed_scaling_factor=6.0,
        ),
        router="router",
    ),
)


def configuration(family: Family, kind: str) -> dict[str, Any]:
    values = dict(_MODEL, **family.config)
    if kind == "bf16":
        values.update(family.bf16)
    if family.model_type == "longcat_flash":
        values.pop("num_hidden_layers")
    return values
