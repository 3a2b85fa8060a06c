"""The workloads in PyTorch: `engine_torch.py SPECIFICATION.json eager|compile`. Started by `boltzmap bench engine`."""

import json
import math
import sys
from functools import partial
from typing import NamedTuple

from common import Specification, limit_threads, serve

specification = Specification(sys.argv[1])
variant = sys.argv[2]
limit_threads(specification.threads)

import numpy as np
import torch
import torch.nn.functional as F
from torch.func import jvp, vjp, vmap

torch.set_num_threads(specification.threads)
LAYER_NORM_EPSILON = 1e-6
LOG_TIME_OFFSET = 0.01
# Largest matrices whose determinant is compared instead of its logarithm.
LARGEST_DETERMINANT = 3


# Networks, as functions of a dictionary of parameters. Weights are [out, in].


def linear(p, name, x):
    return F.linear(x, p[name + ".weight"], p[name + ".bias"])


class Style(NamedTuple):
    """Which of the library's fused functions are used."""

    attention: bool
    norm: bool


FUSED = Style(attention=True, norm=True)
# The fused attention has no forward-mode derivative.
PLAIN = Style(attention=False, norm=True)
# Reverse mode through the forward-mode derivative of F.layer_norm gives wrong gradients without an error: it takes mean
# and deviation for constants (pytorch/pytorch issue 196700 shows the same for nested forward mode).
WRITTEN = Style(attention=False, norm=False)


def norm(x, style):
    if style.norm:
        return F.layer_norm(x, x.shape[-1:], eps=LAYER_NORM_EPSILON)
    centred = x - x.mean(-1, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + LAYER_NORM_EPSILON)


def time_features(frequencies, t):
    steps = torch.arange(frequencies, dtype=torch.float32) / (max(frequencies, 2) - 1)
    omegas = 0.5 * math.pi * 32.0**steps
    angles = t[:, None] * omegas
    logarithm = torch.log(1.0 + LOG_TIME_OFFSET - t)[:, None] / math.log(LOG_TIME_OFFSET)
    return torch.cat([angles.sin(), angles.cos(), logarithm], 1)


def conditioning(p, frequencies, s, t):
    features = torch.cat([time_features(frequencies, s), time_features(frequencies, t)], 1)
    return F.silu(linear(p, "times.output", F.silu(linear(p, "times.features", features))))


def modulated(x, shift, scale, style):
    return norm(x, style) * (1.0 + scale) + shift


def attention(p, name, heads, x, style, causal=False):
    batch, tokens, width = x.shape
    qkv = linear(p, name + ".qkv", x).view(batch, tokens, 3, heads, width // heads)
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    if style.attention:
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    else:
        scores = (q * (1.0 / math.sqrt(width // heads))) @ k.transpose(-1, -2)
        if causal:
            mask = torch.ones(tokens, tokens, dtype=torch.bool).tril()
            scores = scores.masked_fill(~mask, -math.inf)
        mixed = torch.softmax(scores, -1) @ v
    return linear(p, name + ".output", mixed.transpose(1, 2).reshape(batch, tokens, width))


def feed_forward(p, name, x):
    return linear(p, name + ".output", F.gelu(linear(p, name + ".hidden", x)))


def dit(network, p, x, s, t, style):
    c = conditioning(p, network["time_frequencies"], s, t)
    h = linear(p, "embedding", x) + p["token_embedding"]
    for layer in range(network["layers"]):
        block = f"blocks.{layer}"
        m = linear(p, block + ".modulation", c)[:, None, :].chunk(6, -1)
        h = h + m[2] * attention(p, block + ".attention", network["heads"], modulated(h, m[0], m[1], style), style)
        h = h + m[5] * feed_forward(p, block + ".feed_forward", modulated(h, m[3], m[4], style))
    shift, scale = linear(p, "final.modulation", c)[:, None, :].chunk(2, -1)
    h = modulated(h, shift, scale, style)
    return linear(p, "final.velocity", h), linear(p, "final.divergence", h)


def mlp(network, p, x, s, t, style):
    c = conditioning(p, network["time_frequencies"], s, t)
    h = linear(p, "embedding", x.flatten(1))
    for block in range(network["blocks"]):
        m = linear(p, f"blocks.{block}.modulation", c).chunk(3, -1)
        h = h + m[2] * feed_forward(p, f"blocks.{block}.feed_forward", modulated(h, m[0], m[1], style))
    shift, scale = linear(p, "final.modulation", c).chunk(2, -1)
    h = modulated(h, shift, scale, style)
    return linear(p, "final.velocity", h).view_as(x), linear(p, "final.divergence", h).view_as(x)


def tarflow(network, p, x, style):
    """z and log|det ∂z/∂x| of one causal block."""
    if network["reversed"]:
        x = x.flip(1)
    position = p["token_embedding"].flip(0) if network["reversed"] else p["token_embedding"]
    h = linear(p, "embedding", x) + position
    for layer in range(network["layers"]):
        block = f"blocks.{layer}"
        h = h + attention(p, block + ".attention", network["heads"], norm(h, style), style, causal=True)
        h = h + feed_forward(p, block + ".feed_forward", norm(h, style))
    log_scale, shift = F.pad(linear(p, "output", h)[:, :-1], (0, 0, 1, 0)).chunk(2, -1)
    z = (x - shift) * torch.exp(-log_scale)
    if network["reversed"]:
        z = z.flip(1)
    return z, -log_scale.sum((1, 2))


# The flow map around the exact map of unit Gaussian data, on the full space (κ = 1).


def variance(t):
    return t.square() + (1.0 - t).square()


def column(t):
    return t[:, None, None]


def corrections(p, x, s, t, style):
    network = specification.model
    function = {"dit": dit, "mlp": mlp}[network["kind"]]
    return function(network, p, x * column(variance(s).rsqrt()), s, t, style)


def step_map(p, x, s, t, style):
    n, h = corrections(p, x, s, t, style)
    variance_s, variance_t = variance(s), variance(t)
    elapsed = column(t - s)
    state = x * column((variance_t / variance_s).sqrt()) + elapsed * n
    terms = elapsed * h + column(0.5 * torch.log(variance_t / variance_s))
    return state, terms.sum((1, 2))


def velocity(p, x, t, style):
    return x * column((2.0 * t - 1.0) / variance(t)) + corrections(p, x, t, t, style)[0]


def diagonal_loss(p, data, noise, time, style):
    t = column(time)
    x = t * data + (1.0 - t) * noise
    n, h = corrections(p, x, time, time, style)
    spread = variance(t)
    residual = data - noise - x * ((2.0 * t - 1.0) / spread) - n
    flow_matching = residual.square().mean()
    target = t * (residual.detach().square() - 1.0 / spread)
    divergence = ((1.0 - t) * h - target).square().mean()
    return flow_matching + divergence, flow_matching, divergence


def lagrangian_loss(p, teacher, data, noise, start, end, style):
    s, t = column(start), column(end)
    x = s * data + (1.0 - s) * noise

    def along_t(time):
        return corrections(p, x, start, time, WRITTEN)

    (n, h), (n_rate, h_rate) = jvp(along_t, (end,), (torch.ones_like(end),))
    spread = variance(t)
    gaussian = x * (spread / variance(s)).sqrt()
    interval = t - s
    with torch.no_grad():
        argument = (gaussian + interval * n).detach()
        n_target, h_target = corrections(teacher, argument, end, end, style)
        target = (argument - gaussian) * ((2.0 * t - 1.0) / spread) + n_target
    map_term = (n + interval * n_rate - target).square().mean()
    divergence = (h + interval * h_rate - h_target).square().mean()
    return map_term + divergence, map_term, divergence


def likelihood_loss(p, x, style):
    z, log_det = tarflow(specification.model, p, x, style)
    size = x.shape[1] * x.shape[2]
    gaussian = 0.5 * z.square().sum((1, 2)) + 0.5 * size * math.log(2.0 * math.pi)
    return ((gaussian - log_det).mean() / size,)


LOSS_NAMES = {
    "training-step": ["loss", "flow_matching", "divergence"],
    "lagrangian-step": ["loss", "map_consistency", "divergence_consistency"],
}


def tensors(arrays):
    return [torch.from_numpy(array.copy()) for array in arrays]


def parameters():
    return {name: torch.from_numpy(specification.parameters[name].copy()) for name in specification.names}


def compiled(function, **options):
    return torch.compile(function, fullgraph=True, dynamic=False, **options) if variant == "compile" else function


def flatten(values):
    return np.concatenate([values[name].detach().numpy().ravel() for name in specification.names])


class Training:
    """Loss, gradient, clipping, fused AdamW and moving average."""

    def __init__(self, loss, names, inputs, teacher):
        self.loss, self.names, self.inputs = loss, names, inputs
        self.parameters = {name: value.requires_grad_() for name, value in parameters().items()}
        self.list = list(self.parameters.values())
        self.average = {name: value.detach().clone() for name, value in self.parameters.items()}
        self.teacher = teacher
        o = specification.optimizer
        self.optimizer = torch.optim.AdamW(
            self.list,
            lr=specification.learning_rate,
            betas=(o["beta1"], o["beta2"]),
            eps=o["epsilon"],
            weight_decay=o["weight_decay"],
            fused=True,
        )
        self.count = 0

    def step(self):
        self.optimizer.zero_grad(set_to_none=True)
        arguments = [self.parameters, self.average] if self.teacher else [self.parameters]
        losses = self.loss(*arguments, *self.inputs)
        losses[0].backward()
        clip = specification.optimizer["clip_norm"]
        norm = torch.nn.utils.clip_grad_norm_(self.list, clip, foreach=True)
        self.optimizer.step()
        self.count += 1
        with torch.no_grad():
            decay = specification.ema_decay(self.count)
            torch._foreach_lerp_(list(self.average.values()), self.list, 1.0 - decay)
        return losses, norm

    def compare(self):
        outputs = {name: [] for name in ["gradient_norm", *self.names]}
        for number in range(specification.compared_steps):
            if number == 0:
                arguments = [self.parameters, self.average] if self.teacher else [self.parameters]
                gradients = torch.autograd.grad(self.loss(*arguments, *self.inputs)[0], self.list)
                outputs["gradient"] = flatten(dict(zip(self.parameters, gradients)))
            losses, norm = self.step()
            outputs["gradient_norm"].append(norm.item())
            for name, value in zip(self.names, losses):
                outputs[name].append(value.item())
        for name, key in (("first_moment", "exp_avg"), ("second_moment", "exp_avg_sq")):
            state = self.optimizer.state
            outputs[name] = flatten({n: state[p][key] for n, p in self.parameters.items()})
        return outputs


def training(loss, names, inputs, teacher=False, **options):
    def build():
        step = Training(compiled(loss, **options), names, tensors(inputs), teacher)
        outputs = step.compare()
        return step.step, outputs

    return build


class Network(torch.nn.Module):
    """A function of parameters as a module, whose parameters a compiler may treat as constants."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.values = torch.nn.ParameterList(parameters().values()).requires_grad_(False)

    def forward(self, *inputs):
        return self.function(dict(zip(specification.names, self.values)), *inputs)


def inference(function, names, inputs, grad_mode=torch.inference_mode, freezing=False, **options):
    """A function of parameters and inputs, without gradients."""

    def build():
        torch._inductor.config.freezing = freezing
        module = compiled(Network(function).eval(), **options)
        arguments = tensors(inputs)

        def call():
            with grad_mode():
                return module(*arguments)

        results = call()
        results = results if isinstance(results, tuple) else (results,)
        return call, {name: value.numpy() for name, value in zip(names, results)}

    return build


def basis(tokens, channels):
    size = tokens * channels
    return torch.eye(size).view(size, 1, tokens, channels)


def divergence_forward(p, x, t, chunk):
    directions = basis(*x.shape[1:])

    def along(direction):
        tangent = direction.expand_as(x)
        return (jvp(lambda x: velocity(p, x, t, PLAIN), (x,), (tangent,))[1] * direction).sum((1, 2))

    return vmap(along, chunk_size=chunk)(directions).sum(0)


def divergence_reverse(p, x, t, chunk):
    directions = basis(*x.shape[1:])
    _, pull = vjp(lambda x: velocity(p, x, t, PLAIN), x)

    def along(direction):
        return (pull(direction.expand_as(x))[0] * direction).sum((1, 2))

    return vmap(along, chunk_size=chunk)(directions).sum(0)


def log_det(matrices):
    """log|det|; of small matrices det itself, as our side compares them (see benches/README.md)."""
    sign, logarithm = torch.linalg.slogdet(matrices)
    return sign * logarithm.exp() if matrices.shape[-1] <= LARGEST_DETERMINANT else logarithm


def jacobian_forward(p, x, s, t, chunk):
    def along(direction):
        return jvp(lambda x: step_map(p, x, s, t, PLAIN)[0], (x,), (direction.expand_as(x),))[1]

    columns = vmap(along, chunk_size=chunk)(basis(*x.shape[1:])).flatten(2)  # [D, n, D]
    return log_det(columns.permute(1, 2, 0))


def jacobian_reverse(p, x, s, t, chunk):
    _, pull = vjp(lambda x: step_map(p, x, s, t, PLAIN)[0], x)
    rows = vmap(lambda d: pull(d.expand_as(x))[0], chunk_size=chunk)(basis(*x.shape[1:])).flatten(2)
    return log_det(rows.permute(1, 0, 2))


def hutchinson_forward(p, x, t, probes):
    def along(probe):
        return (jvp(lambda x: velocity(p, x, t, PLAIN), (x,), (probe,))[1] * probe).sum((1, 2))

    return vmap(along)(probes).mean(0)


def hutchinson_reverse(p, x, t, probes):
    _, pull = vjp(lambda x: velocity(p, x, t, PLAIN), x)
    return vmap(lambda probe: (pull(probe)[0] * probe).sum((1, 2)))(probes).mean(0)


def chunks(tangents):
    """Numbers of tangents at a time worth trying."""
    sizes = [size for size in (8, 24) if size < tangents]
    return [*sizes, None]


def tangents_of(functions, names, inputs):
    """Forward and reverse mode, with chunks of several sizes; derivatives need gradient mode for reverse only."""
    tokens, channels = specification.inputs["x"].shape[1:]
    candidates = {}
    for label, function in functions.items():
        for size in chunks(tokens * channels):
            name = f"{label}, {'all tangents' if size is None else f'{size} tangents'} at a time"
            bound = lambda p, *a, function=function, size=size: function(p, *a, size)  # noqa: E731
            candidates[name] = inference(bound, names, inputs, torch.no_grad)
    return candidates


def flow_map_candidates(task):
    batch, jacobian = specification.batch_inputs, specification.jacobian_inputs
    if task == "forward":
        inputs, names = batch("x", "s", "t"), ["state", "log_det"]
        fused = lambda p, x, s, t: step_map(p, x, s, t, FUSED)  # noqa: E731
        plain = lambda p, x, s, t: step_map(p, x, s, t, PLAIN)  # noqa: E731
        candidates = {
            "fused attention": inference(fused, names, inputs),
            "plain attention": inference(plain, names, inputs),
        }
        if variant == "compile":
            candidates["fused attention, freezing"] = inference(fused, names, inputs, torch.no_grad, True)
            candidates["plain attention, freezing"] = inference(plain, names, inputs, torch.no_grad, True)
            tuned = {"grad_mode": torch.no_grad, "freezing": True, "mode": "max-autotune-no-cudagraphs"}
            candidates["fused attention, freezing, max-autotune"] = inference(fused, names, inputs, **tuned)
        return candidates
    if task == "training-step":
        inputs = batch("x", "noise", "t")
        loss = lambda p, *a, style: diagonal_loss(p, *a, style)  # noqa: E731
        candidates = {
            label: training(partial(loss, style=style), LOSS_NAMES[task], inputs)
            for label, style in (("fused attention", FUSED), ("plain attention", PLAIN))
        }
        if variant == "compile":
            candidates["fused attention, max-autotune"] = training(
                partial(loss, style=FUSED), LOSS_NAMES[task], inputs, mode="max-autotune-no-cudagraphs"
            )
        return candidates
    if task == "lagrangian-step":
        inputs = batch("x", "noise", "s", "t")
        return {
            label: training(
                lambda p, q, *a, style=style: lagrangian_loss(p, q, *a, style), LOSS_NAMES[task], inputs, True
            )
            for label, style in (("fused attention in the target", FUSED), ("plain attention", PLAIN))
        }
    if task == "jvp":

        def along(p, x, s, t, d_x, d_t):
            (state, log_det), (d_state, d_log_det) = jvp(
                lambda x, t: step_map(p, x, s, t, PLAIN), (x, t), (d_x, d_t)
            )
            return state, log_det, d_state, d_log_det

        names = ["state", "log_det", "d_state", "d_log_det"]
        return {"plain attention": inference(along, names, batch("x", "s", "t", "d_x", "d_t"), torch.no_grad)}
    if task == "divergence":
        functions = {"forward mode": divergence_forward, "reverse mode": divergence_reverse}
        return tangents_of(functions, ["divergence"], jacobian("x", "t"))
    if task == "log-det":
        functions = {"forward mode": jacobian_forward, "reverse mode": jacobian_reverse}
        tokens, channels = specification.inputs["x"].shape[1:]
        small = tokens * channels <= LARGEST_DETERMINANT
        return tangents_of(functions, ["determinant" if small else "log_det"], jacobian("x", "s", "t"))
    if task == "hutchinson":
        inputs = [*jacobian("x", "t"), specification.inputs["probes"]]
        return {
            "forward mode": inference(hutchinson_forward, ["divergence"], inputs, torch.no_grad),
            "reverse mode": inference(hutchinson_reverse, ["divergence"], inputs, torch.no_grad),
        }
    return None


def tarflow_candidates(task):
    network, batch = specification.model, specification.batch_inputs
    modes = (("fused attention", FUSED), ("plain attention", PLAIN))
    if task == "forward":
        names, inputs = ["z", "log_det"], batch("x")
        candidates = {}
        for label, style in modes:
            function = lambda p, x, style=style: tarflow(network, p, x, style)  # noqa: E731
            candidates[label] = inference(function, names, inputs)
            if variant == "compile":
                candidates[label + ", freezing"] = inference(function, names, inputs, torch.no_grad, True)
        return candidates
    if task == "training-step":
        return {
            label: training(lambda p, x, style=style: likelihood_loss(p, x, style), ["loss"], batch("x"))
            for label, style in modes
        }
    if task == "jvp":

        def along(p, x, d_x):
            (z, log_det), (d_z, d_log_det) = jvp(lambda x: tarflow(network, p, x, PLAIN), (x,), (d_x,))
            return z, log_det, d_z, d_log_det

        names = ["z", "log_det", "d_z", "d_log_det"]
        return {"plain attention": inference(along, names, batch("x", "d_x"), torch.no_grad)}
    return None


def warm_up():
    """What the library sets up at first use should not count as memory of a task."""
    x = torch.randn(64, 64, requires_grad=True)
    F.scaled_dot_product_attention(x[None, None], x[None, None], x[None, None]).square().sum().backward()


def release():
    if variant == "compile":
        torch._dynamo.reset()


make = tarflow_candidates if specification.kind == "tarflow" else flow_map_candidates
serve(specification, {"torch": torch.__version__}, make, warm_up, release)
