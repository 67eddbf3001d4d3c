import numpy as np
import onnx_ir as ir
import pytest

from edgevit.graph.passes.name_by_module import SCOPES, NameByModule

random = np.random.default_rng(0)


def model_with(parse, weights: dict[str, np.ndarray], scopes: list[list[str]] | None = None) -> ir.Model:
    """Two Linear layers with a residual and a GELU, as torch.onnx names such things."""
    model = parse(
        """net (float[batch, 3, 4] x) => (float[batch, 3, 4] y) {
            val_1 = MatMul (x, a)
            linear = Add (val_1, shared)
            gelu = Gelu (linear)
            val_2 = MatMul (gelu, b)
            linear_1 = Add (val_2, shared)
            scaled = Mul (linear_1, half)
            y = Add (scaled, token)
        }""",
        weights,
    )
    scopes = scopes or [["", "mlp", f"mlp.{fc}", "linear"] for fc in ("fc1", "fc1")] + [
        ["", "mlp", "gelu"],
        ["", "mlp", "mlp.fc2", "linear_1"],
        ["", "mlp", "mlp.fc2", "linear_1"],
        [],
        ["", "add"],
    ]
    for node, path in zip(model.graph, scopes, strict=True):
        if path:
            node.metadata_props[SCOPES] = repr(path)
    return model


def weights() -> dict[str, np.ndarray]:
    return {
        "a": random.normal(size=(4, 4)).astype(np.float32),
        "b": random.normal(size=(4, 4)).astype(np.float32),
        "shared": np.zeros(4, np.float32),
        "half": np.array(0.5, np.float32),
        "token": random.normal(size=(1, 1, 4)).astype(np.float32),
    }


def test_names_follow_the_modules_and_results_stay(parse, run):
    model = model_with(parse, weights())
    x = random.normal(size=(2, 3, 4)).astype(np.float32)
    before = run(model, x=x)

    assert NameByModule(["token"])(model).modified

    assert [node.name for node in model.graph] == [
        "mlp.fc1", "mlp.fc1.add", "mlp.gelu", "mlp.fc2", "mlp.fc2.add", "mul", "add"
    ]  # fmt: skip
    assert [value.name for node in model.graph for value in node.inputs] == [
        "x", "mlp.fc1.weight",
        "mlp.fc1.output", "mlp.fc1.bias",
        "mlp.fc1.add.output",
        "mlp.gelu.output", "mlp.fc2.weight",
        "mlp.fc2.output", "mlp.fc2.bias",
        "mlp.fc2.add.output", "constant_0",
        "mul.output", "token",
    ]  # fmt: skip
    assert model.graph.outputs[0].name == "y"
    np.testing.assert_array_equal(run(model, x=x), before)
    assert not NameByModule(["token"])(model).modified


def test_a_constant_of_the_wanted_name_that_nothing_reads_gives_way(parse, run):
    values = weights() | {"mlp.fc1.weight": np.full((4, 4), 7, np.float32)}
    model = model_with(parse, values)
    x = random.normal(size=(1, 3, 4)).astype(np.float32)
    before = run(model, x=x)
    NameByModule(["token"])(model)
    np.testing.assert_array_equal(run(model, x=x), before)


def test_a_constant_of_the_wanted_name_with_another_value_is_refused(parse):
    model = model_with(parse, weights())
    model.graph.initializers["b"].name = "mlp.fc1.weight"
    with pytest.raises(ir.passes.PassError, match=r"mlp\.fc1\.weight"):
        NameByModule(["token"])(model)


def test_a_linear_layer_without_its_own_bias_is_refused(parse):
    scopes = [["", "fc1", "linear"], ["", "elsewhere", "add"], *[["", "x", "y"]] * 5]
    with pytest.raises(ir.passes.PostconditionError, match="'fc1' is not a MatMul and an Add"):
        NameByModule(["token"])(model_with(parse, weights(), scopes))


def test_a_graph_without_scopes_is_refused(parse):
    with pytest.raises(ir.passes.PreconditionError, match=r"name_scopes"):
        NameByModule([])(model_with(parse, weights(), [[]] * 7))
