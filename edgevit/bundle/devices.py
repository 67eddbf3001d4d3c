"""What was measured on other devices: noted in a manifest, and as one of them saw the bundle."""

from __future__ import annotations

from msgspec.structs import replace

from edgevit.bundle.manifest import DeviceVariant, File, Manifest, MeasuredDevice, Variant


def with_device(manifest: Manifest, measured: MeasuredDevice) -> Manifest:
    """Return ``manifest`` with what was measured on a device, beside what was measured there before on the same files.

    The figures of this machine, and of other devices, stay as they are.
    """
    by_name = {each.name: each for each in manifest.devices}
    before = by_name.get(measured.name)
    if before is not None:
        variants = {each.name: each for each in before.variants}
        variants |= {each.name: _over(variants.get(each.name), each) for each in measured.variants}
        measured = replace(measured, variants=tuple(variants.values()))
    return replace(manifest, devices=tuple((by_name | {measured.name: measured}).values()))


def _over(before: DeviceVariant | None, now: DeviceVariant) -> DeviceVariant:
    """Return ``now``, with the figures that it lacks from ``before`` where they are of the same file."""
    if before is None or before.sha256 != now.sha256:
        return now
    return replace(
        now,
        answers=now.answers or before.answers,
        accuracy=now.accuracy or before.accuracy,
        latency=now.latency or before.latency,
        kernels=now.kernels or before.kernels,
        evidence=now.evidence if now.evidence or now.accuracy or now.latency else before.evidence,
    )


def measured_on(manifest: Manifest, device: MeasuredDevice) -> Manifest:
    """Return ``manifest`` as the device saw it: its variants alone, with its figures in the place of this machine's.

    Tables and the report are drawn from that. A variant that was made there, or whose files here have been replaced
    since, has one file, which is not in the bundle: such a manifest is never written.
    """
    own = {each.name: each for each in manifest.variants}
    return replace(
        manifest, variants=tuple(_as_variant(own.get(each.name), each) for each in device.variants), devices=()
    )


def is_shipped(own: Variant | None, measured: DeviceVariant) -> bool:
    """Return whether what was measured on a device is still the bundle's ``own`` variant of that name."""
    return own is not None and (own.files[0].sha256, own.bytes) == (measured.sha256, measured.bytes)


def _as_variant(own: Variant | None, measured: DeviceVariant) -> Variant:
    accuracy, latency, kernels = measured.accuracy, measured.latency, measured.kernels
    if own is not None and is_shipped(own, measured):
        return replace(
            own, accuracy=accuracy, latency=latency, kernels=kernels or own.kernels, evidence=measured.evidence
        )
    return Variant(
        name=measured.name,
        precision=measured.precision,
        backend=measured.backend,
        target=measured.target,
        files=(File(path=f"{measured.name}/model", sha256=measured.sha256, bytes=measured.bytes),),
        accuracy=accuracy,
        latency=latency,
        kernels=kernels,
        evidence=measured.evidence,
    )
