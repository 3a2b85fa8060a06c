"""The workloads in JAX: `engine_jax.py SPECIFICATION.json jit`. Started by `boltzmap bench engine`."""

import math
import os
import sys

from common import Specification, limit_threads, serve

specification = Specification(sys.argv[1])
limit_threads(specification.threads)
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["NPROC"] = str(specification.threads)

import jax
import jax.numpy as jnp
import numpy as np

LAYER_NORM_EPSILON = 1e-6
LOG_TIME_OFFSET = 0.01
# Largest matrices whose determinant is compared instead of its logarithm.
LARGEST_DETERMINANT = 3


# Networks, as functions of a dictionary of parameters. Weights are [out, in].


def linear(p, name, x):
    return x @ p[name + ".weight"].T + p[name + ".bias"]


def norm(x):
    centred = x - x.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + LAYER_NORM_EPSILON)


def gelu(x):
    return jax.nn.gelu(x, approximate=False)


def time_features(frequencies, t):
    steps = np.arange(frequencies, dtype=np.float32) / (max(frequencies, 2) - 1)
    angles = t[:, None] * jnp.asarray(0.5 * math.pi * 32.0**steps, jnp.float32)
    logarithm = jnp.log(1.0 + LOG_TIME_OFFSET - t)[:, None] / math.log(LOG_TIME_OFFSET)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles), logarithm], 1)


def conditioning(p, frequencies, s, t):
    features = jnp.concatenate([time_features(frequencies, s), time_features(frequencies, t)], 1)
    return jax.nn.silu(linear(p, "times.output", jax.nn.silu(linear(p, "times.features", features))))


def modulated(x, shift, scale):
    return norm(x) * (1.0 + scale) + shift


def attention(p, name, heads, x, causal=False):
    batch, tokens, width = x.shape
    qkv = linear(p, name + ".qkv", x).reshape(batch, tokens, 3, heads, width // heads)
    q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
    scores = jnp.einsum("bqhe,bkhe->bhqk", q * (1.0 / math.sqrt(width // heads)), k)
    if causal:
        scores = jnp.where(np.tril(np.ones((tokens, tokens), bool)), scores, -jnp.inf)
    mixed = jnp.einsum("bhqk,bkhe->bqhe", jax.nn.softmax(scores, -1), v)
    return linear(p, name + ".output", mixed.reshape(batch, tokens, width))


def feed_forward(p, name, x):
    return linear(p, name + ".output", gelu(linear(p, name + ".hidden", x)))


def dit(network, p, x, s, t):
    c = conditioning(p, network["time_frequencies"], s, t)
    h = linear(p, "embedding", x) + p["token_embedding"]
    for layer in range(network["layers"]):
        block = f"blocks.{layer}"
        m = jnp.split(linear(p, block + ".modulation", c)[:, None, :], 6, -1)
        h = h + m[2] * attention(p, block + ".attention", network["heads"], modulated(h, m[0], m[1]))
        h = h + m[5] * feed_forward(p, block + ".feed_forward", modulated(h, m[3], m[4]))
    shift, scale = jnp.split(linear(p, "final.modulation", c)[:, None, :], 2, -1)
    h = modulated(h, shift, scale)
    return linear(p, "final.velocity", h), linear(p, "final.divergence", h)


def mlp(network, p, x, s, t):
    c = conditioning(p, network["time_frequencies"], s, t)
    h = linear(p, "embedding", x.reshape(x.shape[0], -1))
    for block in range(network["blocks"]):
        m = jnp.split(linear(p, f"blocks.{block}.modulation", c), 3, -1)
        h = h + m[2] * feed_forward(p, f"blocks.{block}.feed_forward", modulated(h, m[0], m[1]))
    shift, scale = jnp.split(linear(p, "final.modulation", c), 2, -1)
    h = modulated(h, shift, scale)
    return linear(p, "final.velocity", h).reshape(x.shape), linear(p, "final.divergence", h).reshape(x.shape)


def tarflow(network, p, x):
    """z and log|det ∂z/∂x| of one causal block."""
    position = p["token_embedding"]
    if network["reversed"]:
        x, position = x[:, ::-1], position[::-1]
    h = linear(p, "embedding", x) + position
    for layer in range(network["layers"]):
        block = f"blocks.{layer}"
        h = h + attention(p, block + ".attention", network["heads"], norm(h), causal=True)
        h = h + feed_forward(p, block + ".feed_forward", norm(h))
    shifted = jnp.pad(linear(p, "output", h)[:, :-1], ((0, 0), (1, 0), (0, 0)))
    log_scale, shift = jnp.split(shifted, 2, -1)
    z = (x - shift) * jnp.exp(-log_scale)
    return z[:, ::-1] if network["reversed"] else z, -log_scale.sum((1, 2))


# The flow map around the exact map of unit Gaussian data, on the full space (κ = 1).


def variance(t):
    return jnp.square(t) + jnp.square(1.0 - t)


def column(t):
    return t[:, None, None]


def corrections(p, x, s, t):
    network = specification.model
    function = {"dit": dit, "mlp": mlp}[network["kind"]]
    return function(network, p, x * column(jax.lax.rsqrt(variance(s))), s, t)


def step_map(p, x, s, t):
    n, h = corrections(p, x, s, t)
    variance_s, variance_t = variance(s), variance(t)
    elapsed = column(t - s)
    state = x * column(jnp.sqrt(variance_t / variance_s)) + elapsed * n
    terms = elapsed * h + column(0.5 * jnp.log(variance_t / variance_s))
    return state, terms.sum((1, 2))


def velocity(p, x, t):
    return x * column((2.0 * t - 1.0) / variance(t)) + corrections(p, x, t, t)[0]


def diagonal_loss(p, average, data, noise, time):
    t = column(time)
    x = t * data + (1.0 - t) * noise
    n, h = corrections(p, x, time, time)
    spread = variance(t)
    residual = data - noise - x * ((2.0 * t - 1.0) / spread) - n
    flow_matching = jnp.square(residual).mean()
    target = t * (jnp.square(jax.lax.stop_gradient(residual)) - 1.0 / spread)
    divergence = jnp.square((1.0 - t) * h - target).mean()
    return flow_matching + divergence, (flow_matching, divergence)


def lagrangian_loss(p, average, data, noise, start, end):
    s, t = column(start), column(end)
    x = s * data + (1.0 - s) * noise
    (n, h), (n_rate, h_rate) = jax.jvp(
        lambda time: corrections(p, x, start, time), (end,), (jnp.ones_like(end),)
    )
    spread = variance(t)
    gaussian = x * jnp.sqrt(spread / variance(s))
    interval = t - s
    argument = jax.lax.stop_gradient(gaussian + interval * n)
    n_target, h_target = corrections(average, argument, end, end)
    target = (argument - gaussian) * ((2.0 * t - 1.0) / spread) + n_target
    map_term = jnp.square(n + interval * n_rate - jax.lax.stop_gradient(target)).mean()
    divergence = jnp.square(h + interval * h_rate - jax.lax.stop_gradient(h_target)).mean()
    return map_term + divergence, (map_term, divergence)


def likelihood_loss(p, average, x):
    z, log_det = tarflow(specification.model, p, x)
    size = x.shape[1] * x.shape[2]
    gaussian = 0.5 * jnp.square(z).sum((1, 2)) + 0.5 * size * math.log(2.0 * math.pi)
    return (gaussian - log_det).mean() / size, ()


LOSS_NAMES = {
    "training-step": ["loss", "flow_matching", "divergence"],
    "lagrangian-step": ["loss", "map_consistency", "divergence_consistency"],
}


def parameters():
    return {name: jnp.array(specification.parameters[name]) for name in specification.names}


def flatten(values):
    return np.concatenate([np.asarray(values[name]).ravel() for name in specification.names])


def update(state, gradients):
    """Clipping, AdamW and moving average."""
    o, rate = specification.optimizer, specification.learning_rate
    p, m, v, average, count = state
    leaves = jax.tree.leaves(gradients)
    norm = jnp.sqrt(sum(jnp.square(leaf).sum() for leaf in leaves))
    clip = jnp.minimum(1.0, o["clip_norm"] / norm)
    count = count + 1
    k = count.astype(jnp.float32)
    beta1, beta2 = o["beta1"], o["beta2"]
    correction1, correction2 = 1.0 - beta1**k, 1.0 - beta2**k
    decay = jnp.minimum(o["ema_decay"], (1.0 + k) / (10.0 + k))

    def one(p, g, m, v, average):
        g = clip * g
        m = beta1 * m + (1.0 - beta1) * g
        v = beta2 * v + (1.0 - beta2) * jnp.square(g)
        p = p * (1.0 - rate * o["weight_decay"])
        p = p - rate / correction1 * m / (jnp.sqrt(v / correction2) + o["epsilon"])
        return p, m, v, decay * average + (1.0 - decay) * p

    results = {name: one(p[name], gradients[name], m[name], v[name], average[name]) for name in p}
    p, m, v, average = ({name: result[i] for name, result in results.items()} for i in range(4))
    return (p, m, v, average, count), norm


def training(loss, names, inputs):
    def build():
        arguments = [jnp.array(array) for array in inputs]
        value_and_grad = jax.value_and_grad(loss, has_aux=True)

        def step(state, *arguments):
            (value, parts), gradients = value_and_grad(state[0], state[3], *arguments)
            state, norm = update(state, gradients)
            return state, (value, *parts), norm

        step = jax.jit(step, donate_argnums=0)
        zeros = lambda: jax.tree.map(jnp.zeros_like, parameters())  # noqa: E731
        state = (parameters(), zeros(), zeros(), parameters(), jnp.zeros((), jnp.int32))
        outputs = {name: [] for name in ["gradient_norm", *names]}
        outputs["gradient"] = flatten(jax.jit(value_and_grad)(state[0], state[3], *arguments)[1])
        for _ in range(specification.compared_steps):
            state, losses, norm = step(state, *arguments)
            outputs["gradient_norm"].append(float(norm))
            for name, value in zip(names, losses):
                outputs[name].append(float(value))
        outputs["first_moment"], outputs["second_moment"] = flatten(state[1]), flatten(state[2])
        box = [state]

        def call():
            box[0] = jax.block_until_ready(step(box[0], *arguments))[0]

        return call, outputs

    return build


def inference(function, names, inputs):
    """A function of parameters and inputs, compiled."""

    def build():
        p, arguments = parameters(), [jnp.array(array) for array in inputs]
        jitted = jax.jit(function)

        def call():
            return jax.block_until_ready(jitted(p, *arguments))

        results = call()
        results = results if isinstance(results, tuple) else (results,)
        return call, {name: np.asarray(value) for name, value in zip(names, results)}

    return build


def basis(tokens, channels):
    size = tokens * channels
    return jnp.eye(size).reshape(size, 1, tokens, channels)


def over(function, directions, chunk):
    """The function of every direction, `chunk` at a time."""
    if chunk is None:
        return jax.vmap(function)(directions)
    return jax.lax.map(function, directions, batch_size=chunk)


def divergence_forward(p, x, t, chunk):
    _, push = jax.linearize(lambda x: velocity(p, x, t), x)
    along = lambda d: (push(jnp.broadcast_to(d, x.shape)) * d).sum((1, 2))  # noqa: E731
    return over(along, basis(*x.shape[1:]), chunk).sum(0)


def divergence_jvp(p, x, t, chunk):
    def along(d):
        return (jax.jvp(lambda x: velocity(p, x, t), (x,), (jnp.broadcast_to(d, x.shape),))[1] * d).sum((1, 2))

    return over(along, basis(*x.shape[1:]), chunk).sum(0)


def divergence_reverse(p, x, t, chunk):
    _, pull = jax.vjp(lambda x: velocity(p, x, t), x)
    along = lambda d: (pull(jnp.broadcast_to(d, x.shape))[0] * d).sum((1, 2))  # noqa: E731
    return over(along, basis(*x.shape[1:]), chunk).sum(0)


def log_det(matrices):
    """log|det|; of small matrices det itself, as our side compares them (see benches/README.md)."""
    sign, logarithm = jnp.linalg.slogdet(matrices)
    return sign * jnp.exp(logarithm) if matrices.shape[-1] <= LARGEST_DETERMINANT else logarithm


def flat(values):
    return values.reshape(*values.shape[:2], -1)


def jacobian_forward(p, x, s, t, chunk):
    _, push = jax.linearize(lambda x: step_map(p, x, s, t)[0], x)
    columns = over(lambda d: push(jnp.broadcast_to(d, x.shape)), basis(*x.shape[1:]), chunk)
    return log_det(flat(columns).transpose(1, 2, 0))


def jacobian_jvp(p, x, s, t, chunk):
    def along(d):
        return jax.jvp(lambda x: step_map(p, x, s, t)[0], (x,), (jnp.broadcast_to(d, x.shape),))[1]

    return log_det(flat(over(along, basis(*x.shape[1:]), chunk)).transpose(1, 2, 0))


def jacobian_reverse(p, x, s, t, chunk):
    _, pull = jax.vjp(lambda x: step_map(p, x, s, t)[0], x)
    rows = over(lambda d: pull(jnp.broadcast_to(d, x.shape))[0], basis(*x.shape[1:]), chunk)
    return log_det(flat(rows).transpose(1, 0, 2))


def hutchinson_forward(p, x, t, probes):
    _, push = jax.linearize(lambda x: velocity(p, x, t), x)
    return jax.vmap(lambda probe: (push(probe) * probe).sum((1, 2)))(probes).mean(0)


def hutchinson_jvp(p, x, t, probes):
    def along(probe):
        return (jax.jvp(lambda x: velocity(p, x, t), (x,), (probe,))[1] * probe).sum((1, 2))

    return jax.vmap(along)(probes).mean(0)


def hutchinson_reverse(p, x, t, probes):
    _, pull = jax.vjp(lambda x: velocity(p, x, t), x)
    return jax.vmap(lambda probe: (pull(probe)[0] * probe).sum((1, 2)))(probes).mean(0)


def tangents_of(functions, names, inputs):
    tokens, channels = specification.inputs["x"].shape[1:]
    sizes = [size for size in (8, 24) if size < tokens * channels]
    candidates = {}
    for label, function in functions.items():
        for size in [*sizes, None]:
            name = f"{label}, {'all tangents' if size is None else f'{size} tangents'} at a time"
            bound = lambda p, *a, function=function, size=size: function(p, *a, size)  # noqa: E731
            candidates[name] = inference(bound, names, inputs)
    return candidates


def flow_map_candidates(task):
    batch, jacobian = specification.batch_inputs, specification.jacobian_inputs
    if task == "forward":
        return {"jit": inference(step_map, ["state", "log_det"], batch("x", "s", "t"))}
    if task == "training-step":
        return {"jit": training(diagonal_loss, LOSS_NAMES[task], batch("x", "noise", "t"))}
    if task == "lagrangian-step":
        return {"jit": training(lagrangian_loss, LOSS_NAMES[task], batch("x", "noise", "s", "t"))}
    if task == "jvp":

        def along(p, x, s, t, d_x, d_t):
            (state, log_det), (d_state, d_log_det) = jax.jvp(
                lambda x, t: step_map(p, x, s, t), (x, t), (d_x, d_t)
            )
            return state, log_det, d_state, d_log_det

        names = ["state", "log_det", "d_state", "d_log_det"]
        return {"jit": inference(along, names, batch("x", "s", "t", "d_x", "d_t"))}
    if task == "divergence":
        functions = {
            "linearised": divergence_forward,
            "forward mode": divergence_jvp,
            "reverse mode": divergence_reverse,
        }
        return tangents_of(functions, ["divergence"], jacobian("x", "t"))
    if task == "log-det":
        functions = {
            "linearised": jacobian_forward,
            "forward mode": jacobian_jvp,
            "reverse mode": jacobian_reverse,
        }
        tokens, channels = specification.inputs["x"].shape[1:]
        small = tokens * channels <= LARGEST_DETERMINANT
        return tangents_of(functions, ["determinant" if small else "log_det"], jacobian("x", "s", "t"))
    if task == "hutchinson":
        inputs = [*jacobian("x", "t"), specification.inputs["probes"]]
        functions = {
            "linearised": hutchinson_forward,
            "forward mode": hutchinson_jvp,
            "reverse mode": hutchinson_reverse,
        }
        return {name: inference(function, ["divergence"], inputs) for name, function in functions.items()}
    return None


def tarflow_candidates(task):
    network, batch = specification.model, specification.batch_inputs
    if task == "forward":
        return {"jit": inference(lambda p, x: tarflow(network, p, x), ["z", "log_det"], batch("x"))}
    if task == "training-step":
        return {"jit": training(likelihood_loss, ["loss"], batch("x"))}
    if task == "jvp":

        def along(p, x, d_x):
            (z, log_det), (d_z, d_log_det) = jax.jvp(lambda x: tarflow(network, p, x), (x,), (d_x,))
            return z, log_det, d_z, d_log_det

        return {"jit": inference(along, ["z", "log_det", "d_z", "d_log_det"], batch("x", "d_x"))}
    return None


def warm_up():
    """What the library sets up at first use should not count as memory of a task."""
    jax.block_until_ready(jax.jit(jax.grad(lambda x: jnp.square(x @ x).sum()))(jnp.ones((64, 64))))


make = tarflow_candidates if specification.kind == "tarflow" else flow_map_candidates
serve(specification, {"jax": jax.__version__}, make, warm_up, jax.clear_caches)
