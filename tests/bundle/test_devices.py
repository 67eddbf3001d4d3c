import json

import msgspec
import pytest

from edgevit.bundle.devices import is_shipped, measured_on
from edgevit.bundle.manifest import SCHEMA_VERSION, DeviceVariant, MeasuredDevice
from edgevit.bundle.packing import write_pack
from edgevit.bundle.reading import decode_manifest, encode_manifest
from edgevit.bundle.store import Bundle
from edgevit.bundle.summary import summary
from edgevit.errors import BundleError
from edgevit.report.data import report_data


@pytest.fixture
def device(bundle, measured):
    """What another device measured of the bundle's float32, and of an engine that it made itself."""
    own = bundle.variant("float32")
    latency = msgspec.structs.replace(measured["latency"], p50_ms=7.0)
    shared = DeviceVariant(
        name="float32",
        precision="float32",
        backend="onnxruntime",
        target="any",
        sha256=own.files[0].sha256,
        bytes=own.bytes,
        answers="as exported",
        latency=latency,
    )
    made = msgspec.structs.replace(
        shared, name="fp16-tensorrt", precision="fp16", sha256="a" * 64, bytes=5, accuracy=measured["accuracy"]
    )
    return MeasuredDevice(name="orin", environment=latency.environment, edgevit="0.2.0", variants=(shared, made))


def test_what_another_device_measured_leaves_this_machines_figures_alone(bundle, device, measured):
    bundle.update_variant("float32", latency=measured["latency"])
    bundle.update_device(device)
    again = Bundle.open(bundle.path)
    assert again.manifest.devices == (device,)
    assert again.variant("float32").latency == measured["latency"]
    assert [each.name for each in again.manifest.variants] == ["float32"]
    assert summary(again).devices == (device,)


def test_a_later_run_on_a_device_keeps_what_it_did_not_measure(bundle, device, measured):
    bundle.update_device(device)
    shared = device.variants[0]
    later = msgspec.structs.replace(shared, answers=None, latency=None, accuracy=measured["accuracy"])
    found = bundle.update_device(msgspec.structs.replace(device, variants=(later,))).manifest.devices
    assert found[0].variants[0] == msgspec.structs.replace(shared, accuracy=measured["accuracy"])
    assert found[0].variants[1] == device.variants[1]
    other_file = msgspec.structs.replace(later, sha256="b" * 64)
    found = bundle.update_device(msgspec.structs.replace(device, variants=(other_file,))).manifest.devices
    assert found[0].variants[0] == other_file  # times of another file are not its own
    second = msgspec.structs.replace(device, name="pi")
    assert [each.name for each in bundle.update_device(second).manifest.devices] == ["orin", "pi"]


def test_tables_show_the_bundle_as_the_device_saw_it(bundle, device):
    manifest = bundle.update_device(device).manifest
    seen = measured_on(manifest, device)
    assert [(each.name, each.bytes) for each in seen.variants] == [
        ("float32", bundle.variant("float32").bytes),
        ("fp16-tensorrt", 5),
    ]
    assert seen.variants[0].latency.p50_ms == 7.0
    own = {each.name: each for each in manifest.variants}
    assert [is_shipped(own.get(each.name), each) for each in device.variants] == [True, False]
    (told,) = report_data(manifest)["devices"]
    assert [(each["shipped"], each["latency"]["p50_ms"]) for each in told["variants"]] == [(True, 7.0), (False, 7.0)]
    assert [each["name"] for each in report_data(manifest)["variants"]] == ["float32"]


def test_a_pack_has_no_names_of_devices(bundle, device, tmp_path):
    bundle = bundle.update_device(device)
    write_pack(bundle, tmp_path / "test.edgevit.zip", ["float32"])
    pack = Bundle.open(tmp_path / "test.edgevit.zip")
    assert pack.manifest.devices == ()
    assert pack.update_device(device).manifest.devices == (device,)
    assert Bundle.open(tmp_path / "test.edgevit.zip").manifest.devices == ()


def test_devices_that_contradict_themselves_are_refused(bundle, device, measured):
    def with_devices(*devices):
        return msgspec.structs.replace(bundle.manifest, devices=devices)

    def with_latency(**changes):
        latency = msgspec.structs.replace(measured["latency"], **changes)
        return msgspec.structs.replace(device, variants=(msgspec.structs.replace(device.variants[0], latency=latency),))

    for wrong, why in (
        (with_devices(device, device), "same name"),
        (with_devices(msgspec.structs.replace(device, variants=device.variants * 2)), "same name"),
        (with_devices(with_latency(p50_ms=None)), "times are missing - at `\\$.devices.orin"),
        (with_devices(msgspec.structs.replace(device, name="../x")), "matching regex"),
        (with_devices(msgspec.structs.replace(device, name="\x1b[31m")), "matching regex"),
    ):
        with pytest.raises(BundleError, match=why):
            encode_manifest(wrong)


def test_a_manifest_of_version_2_has_no_devices(bundle):
    old = json.loads(encode_manifest(bundle.manifest)) | {"schema_version": 2}
    del old["devices"]
    found = decode_manifest(json.dumps(old).encode())
    assert (found.schema_version, found.devices) == (SCHEMA_VERSION, ())
