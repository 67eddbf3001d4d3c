"""Asks Triton with its own client, in the environment that has it: ``triton_client.py http|grpc ADDRESS < JSON``.

The JSON has a model, and by name what goes in: the path of an .npy file, or paths of files that go in as they are; with
``classes``, so many labels are asked for. Printed is what came back by name, or the error.
"""

import json
import sys
from pathlib import Path

import numpy as np


def ask(client, module, asked):
    inputs = []
    for name, value in asked["inputs"].items():
        if isinstance(value, str):
            array, kind = np.load(value), "FP32"
        else:
            array, kind = np.array([[Path(path).read_bytes()] for path in value], dtype=object), "BYTES"
        inputs.append(module.InferInput(name, list(array.shape), kind))
        inputs[-1].set_data_from_numpy(array)
    metadata = client.get_model_metadata(asked["model"])
    outputs = [each["name"] if isinstance(each, dict) else each.name for each in _list(metadata, "outputs")]
    wanted = [module.InferRequestedOutput(name, class_count=asked.get("classes", 0)) for name in outputs]
    answer = client.infer(asked["model"], inputs, outputs=wanted)
    found = {name: answer.as_numpy(name) for name in outputs}
    return {
        name: [text.decode() for text in array.ravel()] if array.dtype == object else array.tolist()
        for name, array in found.items()
    }


def _list(metadata, name):
    return metadata[name] if isinstance(metadata, dict) else getattr(metadata, name)


def main(protocol, address):
    module = __import__(f"tritonclient.{protocol}", fromlist=[protocol])
    from tritonclient.utils import InferenceServerException

    client = module.InferenceServerClient(address)

    def said(asked):
        try:
            return ask(client, module, asked)
        except InferenceServerException as error:
            return {"error": f"{error.status()}: {error.message()}"}

    json.dump([said(asked) for asked in json.load(sys.stdin)], sys.stdout)
    client.close()


main(*sys.argv[1:])
