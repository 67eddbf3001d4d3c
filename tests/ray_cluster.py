"""Runs export/ray/deployment.py on two nodes and prints what it answers: ``ray_cluster.py PACK VARIANT FILE...``.

In a network of its own, with a loopback alone: Ray's processes listen on the machine's own address otherwise.
"""

import http.client
import json
import sys
from pathlib import Path

import ray
from ray import serve
from ray.cluster_utils import Cluster

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "export/ray"), str(Path(__file__).resolve().parents[1])]
from deployment import build  # noqa: E402


def ask(content):
    connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=60)
    connection.request("POST", "/predict", content)
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def main(pack, variant, *files):
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    cluster.add_node(num_cpus=2)
    path = {"env_vars": {"PYTHONPATH": ":".join(sys.path[:2]), "PYTHONDONTWRITEBYTECODE": "1"}}
    ray.init(address=cluster.address, log_to_driver=False, runtime_env=path)
    serve.start(http_options={"host": "127.0.0.1", "port": 8000, "location": "HeadOnly"})
    handle = serve.run(build({"pack": pack, "variant": variant, "threads": "1"}), route_prefix="/predict")
    answers = [ask(Path(file).read_bytes()) for file in files for _ in range(4)]
    refused = [ask(b"no image"), ask(bytes((16 << 20) + 1))]
    nodes = {handle.info.remote().result()["node"] for _ in range(40)}
    said = {"answers": answers, "refused": refused, "nodes": len(nodes), "cluster": len(ray.nodes())}
    serve.shutdown()
    ray.shutdown()
    cluster.shutdown()
    sys.stdout.write(f"\n{json.dumps(said)}\n")  # Ray has written there, too


main(*sys.argv[1:])
