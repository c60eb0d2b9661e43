#!/usr/bin/env python3
"""PyTorch's side of bench_peer.py: trains one model in one setting and prints one JSON object.

usage: peer_torch.py SETTING | peer_torch.py --about

SETTING is a JSON object, which bench_peer.py makes: `model` with the sizes of a GPT-2 or Llama family
model under the names of HF's config.json, and what `DEFAULTS` below lists. --about says what this
PyTorch has. The process does nothing else, so that its VmHWM is the case's memory.

The models are written from their definitions: GPT-2 (Radford et al. 2019: norm before each part, learned
positions, GELU by tanh, the head shares the embedding's matrix) and Llama (Touvron et al. 2023: RMSNorm,
rotary positions, SwiGLU, no biases; grouped queries, Ainslie et al. 2023). Matrices that read the same
input are one: q, k, v and Llama's gate and up.
"""

import contextlib
import json
import math
import sys
import time

import torch
from torch import nn
from torch.nn import functional

DEFAULTS = {
    "precision": "fp32",  # autocast: fp32 weights, products in bf16; pure: all in bf16
    "attention": "sdpa",  # sdpa, plain (scores, mask, softmax), repeat (sdpa, keys repeated)
    "optimizer": "fused",  # AdamW: fused, foreach or loop
    "loss": "whole",  # chunked: linear_cross_entropy over parts of the tokens
    "compile": False,
    "threads": 2,
    "batch": 4,
    "seq_length": 64,
    "steps": 5,
    "warmup": 1,
    "data": None,
    "count": False,  # only count
}


def status_bytes(field):
    """A row of /proc/self/status that counts kB, in bytes."""
    with open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    return None


def attend(q, k, v, way):
    """Causal attention of q [B, heads, T, d] on k, v [B, kv heads, T, d]."""
    groups = q.shape[1] // k.shape[1]
    if way == "sdpa":
        more = {"enable_gqa": True} if groups > 1 else {}
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True, **more)
    if groups > 1:
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    if way == "repeat":
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    tokens = q.shape[2]
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    ahead = torch.ones(tokens, tokens, dtype=torch.bool, device=q.device).triu(1)
    return scores.masked_fill(ahead, float("-inf")).softmax(dim=-1) @ v


class RMSNorm(nn.Module):
    def __init__(self, width, epsilon):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x):
        if hasattr(functional, "rms_norm"):
            return functional.rms_norm(x, x.shape[-1:], self.weight, self.epsilon)
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.epsilon) * self.weight


def rotary(seq_length, width, theta):
    """Cosines and sines [T, d] of the angle by which each pair (i, i + d/2) is turned."""
    angles = torch.outer(torch.arange(seq_length),
                         theta**(-torch.arange(0, width, 2) / width)).repeat(1, 2)
    return angles.cos(), angles.sin()


def turn(x, cosines, sines):
    low, high = x.chunk(2, dim=-1)
    return x * cosines + torch.cat((-high, low), dim=-1) * sines


class Gpt2Block(nn.Module):
    def __init__(self, config, way):
        super().__init__()
        width = config["n_embd"]
        self.heads, self.way = config["n_head"], way
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        batch, tokens, width = x.shape
        parts = self.qkv(self.norm1(x)).split(width, dim=-1)
        q, k, v = (part.view(batch, tokens, self.heads, -1).transpose(1, 2) for part in parts)
        mixed = attend(q, k, v, self.way).transpose(1, 2).reshape(batch, tokens, width)
        x = x + self.out(mixed)
        return x + self.down(functional.gelu(self.up(self.norm2(x)), approximate="tanh"))


class LlamaBlock(nn.Module):
    def __init__(self, config, way):
        super().__init__()
        width, ffn = config["hidden_size"], config["intermediate_size"]
        epsilon = config["rms_norm_eps"]
        self.way, self.head_width = way, width // config["num_attention_heads"]
        self.kv_width = self.head_width * config["num_key_value_heads"]
        self.norm1, self.norm2 = RMSNorm(width, epsilon), RMSNorm(width, epsilon)
        self.qkv = nn.Linear(width, width + 2 * self.kv_width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.gate_up = nn.Linear(width, 2 * ffn, bias=False)
        self.down = nn.Linear(ffn, width, bias=False)

    def forward(self, x, cosines, sines):
        batch, tokens, width = x.shape
        parts = self.qkv(self.norm1(x)).split((width, self.kv_width, self.kv_width), dim=-1)
        q, k, v = (part.view(batch, tokens, -1, self.head_width).transpose(1, 2) for part in parts)
        mixed = attend(turn(q, cosines, sines), turn(k, cosines, sines), v, self.way)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))
        gate, up = self.gate_up(self.norm2(x)).chunk(2, dim=-1)
        return x + self.down(functional.silu(gate) * up)


class Model(nn.Module):
    """`forward` returns the hidden states before the head; `loss` goes on from there."""

    def __init__(self, config, way, seq_length):
        super().__init__()
        self.is_llama = config["model_type"] == "llama"
        width = config["hidden_size" if self.is_llama else "n_embd"]
        blocks = config["num_hidden_layers" if self.is_llama else "n_layer"]
        self.table = nn.Embedding(config["vocab_size"], width)
        if self.is_llama:
            head_width = width // config["num_attention_heads"]
            cosines, sines = rotary(seq_length, head_width, config["rope_theta"])
            self.register_buffer("cosines", cosines)
            self.register_buffer("sines", sines)
            self.blocks = nn.ModuleList(LlamaBlock(config, way) for _ in range(blocks))
            self.norm = RMSNorm(width, config["rms_norm_eps"])
        else:
            self.positions = nn.Embedding(config["n_positions"], width)
            self.blocks = nn.ModuleList(Gpt2Block(config, way) for _ in range(blocks))
            self.norm = nn.LayerNorm(width)
        self.apply(self.randomise)

    @staticmethod
    def randomise(module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def forward(self, ids):
        x = self.table(ids)
        if self.is_llama:
            for block in self.blocks:
                x = block(x, self.cosines, self.sines)
        else:
            x = x + self.positions.weight[:ids.shape[1]]
            for block in self.blocks:
                x = block(x)
        return self.norm(x)


class Loss(nn.Module):
    """Mean cross-entropy of the next tokens; the head is the embedding's table."""

    def __init__(self, model, is_chunked):
        super().__init__()
        self.model, self.is_chunked = model, is_chunked

    def forward(self, ids, targets):
        hidden, table = self.model(ids).flatten(0, 1), self.model.table.weight
        if self.is_chunked:
            return functional.linear_cross_entropy(hidden, table, targets.flatten(),
                                                   options=nn.LinearCrossEntropyOptions())
        return functional.cross_entropy(functional.linear(hidden, table), targets.flatten())


def make_optimizer(model, kind):
    """AdamW; matrices decay, vectors do not."""
    parameters = list(model.parameters())
    groups = [{"params": [p for p in parameters if p.dim() > 1], "weight_decay": 0.1},
              {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0}]
    ways = {"fused": {"fused": True}, "foreach": {"foreach": True}, "loop": {"foreach": False}}
    return torch.optim.AdamW(groups, lr=3e-4, betas=(0.9, 0.95), eps=1e-8, **ways[kind])


def windows(setting, count):
    """`count` batches of ids and targets [B, T], bytes of the data file at random places."""
    with open(setting["data"], "rb") as file:
        data = torch.frombuffer(bytearray(file.read()), dtype=torch.uint8).long()
    span, generator = setting["seq_length"], torch.Generator().manual_seed(1)
    for _ in range(count):
        at = torch.randint(len(data) - span - 1, (setting["batch"],), generator=generator)
        rows = torch.stack([data[i:i + span + 1] for i in at.tolist()])
        yield rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


def train(setting):
    """The model; seconds and loss of each step: forward, backward, clipping, AdamW; when the first ended."""
    model = Model(setting["model"], setting["attention"], setting["seq_length"])
    if setting["precision"] == "pure":
        model = model.to(torch.bfloat16)
    optimizer = make_optimizer(model, setting["optimizer"])
    loss_of = Loss(model, setting["loss"] == "chunked")
    if setting["compile"]:
        loss_of = torch.compile(loss_of)
    context = (torch.autocast("cpu", dtype=torch.bfloat16)
               if setting["precision"] == "autocast" else contextlib.nullcontext())
    foreach = {} if setting["optimizer"] != "loop" else {"foreach": False}
    seconds, losses, ended_unix_s = [], [], None
    for ids, targets in windows(setting, setting["warmup"] + setting["steps"]):
        start_s = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with context:
            loss = loss_of(ids, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0, **foreach)
        optimizer.step()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - start_s)
        ended_unix_s = ended_unix_s or time.time()
    return model, seconds, losses, ended_unix_s


def parameter_count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def count(setting):
    """Parameters, and FLOPs of the matrix products of one forward pass as PyTorch counts them; no memory."""
    from torch.utils.flop_counter import FlopCounterMode
    with torch.device("meta"):
        model = Model(setting["model"], "plain", setting["seq_length"])
        ids = torch.zeros(setting["batch"], setting["seq_length"], dtype=torch.long)
        with FlopCounterMode(display=False) as counter:
            Loss(model, False)(ids, ids)
    return {"parameters": parameter_count(model), "forward_flops": counter.get_total_flops()}


def about():
    return {
        "version": torch.__version__,
        "compile": hasattr(torch, "compile"),
        "sdpa": hasattr(functional, "scaled_dot_product_attention"),
        "chunked": hasattr(nn, "LinearCrossEntropyOptions"),
        "fused": torch.__version__ >= "2.4",
        "isa": torch.backends.cpu.get_cpu_capability()
               if hasattr(torch.backends, "cpu") else "unknown",
    }


def main():
    if sys.argv[1:] == ["--about"]:
        print(json.dumps(about()))
        return
    setting = {**DEFAULTS, **json.loads(sys.argv[1])}
    torch.manual_seed(1)
    torch.set_num_threads(setting["threads"])
    if setting["count"]:
        print(json.dumps(count(setting)))
        return
    import_bytes = status_bytes("VmRSS")
    model, seconds, losses, ended_unix_s = train(setting)
    print(json.dumps({
        "parameters": parameter_count(model),
        "import_bytes": import_bytes,
        "peak_bytes": status_bytes("VmHWM"),
        "first_step_ended_unix_s": ended_unix_s,
        "warmup_s": seconds[:setting["warmup"]],
        "step_s": seconds[setting["warmup"]:],
        "losses": losses,
    }))


if __name__ == "__main__":
    main()
