"""Training of binary codes: stochastic generative hashing, with the score-aware loss.

Dai, Guo, Kumar, He, Song, "Stochastic Generative Hashing", ICML 2017. A datapoint x gets a code of
signs h in {-1, 1}^b (the paper's 0 and 1, moved), by chance while training:

    q(h_j = 1 | x) = sigmoid(z_j),    z = x W + a,

and is generated from it: p(x | h) = N(h V + c, rho^2 I), with p(h_j = 1) = 1/2. Training lowers the
length of the message that names x by way of h (the negative Helmholtz free energy, their eq. 3):

    E_q[|x - h V - c|^2] / (2 rho^2) + KL(q(h | x) || p(h)) + d log rho.

Guo et al. 2020, section 7.7: the squared error gives way to the score-aware loss of the residual
r = x - h V - c, with u = x / |x| and eta = h_par / h_perp,

    L(h) = |r|^2 + (eta - 1) <r, u>^2,

times the datapoint's h_perp where lengths are to count.

The second term pulls bits towards chance. Where they are many it costs recall at its full weight:
30,000 rows of GloVe-100 in 256 bits, Hamming Recall 10@10 .46, and .60 with a tenth of the weight.

The derivative by z of an expectation over a random bit is exact in its distributional form (Dai et
al., section 3.2): sigmoid'(z_j) E[L(h_j = 1) - L(h_j = -1)]. Dai et al. put the gradient of L in
place of the difference; L being quadratic in h, the difference itself costs one product more, and
that is what is taken here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from swann.errors import InvalidInputError
from swann.quantize.hamming import as_signs

__all__ = ["HashModel", "Target", "bit_differences", "descend_codes", "pull", "train_hash"]

F32 = NDArray[np.float32]

_START_ROWS = 20_000
_LOGIT = 8.0
_DECODER_STEPS = 12
_ROWS_AT_ONCE = 2048
_FORGET = 0.01
_SMALLEST = 1e-25
"""Of the sizes of rows from their mean: the encoder divides by them."""


class HashModel(NamedTuple):
    """What turns a datapoint into signs, and signs into a datapoint.

    Attributes
    ----------
    center : float32 array of shape (d,)
        Subtracted before encoding: the mean of the training rows.
    encoder, bias : float32 arrays of shapes (d, bits) and (bits,)
        A sign is that of ``(x - center) @ encoder + bias``.
    decoder, shift : float32 arrays of shapes (bits, d) and (d,)
        A datapoint is ``signs @ decoder + shift``.
    """

    center: F32
    encoder: F32
    bias: F32
    decoder: F32
    shift: F32


class Target(NamedTuple):
    """Datapoints, and what errors of theirs cost.

    Attributes
    ----------
    rows, units : float32 arrays of shape (n, d)
        Datapoints x, and their directions u (zeros for a datapoint of zeros).
    extra, scale : float32 arrays of shape (n,)
        eta - 1, and what multiplies the loss.
    """

    rows: F32
    units: F32
    extra: F32
    scale: F32

    def take(self, ids: NDArray[np.int64] | slice) -> Target:
        """Return some of the datapoints."""
        return Target(*(part[ids] for part in self))


def pull(residuals: F32, target: Target) -> tuple[F32, F32]:
    """Return the losses of residuals r (n, d), and g = -dL / d(h V + c) / 2.

    Returns
    -------
    tuple of (float32 array of shape (n,), float32 array of shape (n, d))
        ``L = scale (|r|^2 + extra <r, u>^2)`` and ``g = scale (r + extra <r, u> u)``. Linear in r
        but for L: with the change of h V + c in place of r, L is how it curves.
    """
    along = np.einsum("ij,ij->i", residuals, target.units)
    tilt = target.extra * along
    losses = target.scale * (np.einsum("ij,ij->i", residuals, residuals) + tilt * along)
    return losses, target.scale[:, None] * (residuals + tilt[:, None] * target.units)


def bit_differences(signs: F32, pulled: F32, target: Target, decoder: F32) -> F32:
    """Return L(h_j = 1) - L(h_j = -1) for every bit, the others staying as they are.

    Moving h_j by t changes L by ``-2 t <g, V_j> + t^2 C_j``, where g is what `pull` returns and
    ``C_j = scale (|V_j|^2 + extra <V_j, u>^2)``.
    """
    curve = target.extra[:, None] * np.square(target.units @ decoder.T)
    curve += np.einsum("ij,ij->i", decoder, decoder)
    differences: F32 = pulled @ decoder.T + signs * target.scale[:, None] * curve
    return differences * np.float32(-4.0)


def train_hash(
    target: Target,
    bits: int,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    prior_weight: float,
    rng: np.random.Generator,
    on_epoch: Callable[[int, float], None] | None = None,
) -> HashModel:
    """Train encoder and decoder together by Adam, then solve for the decoder once more.

    Parameters
    ----------
    target : Target
        The datapoints to train on.
    bits, epochs, batch_size, learning_rate, prior_weight
        As for `swann.quantize.BinaryQuantizer`.
    rng : numpy.random.Generator
        Chooses the start, the order of the rows, and the bits.
    on_epoch : callable, optional
        Called as ``on_epoch(number, mean_loss)``, the loss being that of the random bits.

    Notes
    -----
    An epoch costs ``10 n d bits`` multiplications. Rows are centred and brought to a mean square of
    1 a dimension, so that settings mean the same for all data. rho^2 is what makes the residuals
    seen so far most likely: their mean loss by d. The learning rate falls to 0 along half a cosine.
    """
    center = target.rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    moved = target.rows - center
    scale = _mean_size(moved)
    moved /= scale
    count, dimension = moved.shape
    scaled = target._replace(rows=moved)
    parameters = _start(moved, bits, rng)
    batch = min(batch_size, count)
    batches = count // batch
    # Rates that fit the sizes of parameters: entries of W are about _LOGIT / sqrt(d).
    rates = [_LOGIT / np.sqrt(dimension), _LOGIT, 1.0 / np.sqrt(1.0 + bits / dimension), 1.0]
    adam = _Adam(parameters, [learning_rate * rate for rate in rates])
    variance = None
    for epoch in range(epochs):
        order = rng.permutation(count)
        total = 0.0
        for number in range(batches):
            chosen = scaled.take(order[number * batch : (number + 1) * batch])
            losses, gradients = _gradients(
                parameters, chosen, prior_weight * (variance or 0.0), rng
            )
            mean = float(losses.mean(dtype=np.float64))
            total += mean
            seen = mean / dimension
            variance = seen if variance is None else variance + _FORGET * (seen - variance)
            adam.step(gradients, (1.0 + np.cos(np.pi * adam.steps / (epochs * batches))) / 2.0)
        if on_epoch is not None:
            on_epoch(epoch, total / batches * float(scale) ** 2)
    model = _solve_decoder(
        HashModel(center, *parameters),
        scaled,
        as_signs(moved @ parameters[0] + parameters[1] > 0.0),
    )
    return model._replace(
        encoder=model.encoder / scale,
        decoder=model.decoder * scale,
        shift=model.shift * scale + center,
    )


def _mean_size(moved: F32) -> np.float32:
    """Return the root of the mean square, of small numbers too; 1 where all are 0."""
    largest = float(np.abs(moved).max())
    if 0.0 < largest < _SMALLEST:
        raise InvalidInputError(
            f"datapoints differ from their mean by {largest:.3g} at most; expected at least "
            f"{_SMALLEST:g}, or an encoder overflows float32"
        )
    if largest > 1e-15:  # squares are far above what float32 rounds to 0
        return np.float32(np.sqrt(np.mean(np.square(moved), dtype=np.float64)))
    return np.float32(np.sqrt(np.mean(np.square(moved, dtype=np.float64))) or 1.0)


def _start(moved: F32, bits: int, rng: np.random.Generator) -> list[F32]:
    """Turn the leading principal components at random (all of them more than once, for many bits).

    With the signs of those, the decoder starts as the least-squares one.
    """
    sample = moved[np.sort(rng.permutation(len(moved))[:_START_ROWS])]
    vectors = np.linalg.eigh(sample.T.astype(np.float64) @ sample)[1]
    axes = vectors[:, ::-1]
    turned = []
    for left in range(bits, 0, -axes.shape[1]):
        width = min(left, axes.shape[1])
        spin, _ = np.linalg.qr(rng.standard_normal((width, width)))
        turned.append(axes[:, :width] @ spin)
    encoder = np.concatenate(turned, axis=1)
    spread = np.sqrt(np.mean(np.square(sample @ encoder), axis=0))
    encoder *= _LOGIT / np.where(spread > 0.0, spread, 1.0)
    signs = as_signs(sample @ encoder > 0.0).astype(np.float64)
    system = signs.T @ signs + np.eye(bits) * (1e-3 * len(sample))
    decoder = np.linalg.solve(system, signs.T @ sample)
    parts = encoder, np.zeros(bits), decoder, np.zeros(moved.shape[1])
    return [np.ascontiguousarray(part, dtype=np.float32) for part in parts]


def _gradients(
    parameters: list[F32], target: Target, share: float, rng: np.random.Generator
) -> tuple[F32, list[F32]]:
    """Draw bits; return the losses, and the gradients of E[L] + 2 share KL by all parameters."""
    encoder, bias, decoder, shift = parameters
    logits = target.rows @ encoder + bias
    with np.errstate(over="ignore"):  # exp of a large -z is infinite, and 1 / (1 + inf) is 0
        chance = 1.0 / (1.0 + np.exp(-logits))
    drawn = rng.random(chance.shape, dtype=np.float32) < chance
    signs = as_signs(drawn)
    losses, pulled = pull(target.rows - signs @ decoder - shift, target)
    slope = bit_differences(signs, pulled, target, decoder)
    slope += np.float32(2.0 * share) * logits  # the derivative of KL by p is z
    slope *= chance * (1.0 - chance) / np.float32(len(logits))
    pulled *= np.float32(-2.0 / len(logits))
    by_encoder, by_decoder = target.rows.T @ slope, signs.T @ pulled
    return losses, [by_encoder, slope.sum(axis=0), by_decoder, pulled.sum(axis=0)]


class _Adam:
    """Kingma and Ba 2015, with a rate for each parameter; the parameters are changed in place."""

    def __init__(self, parameters: list[F32], rates: list[float]) -> None:
        self.parameters = parameters
        self.rates = rates
        self.first = [np.zeros_like(part) for part in parameters]
        self.second = [np.zeros_like(part) for part in parameters]
        self.steps = 0

    def step(self, gradients: list[F32], share: float) -> None:
        self.steps += 1
        correction = np.sqrt(1.0 - 0.999**self.steps) / (1.0 - 0.9**self.steps)
        for k, gradient in enumerate(gradients):
            self.first[k] += np.float32(0.1) * (gradient - self.first[k])
            self.second[k] += np.float32(0.001) * (gradient * gradient - self.second[k])
            move = self.first[k] / (np.sqrt(self.second[k]) + np.float32(1e-8))
            self.parameters[k] -= np.float32(self.rates[k] * share * correction) * move


def _solve_decoder(model: HashModel, target: Target, signs: F32) -> HashModel:
    """Bring decoder and shift to where the loss of these signs is least, by conjugate gradients.

    The normal equations join all of the decoder's entries (through u); they are never made.
    """
    inputs = np.concatenate([signs, np.ones((len(signs), 1), np.float32)], axis=1)
    unknown = np.concatenate([model.decoder, model.shift[None]])
    downhill = inputs.T @ pull(target.rows - inputs @ unknown, target)[1]
    direction = downhill.copy()
    size = np.vdot(downhill, downhill)
    small = size * np.float32(1e-9)
    for _ in range(_DECODER_STEPS):
        curves, bent = pull(inputs @ direction, target)
        bottom = float(curves.sum(dtype=np.float64))
        if size <= small or bottom <= 0.0:
            break
        step = np.float32(size / bottom)
        unknown += step * direction
        downhill -= step * (inputs.T @ bent)
        before, size = size, np.vdot(downhill, downhill)
        direction = downhill + size / before * direction
    return model._replace(decoder=unknown[:-1].copy(), shift=unknown[-1].copy())


def descend_codes(model: HashModel, target: Target, signs: F32, sweeps: int) -> None:
    """Turn bits over wherever that lowers the loss, one bit after the other.

    Parameters
    ----------
    target : Target
        The datapoints.
    signs : float32 array of shape (n, bits)
        Their codes, changed in place.
    sweeps : int
        Passes over all bits at most; fewer where a pass changes nothing.

    Notes
    -----
    The loss of no datapoint rises. Costs ``n bits (2 d + flips)`` multiplications, flips being how
    many bits of a datapoint are turned: a small part of all.
    """
    size = np.abs(model.decoder).max() or np.float32(1.0)  # so that no square overflows
    decoder = model.decoder / size
    products = decoder @ decoder.T
    lengths = np.diagonal(products)
    for start in range(0, len(signs), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        rows, units, extra, _ = target.take(part)
        left = (rows - model.shift) / size - signs[part] @ decoder
        along = np.einsum("ij,ij->i", left, units)
        # Bit by bit in rows of memory: what a bit is looked at for lies side by side.
        bits = np.ascontiguousarray(signs[part].T)
        pulls = decoder @ left.T
        tilts = decoder @ units.T
        for _ in range(sweeps):
            turned = False
            for j, tilt in enumerate(tilts):
                # A quarter of what turning bit j over adds to the loss.
                rise = (
                    bits[j] * (pulls[j] + extra * along * tilt) + lengths[j] + extra * tilt * tilt
                )
                flip = np.flatnonzero(rise < 0.0)
                if len(flip):
                    turned = True
                    twice = 2.0 * bits[j, flip]
                    pulls[:, flip] += products[j][:, None] * twice
                    along[flip] += twice * tilt[flip]
                    bits[j, flip] *= -1.0
            if not turned:
                break
        signs[part] = bits.T
