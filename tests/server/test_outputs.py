"""Models behind ``edgevit serve`` that give anything but classes: embeddings, and several outputs."""

import json

import numpy as np
import pytest
from service_host import call, photo, png

from edgevit.runtime import load

pytest.importorskip("fastapi", reason="needs the extra serve")
client = pytest.importorskip("tritonclient.http", reason="needs tritonclient")


@pytest.mark.parametrize("kind", ["embedding", "dense"])
def test_every_output_is_as_in_python(serving, kind, request, tmp_path):
    bundle = request.getfixturevalue(f"tiny_{kind}")
    content = png(photo(), tmp_path)
    with (
        load(bundle, variant="int8-onnxruntime", threads=1) as model,
        serving(bundle, tmp_path / "scratch", "--variant", "int8-onnxruntime", "--name", "vit") as (address, _),
    ):
        expected = model.outputs(content)
        images = model.prepare([content, photo(1)])
        both = model.outputs_of(model.infer(images))
        status, _, body = call(address, "/v1/predict?top=2", content)
        said = json.loads(body)
        assert status == 200
        if model.labels:
            wanted = [each.label for each in model.predict(content, top=2)]
            assert [each["label"] for each in said["predictions"]] == wanted
        else:
            assert said["outputs"].keys() == expected.keys()
            for name, found in said["outputs"].items():
                np.testing.assert_allclose(np.reshape(found["data"], found["shape"]), expected[name], atol=1e-5)
        with client.InferenceServerClient(address.removeprefix("http://")) as triton:
            metadata = {each["name"]: each["shape"] for each in triton.get_model_metadata("vit")["outputs"]}
            assert metadata == {name: [-1, *rows.shape[1:]] for name, rows in both.items()}
            given = client.InferInput("images", list(images.shape), "FP32")
            given.set_data_from_numpy(images)
            answer = triton.infer("vit", [given])
            for name, rows in both.items():
                np.testing.assert_allclose(answer.as_numpy(name), rows, atol=1e-4)
            last = list(both)[-1]
            one = triton.infer("vit", [given], outputs=[client.InferRequestedOutput(last)])
            np.testing.assert_allclose(one.as_numpy(last), both[last], atol=1e-4)
