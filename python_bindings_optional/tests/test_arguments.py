"""Wrong arguments are sentences, raised before anything is written; nothing crashes."""

from __future__ import annotations

import numpy as np
import oracle
import pytest

import shunt

f32, i32 = np.float32, np.int32
T, H, I, E, K = 5, 8, 6, 4, 2


def zeros(*shape, dtype=f32):
    return np.zeros(shape, dtype)


X, GATE, UP, DOWN = zeros(T, H), zeros(E, H), zeros(E, 2 * I, H), zeros(E, H, I)
W = shunt.Weights(GATE, UP, DOWN)
OPTIONS = shunt.layer_options(top_k=K)
IDS = np.array([[0, 1]] * T, i32)
PLAN = shunt.plan_dispatch(IDS, E)
ROWS, LOGITS, GATES = zeros(T * K, H), zeros(T, E), zeros(T, K)
HUGE = np.lib.stride_tricks.as_strided(zeros(1), (2**31, 2**29), (0, 0))
HUGE_IDS = np.lib.stride_tricks.as_strided(zeros(1, dtype=i32), (2**30, 2**30), (0, 0))
ODD = np.zeros(4 * T * H + 1, np.uint8)[1:].view(f32).reshape(T, H)
READ_ONLY = zeros(T, H)
READ_ONLY.flags.writeable = False
CASES = {}


def add(name, error, sentence, call):
    """A call that must raise; sentence: a pattern of the message, or "" where any will do."""
    CASES[name] = (error, sentence, call)


def layer(x=X, w=W, o=OPTIONS, **more):
    return lambda: shunt.moe_layer(x, w, o, **more)


# Wrong types.
add("none", TypeError, "moe_layer.x is NoneType", layer(None))
add("list", TypeError, "moe_layer.x is list", layer([[1.0] * H] * T))
add("double", TypeError, "elements are float64", layer(X.astype(np.float64)))
add("integers", TypeError, "elements are int32", layer(X.astype(i32)))
add("complex", TypeError, "elements are complex64", layer(X.astype(np.complex64)))
add("big-endian", TypeError, "elements are >f4", layer(X.astype(">f4")))
add("objects", TypeError, "moe_layer.x", layer(X.astype(object)))
add("other storage", TypeError, "must be float32", layer(X.astype(np.float16)))
add(
    "mixed weights",
    TypeError,
    "Weights.down",
    lambda: shunt.Weights(GATE, UP, DOWN.astype(np.float16)),
)
add("weights", TypeError, "moe_layer.weights is tuple", layer(w=(GATE, UP, DOWN)))
add("options", TypeError, "moe_layer.options is dict", layer(o={"top_k": 2}))
add("on", TypeError, "on is str", layer(on="cuda"))
add("plan", TypeError, "combine.plan is of type", lambda: shunt.combine(ROWS, IDS, GATES))
add("saved", TypeError, "moe_layer.saved is of type", layer(saved={}))
add("observe", TypeError, "moe_layer.observe is dict", layer(observe={}))
add("act", TypeError, "act must be", lambda: shunt.layer_options(act=3))
add(
    "gradients",
    TypeError,
    "gradients is dict",
    lambda: shunt.moe_layer_backward(X, W, X, shunt.Saved(), OPTIONS, gradients={}),
)
add(
    "ids of 64 bits",
    TypeError,
    "plan_dispatch.expert",
    lambda: shunt.plan_dispatch(IDS.astype(np.int64), E),
)
add("top_k of text", TypeError, "", lambda: shunt.route(LOGITS, "2"))
# Wrong values.
add("rank", ValueError, "moe_layer.x has 1 axes", layer(X[0]))
add("width", ValueError, "moe_layer.x: extent 1 is 7; it must be 8", layer(X[:, :7]))
add("columns", ValueError, "the last axis has stride", layer(zeros(H, T).T))
add("unaligned", ValueError, "not aligned", layer(ODD))
add("top_k", ValueError, "top_k", layer(o=shunt.layer_options(top_k=9)))
add("top_k 0", ValueError, "top_k is 0", lambda: shunt.route(LOGITS, 0))
add("top_k below 0", ValueError, "top_k is -3", lambda: shunt.route(LOGITS, -3))
add("enumerator", ValueError, "must be one of softmax", lambda: shunt.route_options(score="soft"))
add(
    "not finite",
    ValueError,
    "must be a finite float",
    lambda: shunt.route_options(scale=float("nan")),
)
add("threads", ValueError, "on_host.threads is -1", lambda: shunt.on_host(threads=-1))
add("many threads", ValueError, "to 1024", lambda: shunt.on_host(threads=10**6))
add("isa", ValueError, "must be one of best", lambda: shunt.on_host(isa="sse"))
add(
    "pairs",
    ValueError,
    "must be gate_up or up_gate",
    lambda: shunt.Weights(GATE, UP, DOWN, pairs="up"),
)
add("rows of up", ValueError, "weights.up: extent 1", layer(w=shunt.Weights(GATE, UP[:, :5], DOWN)))
add(
    "ragged list",
    ValueError,
    "arrays of a list",
    lambda: shunt.Weights(GATE, [UP[0], UP[1, :4], UP[2], UP[3]], DOWN),
)
add("empty list", ValueError, "empty list", lambda: shunt.Weights(GATE, [], DOWN))
GATES_OF, UPS_OF = list(UP[:, :I]), list(UP[:, I:])
add(
    "fewer ups",
    ValueError,
    "Weights.up has 4 arrays of gate and 3 of up",
    lambda: shunt.Weights(GATE, (GATES_OF, UPS_OF[1:]), DOWN),
)
add(
    "no gates",
    ValueError,
    r"Weights.up\[0\] is an empty list",
    lambda: shunt.Weights(GATE, ([], UPS_OF), DOWN),
)
add(
    "ragged ups",
    ValueError,
    r"Weights.up\[1\]\[3\]: the arrays of both lists must have one type and shape",
    lambda: shunt.Weights(GATE, (GATES_OF, [*UPS_OF[:3], UPS_OF[3][:5]]), DOWN),
)
add(
    "strides of ups",
    ValueError,
    r"grouped_gemm.w\[1\]\[0\].* one stride from row to row",
    lambda: shunt.grouped_gemm(ROWS, (GATES_OF, list(zeros(E, I, H + 1)[..., :H])), PLAN),
)
add(
    "array of ups",
    TypeError,
    "Weights.up is list",
    lambda: shunt.Weights(GATE, (GATES_OF, UP[:, I:]), DOWN),
)
for pairs in ("up_gate", ("gate_up", 1)):
    add(
        f"{pairs} of gates and ups",
        ValueError,
        "Weights.up is .gates, ups.; the pairs must then be None or gate_up",
        lambda pairs=pairs: shunt.Weights(GATE, (GATES_OF, UPS_OF), DOWN, pairs=pairs),
    )
add(
    "gates and ups of alternating weights",
    ValueError,
    "gradients.up is .gates, ups.; the pairs must then",
    lambda: backward(
        w=shunt.Weights(GATE, UP, DOWN, pairs=("gate_up", 1)),
        gradients=shunt.Gradients(up=oracle.two_lists(UP)),
    ),
)
add(
    "gates in ups",
    ValueError,
    "share memory",
    lambda: shunt.grouped_wgrad(
        zeros(T * K, 2 * I), ROWS, PLAN, dw=((g := list(zeros(E, I, H))), [*g[1:], g[0]])
    ),
)
add(
    "id of no expert",
    ValueError,
    r"expert\[4, 1\] is 99",
    lambda: shunt.route_backward(
        LOGITS, np.where(np.arange(10).reshape(T, K) == 9, 99, IDS).astype(i32), GATES
    ),
)
add(
    "falling offsets",
    ValueError,
    "offset",
    lambda: shunt.grouped_gemm(ROWS, UP, np.array([0, 5, 3, 9, 10], i32)),
)
add(
    "offsets beyond",
    ValueError,
    "last offset",
    lambda: shunt.grouped_gemm(ROWS, UP, np.array([0, 5, 6, 9, 99], i32)),
)
add(
    "no offsets",
    ValueError,
    "offset|extent 0",
    lambda: shunt.grouped_gemm(ROWS, UP, zeros(0, dtype=i32)),
)
add(
    "gather without plan",
    ValueError,
    "must then be a shunt.Plan",
    lambda: shunt.grouped_gemm(X, UP, np.array([0, 5, 5, 5, 5], i32), gather=True),
)
add(
    "gather from too few",
    ValueError,
    "plan.tokens",
    lambda: shunt.grouped_gemm(X[:3], UP, PLAN, gather=True),
)
add(
    "scale",
    ValueError,
    "factor for each row",
    lambda: shunt.grouped_gemm(ROWS, UP, PLAN, scale=GATES.T),
)
add("half gate", ValueError, "", lambda: shunt.grouped_gemm(ROWS, UP[:, :5], PLAN, act="swiglu"))
add(
    "odd pre",
    ValueError,
    "twice the columns",
    lambda: shunt.activation_forward(zeros(3, 5), "swiglu"),
)
add("loss", ValueError, "moe_layer.loss: extent 0 is 3", layer(loss=zeros(3)))
add("add_to_y", ValueError, "moe_layer.out is None", layer(o=OPTIONS.replace(add_to_y=True)))
add(
    "want",
    ValueError,
    "must be one of recorded",
    lambda: shunt.route(LOGITS, K, want=["histogram"]),
)
add("no load", TypeError, "load.counts", lambda: shunt.balance_loss(shunt.Routing()))
add("drop", ValueError, "must be one of by_position", lambda: shunt.plan_dispatch(IDS, E, drop="x"))
add(
    "other plan's rows",
    ValueError,
    "rows of the plan",
    lambda: shunt.combine(ROWS[:3], PLAN, GATES),
)
add(
    "packed gradients",
    ValueError,
    "packed",
    lambda: shunt.grouped_wgrad(ROWS, ROWS, PLAN, dw=shunt.pack_weights(UP)),
)
# Hostile sizes.
add("huge x", (ValueError, MemoryError), "", layer(HUGE))
add("huge logits", (ValueError, MemoryError), "", lambda: shunt.route(HUGE, 2))
add("huge ids", ValueError, "", lambda: shunt.plan_dispatch(HUGE_IDS, E))
add("huge local", (ValueError, MemoryError), "", lambda: shunt.plan_dispatch(IDS, 2**62))
add("local below 0", ValueError, "plan_dispatch.local", lambda: shunt.plan_dispatch(IDS, -1))
add("beyond 64 bits", TypeError, "", lambda: shunt.plan_dispatch(IDS, 2**70))
add(
    "huge multiple",
    (ValueError, MemoryError),
    "",
    lambda: shunt.plan_dispatch(IDS, E, segment_multiple=2**31 - 1),
)
add(
    "huge weights",
    (ValueError, MemoryError),
    "",
    lambda: shunt.pack_weights(
        np.lib.stride_tricks.as_strided(zeros(1), (2**20, 2**20, 2**19), (0, 0, 0))
    ),
)
add(
    "huge choice",
    (ValueError, MemoryError),
    "",
    lambda: shunt.route_expert_choice(LOGITS, 2**31 - 1),
)
# Outputs.
add("read-only", ValueError, "is read-only", layer(out=READ_ONLY))
add(
    "onto itself",
    ValueError,
    "some of its elements share memory",
    layer(out=np.lib.stride_tricks.as_strided(zeros(H), (T, H), (0, 4))),
)
add("out of another type", TypeError, "moe_layer.out", layer(out=zeros(T, H, dtype=np.float16)))
add("out of another shape", ValueError, "moe_layer.y: extent 0", layer(out=zeros(T + 1, H)))
add(
    "accumulate onto nothing",
    ValueError,
    "must hold",
    lambda: shunt.dispatch_backward(ROWS, PLAN, accumulate=True),
)
SHARED = zeros(4 * T, H)
add(
    "x and out",
    ValueError,
    "moe_layer.out and moe_layer.x share memory",
    layer(SHARED[:T], out=SHARED[1 : T + 1]),
)
add("weights and out", ValueError, "share memory", layer(out=UP[0][:T]))
add(
    "two gradients",
    ValueError,
    "gradients.*share memory",
    lambda: backward(
        gradients=shunt.Gradients(up=UP.copy(), gate=(g := zeros(2 * E, H))[:E], shared_gate=g[1])
    ),
)
add(
    "gradient in the weights",
    ValueError,
    "share memory",
    lambda: backward(gradients=shunt.Gradients(up=UP)),
)
add("d_x is d_y", ValueError, "share memory", lambda: backward(d_y=SHARED[:T], d_x=SHARED[:T]))
add(
    "expert in gate",
    ValueError,
    "share memory",
    lambda: shunt.route(LOGITS, K, out=shunt.Routing(expert=(m := zeros(T, K)).view(i32), gate=m)),
)
add(
    "rows and y", ValueError, "share memory", lambda: shunt.combine(ROWS, PLAN, GATES, out=ROWS[:T])
)
add(
    "shifted residual",
    ValueError,
    "share memory",
    lambda: shunt.combine(ROWS, PLAN, GATES, residual=SHARED[:T], out=SHARED[1 : T + 1]),
)


def backward(d_y=X, w=W, **more):
    saved = shunt.Saved()
    shunt.moe_layer(X, w, OPTIONS, saved=saved)
    return shunt.moe_layer_backward(X, w, d_y, saved, OPTIONS, **more)


@pytest.mark.parametrize("name", CASES)
def test_wrong_arguments_are_sentences(name):
    error, sentence, call = CASES[name]
    before = [a.copy() for a in (X, UP, ROWS, SHARED, READ_ONLY)]
    with pytest.raises(error, match=sentence or None) as raised:
        call()
    assert str(raised.value)
    for a, b in zip((X, UP, ROWS, SHARED, READ_ONLY), before):
        assert np.array_equal(a, b), "something was written"


def test_failed_calls_write_nothing():
    out = np.full((T, H), 7, f32)
    with pytest.raises(ValueError):
        shunt.moe_layer(X, W, shunt.layer_options(top_k=9), out=out)
    assert (out == 7).all()


def test_empty_and_odd_arrays_are_taken():
    assert shunt.route(LOGITS[:0], K).expert.shape == (0, K)
    empty = shunt.plan_dispatch(IDS[:0], E)
    assert empty.rows == 0 and shunt.dispatch(X[:0], empty).shape == (0, H)
    assert shunt.combine(zeros(0, H), empty, GATES[:0]).shape == (0, H)
    assert shunt.grouped_gemm(zeros(0, H), UP, empty).shape == (0, 2 * I)
    assert not shunt.grouped_wgrad(zeros(0, 4), zeros(0, H), empty).any()
    none_here = shunt.plan_dispatch(np.full((T, K), -1, i32), E)
    assert not shunt.combine(ROWS, none_here, GATES).any()
    wild = shunt.plan_dispatch(np.array([[2**31 - 1, -(2**31)]], i32), E)
    assert wild.totals["out_of_range"] == 2
    memory = memoryview(bytearray(4 * T * H)).cast("B").cast("f", (T, H))
    assert shunt.moe_layer(memory, W, OPTIONS).shape == (T, H)
    nan = X + np.nan
    assert shunt.moe_layer(nan, W, OPTIONS).shape == (T, H)


def test_a_plan_is_not_for_writing():
    for name in ("offset", "row_slot", "slot_row"):
        part = getattr(PLAN, name)
        with pytest.raises(ValueError):
            part[...] = 99
        with pytest.raises(ValueError):
            part.flags.writeable = True


NO_IDS = (np.int64, np.uint32, np.uint16, np.uint8, np.bool_, np.float32, np.float16)


@pytest.mark.parametrize("dtype", NO_IDS)
def test_battery39_ids_of_another_type_are_refused(dtype):
    """Never narrowed or rounded: 2^32 is no expert 0, and True no expert 1."""
    ids, token = IDS.astype(dtype), zeros(T, dtype=dtype)
    if dtype == np.int64:
        ids[2, 1] = 2**32
    saved = shunt.Saved()
    shunt.moe_layer(X, W, OPTIONS, saved=saved)
    for name, call in {
        "route.ids": lambda: shunt.route(LOGITS, K, ids=ids),
        "route.token": lambda: shunt.route(LOGITS, K, ids=IDS, token=token),
        "route_backward.expert": lambda: shunt.route_backward(LOGITS, ids, GATES),
        "plan_dispatch.expert": lambda: shunt.plan_dispatch(ids, E),
        "plan_from_expert_choice.token": lambda: shunt.plan_from_expert_choice(ids, T),
        "combine.zero.expert": lambda: shunt.combine(ROWS, PLAN, GATES, zero=(ids, X, 0, 1)),
        "moe_layer.ids": layer(ids=ids),
        "moe_layer.token": layer(ids=IDS, token=token),
        "moe_layer_backward.ids": lambda: shunt.moe_layer_backward(
            X, W, X, saved, OPTIONS, ids=ids
        ),
    }.items():
        with pytest.raises(TypeError, match=rf"{name.split('.')[-1]}: its elements are"):
            call()
