#!/usr/bin/env python3
"""Make the reference values that test_golden.c holds the layers against.

Usage: make_golden.py [FOLDER]        (needs numpy, torch and transformers)

For each tiny model: config.json (as Hugging Face has it), tensors.json (what lies where) and
tensors.bin (fp32, little-endian, one tensor behind the other). The weights are untrained random
numbers, biases and norm weights included, so that no term is 0 or 1 by chance. Everything is
computed by transformers' own models in fp32 with eager attention; the same call in fp64 says how
much of the difference is fp32's own rounding ("rounding" in tensors.json).
"""
import json
import pathlib
import sys

import numpy as np
import torch
import transformers

MODELS = {
    "gpt2": dict(
        architectures=["GPT2LMHeadModel"], model_type="gpt2", activation_function="gelu_new",
        n_layer=2, n_embd=20, n_head=5, n_inner=56, n_positions=16, vocab_size=53,
        layer_norm_epsilon=1e-5, tie_word_embeddings=True),
    "llama": dict(
        architectures=["LlamaForCausalLM"], model_type="llama", hidden_act="silu",
        num_hidden_layers=2, hidden_size=24, num_attention_heads=6, num_key_value_heads=2,
        head_dim=4, intermediate_size=36, max_position_embeddings=16, vocab_size=53,
        rms_norm_eps=1e-6, rope_theta=10000.0, tie_word_embeddings=False),
    "mistral": dict(
        architectures=["MistralForCausalLM"], model_type="mistral", hidden_act="silu",
        num_hidden_layers=1, hidden_size=18, num_attention_heads=3, num_key_value_heads=1,
        head_dim=8, intermediate_size=28, max_position_embeddings=16, vocab_size=41,
        rms_norm_eps=1e-5, rope_theta=5000.0, sliding_window=5, tie_word_embeddings=True),
}
SEQUENCES, LENGTH, IGNORED = 3, 11, -1


def build(config):
    kind = config["model_type"]
    keys = {k: v for k, v in config.items() if k not in ("architectures", "model_type")}
    if kind == "gpt2":
        keys |= dict(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    made = transformers.AutoConfig.for_model(kind, **keys)
    made._attn_implementation = "eager"
    return transformers.AutoModelForCausalLM.from_config(made, attn_implementation="eager")


def randomise(model, generator):
    with torch.no_grad():
        for name, tensor in sorted(model.named_parameters()):
            noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float32)
            is_norm = tensor.dim() == 1 and "weight" in name
            tensor.copy_(1.0 + 0.2 * noise if is_norm else 0.25 * noise)


def reference(model, tokens, targets):
    """Logits, mean loss over the targets that count, and its gradient by every parameter."""
    model.zero_grad()
    logits = model(input_ids=tokens).logits
    loss = torch.nn.functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), targets.reshape(-1), ignore_index=IGNORED)
    loss.backward()
    out = {"logits": logits.detach(), "loss": loss.detach().reshape(1)}
    for name, tensor in model.named_parameters():
        out["gradient:" + name] = tensor.grad
    return {name: value.double().numpy() for name, value in out.items()}


def write(folder, config, seed):
    generator = torch.Generator().manual_seed(seed)
    model = build(config).float().eval()
    randomise(model, generator)
    shape = (SEQUENCES, LENGTH)
    tokens = torch.randint(0, config["vocab_size"], shape, generator=generator)
    targets = torch.randint(0, config["vocab_size"], shape, generator=generator)
    targets[torch.rand(shape, generator=generator) < 0.15] = IGNORED

    single = reference(model, tokens, targets)
    weights = {"weight:" + n: t.detach().numpy().copy() for n, t in model.named_parameters()}
    exact = reference(model.double(), tokens, targets)
    rounding = max(np.linalg.norm(single[n] - exact[n]) / np.linalg.norm(exact[n]) for n in exact)

    folder.mkdir(parents=True, exist_ok=True)
    table, data = [], b""
    for name, value in list(weights.items()) + list(exact.items()):
        value = np.ascontiguousarray(value, dtype="<f4")
        table.append({"name": name, "at": len(data) // 4, "count": value.size})
        data += value.tobytes()
    (folder / "tensors.bin").write_bytes(data)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    description = {
        "made_with": f"torch {torch.__version__}, transformers {transformers.__version__}, "
                     f"numpy {np.__version__}, seed {seed}",
        "rounding": float(rounding),
        "sequences": SEQUENCES, "seq_length": LENGTH,
        "tokens": tokens.reshape(-1).tolist(), "targets": targets.reshape(-1).tolist(),
        "tensors": table,
    }
    (folder / "tensors.json").write_text(json.dumps(description, separators=(",", ":")) + "\n")
    print(f"{folder.name}: {len(data)} bytes, fp32 against fp64 {rounding:.2e}")


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent)
    torch.set_num_threads(1)
    for seed, (name, config) in enumerate(MODELS.items(), start=1):
        write(root / name, config, seed)


main()
