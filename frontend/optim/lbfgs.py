"""L-BFGS: steps along curvature learnt from the last changes of the gradient.

J. Nocedal and S. J. Wright, "Numerical Optimization", 2nd edition: algorithm 7.4 (two loops) and, for
`line_search_fn="strong_wolfe"`, algorithms 3.5 and 3.6 with cubic interpolation (equation 3.59). Settings and order of
evaluations follow PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from graphc.errors import ArgumentError
from graphc.frontend.creation import zeros_like
from graphc.frontend.functional import cat
from graphc.frontend.grad_mode import enable_grad, no_grad
from graphc.frontend.mode import mode
from graphc.frontend.optim.optimizer import Optimizer, Params, check_range
from graphc.frontend.tensor import Tensor

__all__ = ["LBFGS"]

_SUFFICIENT, _CURVATURE, _MOST_TRIALS = 1e-4, 0.9, 25


@dataclass
class _Point:
    """A place along a direction: step, loss, gradient, slope."""

    t: float
    loss: float
    grad: Tensor
    slope: float


Evaluate = Callable[[float], _Point]


def _cubic(a: _Point, b: _Point, low: float, high: float) -> float:
    """The least place between `low` and `high` of the cubic with the losses and slopes of two points."""
    first = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.t - b.t)
    square = first**2 - a.slope * b.slope
    if square < 0:
        return (low + high) / 2
    second = math.sqrt(square)
    if a.t > b.t:
        a, b = b, a
    place = b.t - (b.t - a.t) * ((b.slope + second - first) / (b.slope - a.slope + 2 * second))
    return min(max(place, low), high)


def _strong_wolfe(evaluate: Evaluate, start: _Point, t: float, reach: float, least_change: float) -> tuple[_Point, int]:
    """A point with less loss and slope (3.7 of the book), and how often the loss was computed."""

    def enough(p: _Point) -> bool:
        return p.loss <= start.loss + _SUFFICIENT * p.t * start.slope

    def flat(p: _Point) -> bool:
        return abs(p.slope) <= -_CURVATURE * start.slope

    before, now, trials = start, evaluate(t), 0
    bracket: list[_Point] = []
    while trials < _MOST_TRIALS:
        if not enough(now) or (trials > 1 and now.loss >= before.loss):
            bracket = [before, now]
            break
        if flat(now):
            return now, trials + 1
        if now.slope >= 0:
            bracket = [before, now]
            break
        t = _cubic(before, now, now.t + 0.01 * (now.t - before.t), now.t * 10)
        before, now, trials = now, evaluate(t), trials + 1
    if not bracket:
        bracket = [start, now]
    stuck = False
    low = 0 if bracket[0].loss <= bracket[1].loss else 1
    evaluations = trials + 1
    while trials < _MOST_TRIALS and abs(bracket[1].t - bracket[0].t) * reach >= least_change:
        left, right = sorted(p.t for p in bracket)
        t = _cubic(bracket[0], bracket[1], left, right)
        edge = 0.1 * (right - left)
        if min(right - t, t - left) < edge:  # too near to an end twice, or beyond: move inside
            if stuck or t >= right or t <= left:
                t = right - edge if abs(t - right) < abs(t - left) else left + edge
                stuck = False
            else:
                stuck = True
        else:
            stuck = False
        now, trials, evaluations = evaluate(t), trials + 1, evaluations + 1
        high = 1 - low
        if not enough(now) or now.loss >= bracket[low].loss:
            bracket[high] = now
            low = 0 if bracket[0].loss <= bracket[1].loss else 1
            continue
        if flat(now):
            return now, evaluations
        if now.slope * (bracket[high].t - bracket[low].t) >= 0:
            bracket[high] = bracket[low]
        bracket[low] = now
    return bracket[low], evaluations


class LBFGS(Optimizer):
    """Limited-memory BFGS for one group of parameters; `step(closure)` evaluates the model several times.

    It decides by the losses it sees, so it cannot be part of a compiled function; compile the closure. Raises
    ArgumentError for more groups and settings out of range.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ) -> None:
        check_range("LBFGS", "learning rate", lr)
        if line_search_fn not in (None, "strong_wolfe"):
            raise ArgumentError(f"LBFGS: only 'strong_wolfe' is supported as line_search_fn, got {line_search_fn!r}")
        defaults = {
            "lr": lr,
            "max_iter": max_iter,
            "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
            "tolerance_grad": tolerance_grad,
            "tolerance_change": tolerance_change,
            "history_size": history_size,
            "line_search_fn": line_search_fn,
        }
        super().__init__(params, defaults)
        if len(self.param_groups) != 1:
            raise ArgumentError("LBFGS doesn't support per-parameter options (parameter groups)")

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Up to `max_iter` steps; `closure` clears the gradients, computes the loss and its gradients, returns it."""
        if closure is None:
            raise ArgumentError("LBFGS: step() needs a closure that computes the loss and its gradients")
        recorder = mode.get().recorder
        if recorder is not None:
            recorder.on_escape(self.param_groups[0]["params"][0], "LBFGS.step(), which decides by the losses it sees;")
        for hook in list(self._pre_hooks.values()):
            hook(self, (), {"closure": closure})
        with no_grad():
            loss = self._descend(closure)
        for hook in list(self._post_hooks.values()):
            hook(self, (), {})
        return loss

    def _descend(self, closure: Callable[[], Any]) -> Any:
        group, params = self.param_groups[0], self.param_groups[0]["params"]
        state = self.state[params[0]]
        if not state:
            state.update(func_evals=0, n_iter=0, old_dirs=[], old_stps=[], ro=[])

        def run() -> tuple[Any, Tensor]:
            with enable_grad():
                found = closure()
            return found, cat([_flat(p) for p in params])

        first, grad = run()
        now = _Point(0.0, float(first), grad, 0.0)
        evaluations, done = 1, 0
        state["func_evals"] += 1
        while done < group["max_iter"] and evaluations < group["max_eval"]:
            if float(now.grad.abs().max()) <= group["tolerance_grad"]:
                break
            done += 1
            direction, t = self._direction(state, now, float(group["lr"]), group["history_size"])
            start = _Point(0.0, now.loss, now.grad, float(now.grad.dot(direction)))
            state.update(prev_flat_grad=now.grad, prev_loss=now.loss, d=direction, t=t)
            if start.slope > -group["tolerance_change"]:
                break
            before, (now, count) = now, self._search(run, params, direction, start, t, done, group)
            state["t"] = now.t
            evaluations += count
            state["func_evals"] += count
            small = float((direction * now.t).abs().max()) <= group["tolerance_change"]
            if small or abs(now.loss - before.loss) < group["tolerance_change"]:
                break
        return first

    def _direction(self, state: dict[str, Any], now: _Point, lr: float, most: int) -> tuple[Tensor, float]:
        """Where to go, and how far to try (algorithm 7.4)."""
        state["n_iter"] += 1
        if state["n_iter"] == 1:
            state["H_diag"] = 1.0
            return -now.grad, min(1.0, 1.0 / float(now.grad.abs().sum())) * lr
        changes, moves, inverse = state["old_dirs"], state["old_stps"], state["ro"]
        change, move = now.grad - state["prev_flat_grad"], state["d"] * state["t"]
        curve = float(change.dot(move))
        if curve > 1e-10:
            if len(changes) == most:
                for kept in (changes, moves, inverse):
                    kept.pop(0)
            changes.append(change)
            moves.append(move)
            inverse.append(1.0 / curve)
            state["H_diag"] = curve / float(change.dot(change))
        q = -now.grad
        shares = []
        for y, s, rho in zip(reversed(changes), reversed(moves), reversed(inverse), strict=True):
            shares.append(float(s.dot(q)) * rho)
            q = q - y * shares[-1]
        r = q * state["H_diag"]
        for y, s, rho, share in zip(changes, moves, inverse, reversed(shares), strict=True):
            r = r + s * (share - float(y.dot(r)) * rho)
        return r, lr

    def _search(
        self,
        run: Callable[[], tuple[Any, Tensor]],
        params: list[Tensor],
        direction: Tensor,
        start: _Point,
        t: float,
        done: int,
        group: dict[str, Any],
    ) -> tuple[_Point, int]:
        """The point to go on from, with the parameters there, and how often the loss was computed."""
        origin = [p.clone() for p in params]

        def move(t: float) -> None:
            place = 0
            for p, old in zip(params, origin, strict=True):
                count = p._a.size
                p.copy_(old + direction[place : place + count].reshape(p.shape) * t)
                place += count

        def evaluate(t: float) -> _Point:
            move(t)
            found, grad = run()
            return _Point(t, float(found), grad, float(grad.dot(direction)))

        if group["line_search_fn"] == "strong_wolfe":
            reach = float(direction.abs().max())
            best, count = _strong_wolfe(evaluate, start, t, reach, group["tolerance_change"])
            move(best.t)
            return best, count
        if done == group["max_iter"]:  # nobody looks at the loss behind the last step
            move(t)
            return _Point(t, start.loss, start.grad, start.slope), 0
        return evaluate(t), 1


def _flat(p: Tensor) -> Tensor:
    return zeros_like(p).reshape(-1) if p.grad is None else p.grad.reshape(-1).clone()
