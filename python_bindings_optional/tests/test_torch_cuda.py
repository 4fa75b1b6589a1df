"""shunt.torch with tensors of a GPU, against the same on the CPU."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("shunt._cuda", reason="the module was built without CUDA")
if not torch.cuda.is_available():
    pytest.skip("torch sees no GPU", allow_module_level=True)

import shunt.torch  # noqa: E402

T, H, I, E, K = 40, 32, 16, 8, 2


def trained(device, **more):
    """y, the gradients of all parameters, and the figures of the load."""
    torch.manual_seed(0)
    layer = shunt.torch.MoELayer.from_preset("DeepSeek-V3", hidden=H, intermediate=I, experts=E,
                                             top_k=K, shared_intermediate=I, z_loss=0.1,
                                             **{"route": ROUTE, **more})  # fmt: skip
    x = torch.randn(2, T // 2, H)
    layer, x = layer.to(device), x.to(device).requires_grad_()
    y = layer(x)
    (y.square().mean() + layer.aux_loss).backward()
    layer.step_choice_bias()
    made = [y, x.grad, layer.counts, layer.choice_bias, *(p.grad for p in layer.parameters())]
    return [t.detach().cpu() for t in made], layer.load


ROUTE = shunt.route_options(score="sigmoid", gates="renormalized")


def test_a_layer_trains_as_on_the_cpu():
    (host, load), (there, load_there) = trained("cpu"), trained("cuda")
    assert load == load_there
    for a, b in zip(host, there):
        # The loss is reduced by torch, in another order on a GPU.
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-6)


def arrays(device):
    g = torch.Generator().manual_seed(1)
    new = lambda *s: torch.randn(*s, generator=g).to(device)
    return new(T, H), shunt.Weights(new(E, H), new(E, 2 * I, H), new(E, H, I))


OPTIONS = shunt.layer_options(top_k=K)


def test_primitives_give_the_bits_of_the_cpu_on_any_stream():
    host = shunt.moe_layer(*arrays("cpu"), OPTIONS)
    x, w = arrays("cuda")
    assert torch.equal(shunt.moe_layer(x, w, OPTIONS).cpu(), host)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        y = shunt.moe_layer(x, w, OPTIONS)
    given = shunt.moe_layer(x, w, OPTIONS, on=shunt.on_cuda(stream=side.cuda_stream))
    side.synchronize()
    assert torch.equal(y.cpu(), host) and torch.equal(given.cpu(), host)
    saved, d_y = shunt.Saved(), torch.ones_like(x)
    shunt.moe_layer(x, w, OPTIONS, saved=saved)
    d_x, g = shunt.moe_layer_backward(x, w, d_y, saved, OPTIONS)
    assert d_x.is_cuda and g.up.is_cuda and g.up.abs().sum() > 0
    plan = shunt.plan_dispatch(shunt.route(x @ w.gate.T, K).expert, E)
    assert plan.offset.is_cuda and plan.offset[-1].item() == T * K == plan.totals["rows"]


def test_a_call_can_be_captured():
    x, w = arrays("cuda")
    shunt.moe_layer(x, w, OPTIONS)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = shunt.moe_layer(x, w, OPTIONS)
    x.copy_(x.flip(0))
    graph.replay()
    assert torch.equal(y, shunt.moe_layer(x, w, OPTIONS))


def test_tensors_lie_in_one_place():
    x, w = arrays("cuda")
    with pytest.raises(ValueError, match="lies? in host memory"):
        shunt.moe_layer(x.cpu(), w, OPTIONS, on=shunt.on_cuda())
    with pytest.raises(ValueError, match="the weights lie in device memory"):
        shunt.moe_layer(x.cpu(), w, OPTIONS)
    with pytest.raises(ValueError, match="valid lies in host memory"):
        shunt.moe_layer(x, w, OPTIONS, valid=torch.ones(T, dtype=torch.uint8))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="torch sees one GPU")
def test_the_current_device_is_restored():
    x, w = arrays("cuda:1")
    with torch.cuda.device(0):
        y = shunt.moe_layer(x, w, OPTIONS)
        assert torch.cuda.current_device() == 0 and y.device.index == 1
