"""Which models are known by name, and what an unknown one is worth: the engine's own registries as lists of facts.

    known      the architecture (or, where none is given, the model type) is listed: its keys are read, nothing is said
    noted      not listed, but every key that could shape the cache is one that is read here: planned with a note
    refused    not listed, and some key may shape the cache in a way that is not read here: the key is named

The architecture decides, as it does in the engines; for a wrapper around a language model, that model's own type.
Sources: vLLM `model_executor/models/registry.py`, SGLang `srt/models`, Hugging Face Transformers `configuration_*.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from proxy.planning.fields import Fields, PlanError, shown


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


CAUSAL, CONDITIONAL = "ForCausalLM", "ForConditionalGeneration"
# Stems of `<Stem>ForCausalLM`.
CAUSAL_STEMS = words(
    """
    Afmoe Apertus Aquila Arcee Arctic BaiChuan Baichuan BailingMoe BailingMoeV2 Bamba Bart Bloom CodeGen Cohere Cohere2
    CohereMoe Cwm Dbrx DeciLM Deepseek DeepseekV2 DeepseekV3 DeepseekV32 Dots1 Ernie4_5 Ernie4_5_Moe Exaone Exaone4
    ExaoneMoE Falcon FalconH1 FalconMamba FlexOlmo Gemma Gemma2 Gemma3 Gemma3n Gemma4 Glm Glm4 Glm4Moe Glm4MoeLite
    GlmMoeDsa GPTBigCode GPTJ GPTNeoX GptOss Granite GraniteMoe GraniteMoeHybrid GraniteMoeShared Grok1Model
    HunYuanDenseV1 HunYuanMoEV1 HCXVision InternLM InternLM2 InternLM3 Jais2 Jamba KimiLinear LLaMA Lfm2 Lfm2Moe Llama
    Llama4 Mamba Mamba2 MiMo MiMoV2Flash MiniCPM MiniMax MiniMaxM1 MiniMaxM2 MiniMaxText01 Ministral3 Mistral
    MistralLarge3 Mixtral Mpt MPT Nemotron NemotronH OPT Olmo Olmo2 Olmo3 Olmoe OpenELM Orion PanguEmbedded Persimmon
    Phi Phi3 Phi3V PhiMoE Qwen2 Qwen2Moe Qwen3 Qwen3Moe Qwen3Next RW SeedOss SmolLM3 Solar StableLMEpoch StableLm
    Starcoder2 Step3Text TeleChat TeleChat2 TeleFLM Xverse
    """
)
# Stems of `<Stem>ForConditionalGeneration`.
CONDITIONAL_STEMS = words(
    """
    Bart ChatGLM Gemma3 Gemma3n Gemma4 Llama4 Llava LlavaNext Mistral3 Mllama Pixtral Qwen2VL Qwen2_5_VL Qwen3VL
    Qwen3VLMoe Qwen3_5 Qwen3_5Moe T5 Whisper
    """
)
OTHER_ARCHITECTURES = words(
    """
    AquilaModel ChatGLMModel GPT2LMHeadModel GritLM JAISLMHeadModel LlamaModel MistralModel QWenLMHeadModel
    Phi4MMForCausalLM
    """
)
# Model types, of a configuration without `architectures` and of the language model inside a wrapper.
TYPES = words(
    """
    afmoe apertus aquila arcee arctic baichuan bailing_moe bamba bart bloom chatglm codegen cohere cohere2 dbrx deepseek
    deepseek_v2 deepseek_v3 deepseek_v32 dots1 ernie4_5 ernie4_5_moe exaone exaone4 falcon falcon_h1 falcon_mamba
    flex_olmo gemma gemma2 gemma2_text gemma3 gemma3_text gemma3n gemma3n_text gemma4 gemma4_text glm glm4 glm4_moe
    glm4_moe_lite glm_moe_dsa gpt2 gpt_bigcode gpt_neox gpt_oss gptj granite granitemoe granitemoehybrid
    granitemoeshared grok-1 hunyuan_v1_dense hunyuan_v1_moe internlm internlm2 internlm3 jais jais2 jamba kimi_k2
    kimi_linear lfm2 lfm2_moe llama llama4 llama4_text mamba mamba2 mimo mimo_v2_flash minicpm minimax minimax_m1
    minimax_m2 minimax_text_01 ministral ministral3 mistral mixtral mllama mllama_text_model mpt nemotron nemotron-nas
    nemotron_h olmo olmo2 olmo3 olmoe openelm opt orion persimmon phi phi3 phi3small phimoe qwen qwen2 qwen2_5_vl
    qwen2_5_vl_text qwen2_moe qwen2_vl qwen2_vl_text qwen3 qwen3_5 qwen3_5_moe qwen3_5_moe_text qwen3_5_text qwen3_moe
    qwen3_next qwen3_vl_moe_text qwen3_vl_text seed_oss smollm3 solar stablelm starcoder2 step3_text t5 telechat teleflm
    whisper xverse
    """
)
# Known by name, and known to keep something that is not modelled here.
NOT_MODELLED = {
    "minicpm3": "latent attention that engines store in different ways",
    "longcat_flash": "two attention blocks in each layer",
    "ouro": "layers that run several times",
    "phi3small": "block-sparse attention",
    "phi4flash": "one cache shared by half of the layers",
    "recurrent_gemma": "a gated linear recurrence",
    "rwkv": "a recurrence without attention",
    "rwkv7": "a recurrence without attention",
    "zamba": "attention blocks shared between Mamba layers",
    "zamba2": "attention blocks shared between Mamba layers",
    "plamo2": "Mamba layers counted by mamba_step",
    "deepseek_v4": "compressed sparse attention",
}
# A key whose name matches may shape the cache ...
HINT = re.compile(
    r"kv|cache|window|latent|lora_(?:rank|dim)|state|conv|ssm|mamba|rwkv|linear|share|shari|compress|index|block|pattern"
    r"|sparse|layer_type|layer_group|attn|attention|swa|hybrid|recurren|memory|retention|loop|ut_steps|chunk|pool|stride"
)
NAME_HINT = re.compile(r"linear|mamba|ssm|rwkv|recurren|hybrid|retnet|hyena|mla|delta|sparse|xlstm", re.IGNORECASE)
# ... unless it is one of those that are read, or that only say how attention is computed.
READ = words(
    """
    num_kv_heads n_head_kv num_key_value_heads_per_layer attention_num_kv_heads num_attention_heads num_attention_groups
    decoder_attention_heads encoder_attention_heads attention_head_dim kv_channels d_kv sliding_window
    sliding_window_size use_sliding_window max_window_layers sliding_window_pattern _sliding_window_pattern kv_lora_rank
    q_lora_rank index_topk index_head_dim index_n_heads layer_types layers_block_type num_kv_shared_layers use_cla
    cla_share_factor cla_factor swa_num_key_value_heads swa_head_dim swa_v_head_dim hybrid_layer_pattern
    hybrid_override_pattern attention_chunk_size full_attention_interval attn_layer_period attn_layer_offset
    attn_layer_indices full_attn_idxs attn_type_list linear_attn_config linear_num_value_heads linear_num_key_heads
    linear_value_head_dim linear_key_head_dim linear_conv_kernel_dim ssm_state_size conv_kernel conv_L_cache
    mamba_num_heads mamba_head_dim mamba_n_heads mamba_d_head mamba_d_state mamba_d_conv mamba_expand mamba_n_groups
    mamba_dt_rank mamba_ssm_cache_dtype mamba_ssm_dtype block_configs cross_attention_layers multi_query_attention
    attention_k_eq_v attn_output_gate decoder_sparse_step interleave_moe_layer_step n_shared_experts num_shared_experts
    shared_expert_intermediate_size moe_shared_expert_intermediate_size share_expert_dim n_groups state_size attn_config
    indexer_types global_attn_every_n_layers
    """
)
HARMLESS = re.compile(
    r"use_cache\w*|cache_implementation|_?(?:attention|attn)(?:_probs)?_(?:bias|dropout|dropout_rate|dropout_prob|pdrop"
    r"|implementation|multiplier|softmax_in_fp32|scale|scaling|temperature_tuning|norm|logit_softcapping|out_bias"
    r"|value_scale|in_multiplier|out_multiplier|scale_theta|types|type|function|qkv_bias|rotary_emb|soft_cap)"
    r"|_attn_implementation\w*|(?:use_)?flash_attn\w*|use_flash_attention\w*|scale_(?:attn|attention)\w*|attn_scale"
    r"|output_(?:hidden_states|attentions)|query_pre_attn_scalar|pre_attn\w*|post_attention\w*|is_causal_attention"
    r"|add_cross_attention|cross_attention_hidden_size|chunk_size(?:_feed_forward)?|pool(?:er|_type)\w*|pad_\w*"
    r"|\w*token_index|ignored_index|\w*shared_expert\w*|shared_(?:intermediate_size|moe_mode)|\w*_loss\w*|router_\w*"
    r"|moe_\w*|enable_moe_block|tie_\w*|share_(?:input_output\w*|q_dim)|use_shared\w*|\w*embedding_sharing|\w*qkv\w*"
    r"|use_attn_bias|use_bidirectional_attention|use_logn_attn|parallel_attn\w*|use_parallel_\w*|\w*sink\w*"
    r"|layernorm_\w*|reorder_and_upcast_attn|relative_attention\w*|pre_allocate_kv_cache|swa_num_attention_heads"
    r"|is_encoder_decoder|\w*rope\w*|\w*_theta|rotary_\w*|linear_bias|(?:linear|full)_attn_alpha_factor"
    r"|activation_sparsity\w*|mamba_(?:chunk_size|conv_bias|proj_bias|hidden_act|rms_norm|norm_before_gate|use_mlp|d_ssm)"
    r"|ssm_(?:in_|out_)?multipliers?|use_(?:mamba_kernels|conv_bias)|conv_(?:bias|dim|dim_out|use_xavier_init)"
    r"|block_(?:size|auto|dim|ff|mlp|multiple|norm|out|use)\w*|compression_ratio|mlp_\w*|mtp_\w*|num_nextn\w*"
    r"|gradient_checkpointing\w*|image_\w*|vision_\w*|audio_\w*|video_\w*|mm_\w*"
)
REMEDY = "which is not modelled: give --kv-bytes-per-token (KV bytes of one GPU / tokens, from the engine's log)"
KV_HEADS = (
    "num_kv_heads",
    "n_head_kv",
    "multi_query_group_num",
    "num_attention_groups",
    "multi_query",
    "block_configs",
)
PLAIN = frozenset(
    {"num_attention_heads", "num_kv_heads", "n_head_kv", "kv_channels", "attention_head_dim", "use_sliding_window"}
) | frozenset(key for key in READ if "expert" in key or key in ("decoder_sparse_step", "interleave_moe_layer_step"))


@dataclass(frozen=True, slots=True)
class Standing:
    """How well a model is known, and what to say of it."""

    known: bool
    note: str = ""


def standing(top: Fields, model: Fields, nested: bool) -> Standing:
    """What the names and keys of a configuration are worth. Raises PlanError for a variant that is not read here.

    `top` is the whole configuration, `model` its language model, `nested` whether that is a mapping of its own.
    """
    kind, architecture = model.text("model_type"), first_architecture(model if nested else top)
    for name in (kind, top.text("model_type")):
        if name in NOT_MODELLED:
            raise PlanError(f"{model.source}: model_type {name} keeps {NOT_MODELLED[name]}, {REMEDY}")
    if _is_known(top, kind, architecture, nested):
        return Standing(True, _unread_note(unread_keys(model)))
    named = architecture or kind
    label = f"unknown model type {shown(named)}" if named else "no model_type and no architectures"
    hinted = NAME_HINT.search(f"{kind} {architecture}")
    if hinted and not any(model.has(key) for key in READ if hinted[0].lower() in key):
        raise PlanError(f"{model.source}: {label}: its name says {hinted[0]!r} and no key tells how, {REMEDY}")
    key = next(iter(unread_keys(model)), None)
    if key is not None:
        raise PlanError(f"{model.source}: {label}, and its key {shown(key)} may change the KV cache, {REMEDY}")
    if not model.has("num_key_value_heads", "kv_lora_rank", *KV_HEADS):
        raise PlanError(
            f"{model.source}: {label}, and key num_key_value_heads is missing: add it (equal to the heads when every"
            " head has its own keys and values)"
        )
    return Standing(False, f"{label}: {_planned_as(model)}")


def first_architecture(fields: Fields) -> str:
    names = fields.items("architectures") or ()
    return str(names[0]) if names else ""


def _is_known(top: Fields, kind: str, architecture: str, nested: bool) -> bool:
    if nested:
        return kind in TYPES or listed(architecture) or listed(first_architecture(top))
    return listed(architecture) if architecture else kind in TYPES


def listed(architecture: str) -> bool:
    """Whether the engines' registries and this room know the architecture."""
    if architecture.endswith(CAUSAL):
        return architecture.removesuffix(CAUSAL) in CAUSAL_STEMS or architecture in OTHER_ARCHITECTURES
    if architecture.endswith(CONDITIONAL):
        return architecture.removesuffix(CONDITIONAL) in CONDITIONAL_STEMS
    return architecture in OTHER_ARCHITECTURES


def unread_keys(model: Fields) -> list[str]:
    """Keys that are set, whose names may concern the cache, and that are neither read nor known to be harmless."""
    found = []
    for key, value in model.values.items():
        off = value is None or value is False or value in ("", 0) or value == [] or value == {}
        name = str(key)
        if not off and HINT.search(name.lower()) and name not in READ and not HARMLESS.fullmatch(name):
            found.append(name)
    return sorted(found)


def _unread_note(keys: list[str]) -> str:
    """A known model may carry a key that came later than this list of facts."""
    if not keys:
        return ""
    return f"config.json: {', '.join(keys[:3])} not read here; check the bytes per token against the engine's log"


def _planned_as(model: Fields) -> str:
    """What the keys of an unknown model were taken for, and what to check."""
    if model.has("kv_lora_rank"):
        return (
            "planned as multi-head latent attention because it has kv_lora_rank; check that the engine keeps one latent"
            " vector per token and layer"
        )
    variants = sorted(key for key in READ if model.has(key) and HINT.search(key) and key not in PLAIN)
    if variants:
        return f"planned from its keys {', '.join(variants)}; check the bytes per token against the engine's log"
    return (
        "planned as a plain decoder with grouped-query attention because it has only the usual keys; check"
        " num_key_value_heads, head_dim and the engine's log"
    )
