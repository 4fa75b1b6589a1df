"""A call of every public function, with every array that it can take, by the names of its arguments
("out.gate": the gate of the Routing that is its `out`)."""

from __future__ import annotations

import dataclasses
from typing import Any, Callable, Dict

import numpy as np

import shunt

f32, i32, i64 = np.float32, np.int32, np.int64
T, H, I, E, K, N = 6, 5, 4, 4, 2, 2  # N sequences


@dataclasses.dataclass
class Case:
    function: str
    call: Callable[..., Any]  # of arrays by name, with "_" for "."
    reads: Dict[str, np.ndarray]
    writes: Dict[str, np.ndarray]
    anyhow: tuple = ()  # matrices of experts, read or written with any strides

    def arrays(self):
        return {**self.reads, **self.writes}

    def __call__(self, arrays):
        return self.call(**{name.replace(".", "_"): a for name, a in arrays.items()})


def from_losses(arrays):
    names = ("importance", "sequence_importance", "z")
    return tuple(arrays.pop(f"from_losses_{n}") for n in names)


class Given:
    """What the calls share, and the list of them."""

    def __init__(self, put):
        self.rng = np.random.default_rng(5)
        self.ids = np.stack([self.rng.permutation(E)[:K] for _ in range(T)]).astype(i32)
        self.valid = np.array([1, 1, 0, 1, 1, 1], np.uint8)
        self.gates, self.logits = np.abs(self.some(T, K)), self.some(T, E)
        self.softmax = shunt.route_options(gates="renormalized")
        self.plan = shunt.plan_dispatch(put(self.ids), E)
        self.wanted = {
            "recorded": zeros(T, K, dtype=np.int16), "z": zeros(T), "counts": zeros(E, dtype=i32),
            "importance": zeros(E), "tokens": zeros(1, dtype=i32),
            "sequence_counts": zeros(N, E, dtype=i32), "sequence_importance": zeros(N, E),
            "sequence_tokens": zeros(N, dtype=i32), "report": zeros(8, dtype=i64)}  # fmt: skip
        self.token, _ = shunt.route_expert_choice(self.logits, 3, valid=self.valid)
        self.rows = self.some(self.plan.rows, H)
        self.made = []

    def some(self, *shape):
        return self.rng.standard_normal(shape).astype(f32)

    def counts(self, *shape):
        return self.rng.integers(0, 9, shape).astype(i32)

    def case(self, function, call, reads, writes=None, anyhow=()):
        self.made.append(Case(function, call, reads, writes or {}, anyhow))


def zeros(*shape, dtype=f32):
    return np.zeros(shape, dtype)


def router(given):
    """The router."""
    some, counts, ids, valid = given.some, given.counts, given.ids, given.valid
    logits, softmax, case = given.logits, given.softmax, given.case
    wanted, token = given.wanted, given.token
    chosen = {"expert": zeros(T, K, dtype=i32), "gate": zeros(T, K)}

    def out_of(arrays):
        return shunt.Routing(**{n[4:]: a for n, a in arrays.items() if n.startswith("out_")})

    def route(logits, choice_bias=None, valid=None, ids=None, token=None, **out):
        return shunt.route(logits, K, softmax, choice_bias=choice_bias, valid=valid, ids=ids,
                           token=token, out=out_of(out))  # fmt: skip

    outs = {f"out.{n}": a for n, a in {**chosen, **wanted}.items()}
    case("route", route, {"logits": logits, "choice_bias": some(E), "valid": valid}, outs)
    case("route", route, {"logits": logits, "ids": ids})
    case("route", route, {"logits": logits, "ids": ids, "token": counts(T) % T})
    case("route", lambda logits, choice_bias, out_histogram: shunt.route(
        logits, K, shunt.route_options(score="sigmoid"), choice_bias=choice_bias,
        out=shunt.Routing(histogram=out_histogram)),
        {"logits": logits, "choice_bias": zeros(E)},
        {"out.histogram": zeros(E, 50, dtype=i32)})  # fmt: skip

    def route_backward(logits, expert, d_gate, **more):
        losses = from_losses(more) if "from_losses_z" in more else None
        return shunt.route_backward(logits, expert, d_gate, softmax, from_losses=losses, **more)

    losses = {"from_losses.importance": some(E), "from_losses.sequence_importance": some(N, E),
              "from_losses.z": some(T)}  # fmt: skip
    back = {"logits": logits, "expert": ids, "d_gate": some(T, K)}
    case("route_backward", route_backward,
         {**back, "choice_bias": some(E), "valid": valid, **losses}, {"d_logits": zeros(T, E)})
    case("route_backward", route_backward, {**back, "ids": ids})
    case("route_backward", route_backward, {**back, "ids": ids, "token": np.arange(T, dtype=i32)})
    case("route_expert_choice", lambda logits, valid, **out: shunt.route_expert_choice(
        logits, 3, valid=valid,
        out=shunt.ExpertChoice(**{n[4:]: a for n, a in out.items()})),
        {"logits": logits, "valid": valid},
        {"out.token": zeros(E, 3, dtype=i32), "out.gate": zeros(E, 3),
         "out.counts": zeros(E, dtype=i32), "out.coverage": zeros(T, dtype=i32),
         "out.report": zeros(8, dtype=i64)})  # fmt: skip
    case("route_expert_choice_backward", shunt.route_expert_choice_backward,
         {"logits": logits, "token": token, "d_gate": some(E, 3), "valid": valid},
         {"d_logits": zeros(T, E)})  # fmt: skip
    case("gate_logits", shunt.gate_logits, {"x": some(T, H), "w": some(E, H), "bias": some(E)},
         {"out": zeros(T, E)})  # fmt: skip
    case("gate_logits_backward", shunt.gate_logits_backward,
         {"d_logits": some(T, E), "x": some(T, H), "w": some(E, H)},
         {"d_x": zeros(T, H), "d_w": zeros(E, H), "d_bias": zeros(E)})  # fmt: skip


def losses(given):
    """Losses, balancing, figures."""
    some, counts, case = given.some, given.counts, given.case
    of_load = {"counts": counts(E), "importance": some(E), "tokens": np.array([T], i32)}
    for name in ("balance_loss", "band_loss"):
        case(name, lambda counts, importance, tokens, name=name, **out: getattr(shunt, name)(
            shunt.Routing(counts=counts, importance=importance, tokens=tokens), **out),
            of_load, {"loss": zeros(1), "d_importance": zeros(E)})  # fmt: skip
    case("sequence_balance_loss", lambda counts, importance, tokens, **out:
         shunt.sequence_balance_loss(shunt.Routing(
             sequence_counts=counts, sequence_importance=importance, sequence_tokens=tokens),
             **out),
         {"counts": counts(N, E), "importance": some(N, E), "tokens": np.array([3, 3], i32)},
         {"loss": zeros(1), "d_sequence_importance": zeros(N, E)})  # fmt: skip
    case("z_loss", lambda z, tokens, **out: shunt.z_loss(
        shunt.Routing(z=z, tokens=tokens), **out),
        {"z": some(T), "tokens": np.array([T], i32)},
        {"loss": zeros(1), "d_z": zeros(T)})  # fmt: skip
    case("sign_step", shunt.sign_step, {"counts": counts(E)}, {"bias": some(E)})
    case("quantile_step", lambda histogram, bias: shunt.quantile_step(histogram, bias, K),
         {"histogram": counts(E, 50)}, {"bias": zeros(E)})
    for kind in (i32, i64):
        case("load_stats", shunt.load_stats,
             {"load": counts(E).astype(kind), "report": np.arange(8, dtype=i64)},
             {"share": zeros(E)})  # fmt: skip
    case("add_load", shunt.add_load, {"counts": counts(E)}, {"total": np.arange(E, dtype=i64)})


def plans(given):
    """Plans, and rows in their order."""
    some, ids, valid, gates = given.some, given.ids, given.valid, given.gates
    plan, case, token, rows = given.plan, given.case, given.token, given.rows
    R = plan.rows
    def parts(plan):
        return plan.offset, plan.row_slot, plan.slot_row

    case("plan_dispatch", lambda **a: parts(shunt.plan_dispatch(
        local=E, capacity=2, drop="by_gate", **a)),
        {"expert": ids, "gate": gates, "valid": valid},
        {"wanted": zeros(E, dtype=i32), "kept": zeros(E, dtype=i32)})  # fmt: skip
    case("plan_from_expert_choice", lambda **a: parts(
        shunt.plan_from_expert_choice(tokens=T, **a)[0]),
        {"token": token, "gate": some(E, 3), "valid": valid},
        {"dense_gate": zeros(T, E)})  # fmt: skip
    case("dispatch", lambda **a: shunt.dispatch(plan=plan, **a),
         {"x": some(T, H), "gate": gates}, {"out": zeros(R, H)})
    case("dispatch_backward", lambda **a: shunt.dispatch_backward(plan=plan, **a),
         {"d_rows": rows, "gate": gates, "x": some(T, H)},
         {"d_gate": zeros(T, K), "d_x": zeros(T, H)})  # fmt: skip
    case("row_tokens", lambda out: shunt.row_tokens(plan, out=out), {},
         {"out": zeros(R, dtype=i32)})
    case("gates_to_rows", lambda gate, out: shunt.gates_to_rows(gate, plan, out=out),
         {"gate": gates}, {"out": zeros(R)})
    case("rows_to_gates", lambda row_gate, out: shunt.rows_to_gates(row_gate, plan, out=out),
         {"row_gate": some(R)}, {"out": zeros(T, K)})


def products(given):
    """Products, by offsets or a plan, with factors of rows or gates."""
    some, ids, gates = given.some, given.ids, given.gates
    plan, case, rows = given.plan, given.case, given.rows
    R = plan.rows
    offsets = np.array(shunt.plan_dispatch(ids, E).offset)
    w = some(E, 2 * I, H)
    for of_rows in ({"scale": some(R)}, {"scale": gates}):
        through = {"rows": plan} if of_rows["scale"].ndim == 2 else {}
        seg = {} if through else {"rows": offsets}
        case("grouped_gemm", lambda through=through, **a: shunt.grouped_gemm(
            act="swiglu", **through, **a),
            {"a": rows, "w": w, **seg, "bias": some(E, 2 * I), **of_rows},
            {"pre": zeros(R, 2 * I), "out": zeros(R, I)}, ("w",))  # fmt: skip
        case("grouped_dgrad", lambda through=through, **a: shunt.grouped_dgrad(**through, **a),
             {"dc": some(R, 2 * I), "w": w, **seg, **of_rows}, {"out": zeros(R, H)}, ("w",))
        case("grouped_wgrad", lambda through=through, **a: shunt.grouped_wgrad(**through, **a),
             {"dc": some(R, 2 * I), "a": rows, **seg, **of_rows,
              "frozen": np.array([0, 1, 0, 0], np.uint8)},
             {"dw": zeros(E, 2 * I, H), "d_bias": zeros(E, 2 * I)}, ("dw",))  # fmt: skip
        case("activation_forward", lambda through=through, **a: shunt.activation_forward(
            act="swiglu", **through, **a),
            {"pre": some(R, 2 * I), **seg, **of_rows}, {"out": zeros(R, I)})  # fmt: skip
        case("activation_backward", lambda through=through, **a: shunt.activation_backward(
            act="swiglu", **through, **a),
            {"d_act": some(R, I), "pre": some(R, 2 * I), **seg, **of_rows},
            {"act_out": zeros(R, I), "d_scale": zeros(R), "d_pre": zeros(R, 2 * I)})  # fmt: skip
    case("pack_weights", lambda w: shunt.pack_weights(w).data, {"w": w}, anyhow=("w",))


def combine(given):
    """Combine."""
    some, ids, valid = given.some, given.ids, given.valid
    gates, plan, case, rows = given.gates, given.plan, given.case, given.rows
    R = plan.rows
    shared = {"shared": some(T, H), "shared_gate": some(T)}
    case("combine", lambda rows, gate, zero_expert, zero_x, **a: shunt.combine(
        rows, plan, gate, zero=(zero_expert, zero_x, 1, 2), **a),
        {"rows": rows, "gate": gates, **shared, "residual": some(T, H), "valid": valid,
         "zero.expert": ids, "zero.x": some(T, H)}, {"out": zeros(T, H)})  # fmt: skip
    case("combine_backward", lambda d_y, gate, rows, zero_expert, zero_x, **a:
         shunt.combine_backward(d_y, plan, gate, rows, zero=(zero_expert, zero_x, 1, 2), **a),
         {"d_y": some(T, H), "gate": gates, "rows": rows, **shared, "valid": valid,
          "zero.expert": ids, "zero.x": some(T, H)},
         {"d_rows": zeros(R, H), "d_gate": zeros(T, K), "d_shared": zeros(T, H),
          "d_shared_gate": zeros(T), "d_residual": zeros(T, H), "d_x": zeros(T, H)})  # fmt: skip


def layer(given):
    """The layer."""
    some, counts, ids = given.some, given.counts, given.ids
    valid, softmax, case, wanted = given.valid, given.softmax, given.case, given.wanted
    L = 3  # latent width
    weights = {"gate": some(E, H), "up": some(E, 2 * I, L), "down": some(E, L, I),
               "gate_bias": some(E), "choice_bias": some(E), "up_bias": some(E, 2 * I),
               "down_bias": some(E, L), "shared_up": some(2 * I, H), "shared_down": some(H, I),
               "shared_gate": some(H), "latent_down": some(L, H),
               "latent_up": some(H, L)}  # fmt: skip
    matrices = ("up", "down", "shared_up", "shared_down")
    options = shunt.layer_options(top_k=K, balance_loss=0.1, route=softmax)
    of_weights = {f"weights.{n}": a for n, a in weights.items()}
    free = tuple(f"weights.{n}" for n in matrices)

    def layer(x, loss=None, out=None, valid=None, ids=None, token=None, **a):
        w = shunt.Weights(**{n[8:]: v for n, v in a.items() if n.startswith("weights_")})
        observe = {n[8:]: v for n, v in a.items() if n.startswith("observe_")}
        return shunt.moe_layer(
            x, w, options, valid=valid, ids=ids, token=token, loss=loss, out=out,
            observe=shunt.Routing(**observe) if observe else None)  # fmt: skip

    case("moe_layer", layer, {"x": some(T, H), "valid": valid, **of_weights},
         {"loss": zeros(2), "out": zeros(T, H),
          **{f"observe.{n}": wanted[n] for n in ("recorded", "z", "counts", "importance",
                                                 "tokens")}}, free)  # fmt: skip
    case("moe_layer", layer, {"x": some(T, H), "ids": ids, "token": counts(T) % T, **of_weights},
         anyhow=free)  # fmt: skip

    def backward(x, d_y, frozen=None, d_x=None, **a):
        w = shunt.Weights(**{n[8:]: v for n, v in a.items() if n.startswith("weights_")})
        g = {n[10:]: v for n, v in a.items() if n.startswith("gradients_")}
        more = {n: a[n] for n in ("valid", "ids", "token") if n in a}
        saved = shunt.Saved()
        shunt.moe_layer(x, w, options, saved=saved, **more)
        losses = from_losses(a) if "from_losses_z" in a else None
        return shunt.moe_layer_backward(
            x, w, d_y, saved, options, frozen=frozen, d_x=d_x, from_losses=losses, **more,
            gradients=shunt.Gradients(**g) if g else None)[0]  # fmt: skip

    grads = {f"gradients.{n}": zeros(*a.shape) for n, a in weights.items() if n != "choice_bias"}
    of_losses = {"from_losses.importance": some(E),
                 "from_losses.sequence_importance": some(1, E),
                 "from_losses.z": some(T)}  # fmt: skip
    case("moe_layer_backward", backward,
         {"x": some(T, H), "d_y": some(T, H), "valid": valid,
          "frozen": np.array([0, 0, 1, 0], np.uint8), **of_weights, **of_losses},
         {"d_x": zeros(T, H), **grads},
         free + tuple(f"gradients.{n}" for n in matrices))  # fmt: skip
    case("moe_layer_backward", backward,
         {"x": some(T, H), "d_y": some(T, H), "ids": ids, "token": np.arange(T, dtype=i32),
          **of_weights}, anyhow=free)  # fmt: skip


def cases(put=lambda array: array):
    """put: an array to where the plan is made that calls share."""
    given = Given(put)
    for part in (router, losses, plans, products, combine, layer):
        part(given)
    return given.made
