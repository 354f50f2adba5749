"""Which models are known by name, which are planned with a note, and which are refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.adapters.files import bundled_models
from proxy.planning.families import HARMLESS, HINT, READ, TYPES, listed, words
from proxy.planning.fields import PlanError
from proxy.planning.shapes import read_shape
from tests.planning.support import bundled, config

# Text models of vLLM's registry (release 0.14); what the others come to stands below.
VLLM_KNOWN = words(
    """
    AfmoeForCausalLM ApertusForCausalLM AquilaModel AquilaForCausalLM ArceeForCausalLM ArcticForCausalLM
    BaiChuanForCausalLM BaichuanForCausalLM BailingMoeForCausalLM BailingMoeV2ForCausalLM BambaForCausalLM
    BloomForCausalLM ChatGLMModel ChatGLMForConditionalGeneration CohereForCausalLM Cohere2ForCausalLM CwmForCausalLM
    DbrxForCausalLM DeciLMForCausalLM DeepseekForCausalLM DeepseekV2ForCausalLM DeepseekV3ForCausalLM
    DeepseekV32ForCausalLM Dots1ForCausalLM Ernie4_5ForCausalLM Ernie4_5_MoeForCausalLM ExaoneForCausalLM
    Exaone4ForCausalLM FalconForCausalLM FalconMambaForCausalLM FalconH1ForCausalLM FlexOlmoForCausalLM GemmaForCausalLM
    Gemma2ForCausalLM Gemma3ForCausalLM Gemma3nForCausalLM Qwen3NextForCausalLM GlmForCausalLM Glm4ForCausalLM
    Glm4MoeForCausalLM GptOssForCausalLM GPT2LMHeadModel GPTBigCodeForCausalLM GPTJForCausalLM GPTNeoXForCausalLM
    GraniteForCausalLM GraniteMoeForCausalLM GraniteMoeHybridForCausalLM GraniteMoeSharedForCausalLM GritLM
    Grok1ModelForCausalLM HunYuanMoEV1ForCausalLM HunYuanDenseV1ForCausalLM HCXVisionForCausalLM InternLMForCausalLM
    InternLM2ForCausalLM InternLM3ForCausalLM JAISLMHeadModel Jais2ForCausalLM JambaForCausalLM KimiLinearForCausalLM
    Lfm2ForCausalLM Lfm2MoeForCausalLM LlamaForCausalLM Llama4ForCausalLM LLaMAForCausalLM MambaForCausalLM
    Mamba2ForCausalLM MiniCPMForCausalLM MiniMaxForCausalLM MiniMaxText01ForCausalLM MiniMaxM1ForCausalLM
    MiniMaxM2ForCausalLM MistralForCausalLM MistralLarge3ForCausalLM MixtralForCausalLM MptForCausalLM MPTForCausalLM
    MiMoForCausalLM MiMoV2FlashForCausalLM NemotronForCausalLM NemotronHForCausalLM OlmoForCausalLM Olmo2ForCausalLM
    Olmo3ForCausalLM OlmoeForCausalLM OPTForCausalLM OrionForCausalLM PanguEmbeddedForCausalLM PersimmonForCausalLM
    PhiForCausalLM Phi3ForCausalLM PhiMoEForCausalLM QWenLMHeadModel Qwen2ForCausalLM Qwen2MoeForCausalLM
    Qwen3ForCausalLM Qwen3MoeForCausalLM RWForCausalLM SeedOssForCausalLM Step3TextForCausalLM StableLMEpochForCausalLM
    StableLmForCausalLM Starcoder2ForCausalLM SolarForCausalLM TeleChatForCausalLM TeleChat2ForCausalLM
    TeleFLMForCausalLM XverseForCausalLM
    """
)
# architecture, model type, the keys by which its own configuration differs from a plain decoder, what is said
VLLM_OTHERS: list[tuple[str, str, dict[str, Any], str]] = [
    ("MiniCPM3ForCausalLM", "minicpm3", {"kv_lora_rank": 256}, "store in different ways"),
    ("LongcatFlashForCausalLM", "longcat_flash", {"kv_lora_rank": 512}, "two attention blocks"),
    ("OuroForCausalLM", "ouro", {"total_ut_steps": 4}, "run several times"),
    ("Plamo2ForCausalLM", "plamo2", {"mamba_step": 2}, "mamba_step"),
    ("Zamba2ForCausalLM", "zamba2", {"hybrid_layer_ids": [6]}, "shared between Mamba layers"),
    ("PanguUltraMoEForCausalLM", "pangu_ultra_moe", {"attention_kv_lora_dim": 512}, "attention_kv_lora_dim"),
    ("PanguProMoEV2ForCausalLM", "PanguProMoE", {"param_sink_number": 8, "swa_layers": [1]}, "swa_layers"),
    ("Plamo3ForCausalLM", "plamo3", {"window_size": 2048, "interleaved_sliding_window": [2048]}, "window"),
    ("Fairseq2LlamaForCausalLM", "", {}, "unknown model type 'Fairseq2LlamaForCausalLM'"),
    ("InternLM2VEForCausalLM", "internlmvechat", {}, "unknown model type 'InternLM2VEForCausalLM'"),
]


def unknown(**changes: Any) -> dict[str, Any]:
    return config(architectures=["NovaForCausalLM"], model_type="nova", **changes)


def test_every_text_model_of_the_registry_is_known_noted_or_refused() -> None:
    assert [name for name in VLLM_KNOWN if not listed(name)] == []
    for architecture, kind, keys, said in VLLM_OTHERS:
        assert not listed(architecture)
        try:
            heard = " ".join(read_shape(config(architectures=[architecture], model_type=kind or None, **keys)).notes)
        except PlanError as error:
            heard = str(error)
        assert said in heard, architecture


@pytest.mark.parametrize("name", bundled_models())
def test_bundled_models_are_known_and_say_nothing(name: str) -> None:
    assert bundled(name).notes == ()


def test_an_unknown_model_with_the_usual_keys_is_planned_with_a_note() -> None:
    (note,) = read_shape(unknown(use_cache=True, attention_dropout=0.0, kv_bits=None, block_size=0)).notes
    assert note.startswith("unknown model type 'NovaForCausalLM': planned as a plain decoder with grouped-query")
    (note,) = read_shape(config(architectures=None, model_type=None)).notes
    assert note.startswith("no model_type and no architectures: planned as a plain decoder")
    (note,) = read_shape(unknown(kv_lora_rank=512, qk_rope_head_dim=64)).notes
    assert "planned as multi-head latent attention" in note
    (note,) = read_shape(unknown(sliding_window=128, layer_types=["sliding_attention", "full_attention"] * 4)).notes
    assert "planned from its keys layer_types, sliding_window" in note


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kv_compression": 4}, "its key 'kv_compression' may change the KV cache.*--kv-bytes-per-token"),
        ({"memory_tokens": 4}, "memory_tokens"),
        ({"attn_pool_size": 4}, "attn_pool_size"),
        ({"num_key_value_heads": None}, "key num_key_value_heads is missing: add it"),
        ({"architectures": ["NovaMambaForCausalLM"]}, "its name says 'Mamba' and no key tells how"),
        ({"model_type": "rwkv7"}, "a recurrence without attention.*--kv-bytes-per-token"),
    ],
)
def test_an_unknown_variant_is_refused_by_key_and_remedy(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message) as caught:
        read_shape(unknown() | changes)
    assert "\n" not in str(caught.value)
    if "num_key_value_heads" not in changes:
        assert read_shape(unknown() | changes, cache_given=True).layers == 8


# Keys of public configurations whose names speak of the cache and that leave it alone.
REAL_KEYS = words(
    """
    attention_bias attention_multiplier query_pre_attn_scalar attn_logit_softcapping cache_implementation
    mamba_chunk_size mamba_conv_bias mamba_proj_bias shared_intermediate_size use_mamba_kernels use_conv_bias
    chunk_size attn_rotary_emb attention_in_multiplier ssm_out_multiplier ssm_multipliers mamba_d_ssm mamba_rms_norm
    block_ff_dim block_norm_eps block_multiple_of conv_bias conv_dim layernorm_linear_attention_alpha
    shared_moe_mode linear_attn_alpha_factor block_size pool_type compression_ratio ignored_index
    use_flash_attention attention_probs_dropout_prob use_qkv_bias clip_qkv scale_attn_weights
    scale_attention_softmax_in_fp32 pre_allocate_kv_cache parallel_attn skip_bias_add_qkv interleaved_qkv
    use_logn_attn attn_implementation parallel_attn_mlp_res use_parallel_block use_embedding_sharing
    reorder_and_upcast_attn add_swa_attention_sink_bias attention_value_scale share_q_dim share_expert_dim
    mtp_use_dedicated_embeddings attn_output_gate activation_sparsity_pattern use_bidirectional_attention
    relative_attention_num_buckets share_input_output_layers image_token_index chunk_size_feed_forward
    """
)


@pytest.mark.parametrize("key", sorted(REAL_KEYS))
def test_keys_that_leave_the_cache_alone_say_nothing(key: str) -> None:
    number = key in READ | {"shared_intermediate_size"} and "gate" not in key
    assert read_shape(config(**{key: 2 if number else True})).notes == ()


def test_a_new_key_of_a_known_model_is_noted() -> None:
    assert read_shape(config(kv_squeeze=2)).notes == (
        "config.json: kv_squeeze not read here; check the bytes per token against the engine's log",
    )


def test_the_architecture_decides_except_inside_a_wrapper() -> None:
    assert read_shape(config(model_type="mine")).notes == ()
    assert read_shape(config(architectures=["NovaForCausalLM"])).notes
    inner = {"text_config": config(architectures=None), "architectures": ["NovaForConditionalGeneration"]}
    assert read_shape(inner).notes == ()
    assert read_shape({"text_config": unknown(), "architectures": ["NovaForConditionalGeneration"]}).notes


@settings(max_examples=60, deadline=None)
@given(st.from_regex(HINT, fullmatch=False).map(str.strip), st.sampled_from([1, True, "x", [1], {"a": 1}]))
def test_no_hinting_key_of_an_unknown_model_passes_in_silence(key: str, value: Any) -> None:
    try:
        assert read_shape(unknown() | {key: value}).notes
    except PlanError as error:
        assert "\n" not in str(error)
    else:
        assert key in READ or HARMLESS.fullmatch(key) or not HINT.search(key.lower())


def test_the_lists_are_tidy() -> None:
    assert all(name == name.strip() for name in TYPES)
    assert not [key for key in READ if HARMLESS.fullmatch(key) and "expert" not in key]
