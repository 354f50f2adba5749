"""Writes a small Llama with random weights and its tokenizer: gibberish out, but served as any model is.

Run by the engine's own interpreter, which brings numpy, tokenizers and safetensors: `python random_model.py FOLDER`.
Tokens are the printable ASCII characters and the words below, so that each streamed chunk is text. Its end token is
as likely as any other; requests that want a fixed length say `ignore_eos`.
"""

import json
import sys
from importlib import import_module
from itertools import product
from pathlib import Path

HIDDEN, LAYERS, FFN, HEADS, HEAD, CONTEXT = 512, 8, 1536, 16, 32, 8192
SPECIAL = ["<bos>", "<end>", "<pad>", "<user>", "<assistant>", "<system>"]
CHARACTERS = [chr(code) for code in range(33, 127)] + ["Ġ", "Ċ"]
WORDS = ["Ġ" + a + b for a, b in product(("ba", "de", "fi", "go", "lu", "ma", "ne", "ri", "so", "tu"), repeat=2)]
TEMPLATE = (
    "<bos>{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def weights(vocabulary: int) -> dict[str, object]:
    numpy = import_module("numpy")
    rng = numpy.random.default_rng(0)

    def random(*shape: int) -> object:
        return rng.normal(0, 0.05, shape).astype(numpy.float32)

    ones = numpy.ones(HIDDEN, numpy.float32)
    wide, narrow = HEADS * HEAD, HEADS // 2 * HEAD
    found = {
        "model.embed_tokens.weight": random(vocabulary, HIDDEN),
        "lm_head.weight": random(vocabulary, HIDDEN),
        "model.norm.weight": ones,
    }
    shapes = {
        "self_attn.q_proj": (wide, HIDDEN), "self_attn.k_proj": (narrow, HIDDEN), "self_attn.v_proj": (narrow, HIDDEN),
        "self_attn.o_proj": (HIDDEN, wide), "mlp.gate_proj": (FFN, HIDDEN), "mlp.up_proj": (FFN, HIDDEN),
        "mlp.down_proj": (HIDDEN, FFN),
    }  # fmt: skip
    for layer in range(LAYERS):
        for name, shape in shapes.items():
            found[f"model.layers.{layer}.{name}.weight"] = random(*shape)
        for name in ("input_layernorm", "post_attention_layernorm"):
            found[f"model.layers.{layer}.{name}.weight"] = ones
    return found


def main(folder: Path) -> None:
    tokenizers = import_module("tokenizers")
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *CHARACTERS, *WORDS])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, [], unk_token="<pad>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.save(str(folder / "tokenizer.json"))
    import_module("safetensors.numpy").save_file(
        weights(len(vocabulary)), folder / "model.safetensors", metadata={"format": "pt"}
    )
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": FFN,
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": HEADS // 2, "head_dim": HEAD,
        "vocab_size": len(vocabulary), "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False,
        "torch_dtype": "float32", **ends,
    }  # fmt: skip
    names = {"bos_token": "<bos>", "eos_token": "<end>", "pad_token": "<pad>"}
    documents = {
        "config.json": config,
        "generation_config.json": {**ends, "do_sample": True},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": CONTEXT,
            "chat_template": TEMPLATE, **names,
        },
    }  # fmt: skip
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document, indent=1))


main(Path(sys.argv[1]))
