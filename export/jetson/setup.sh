#!/usr/bin/env bash
# Sets EdgeViT up on a Jetson with the TensorRT that JetPack brings, then builds, checks and times a bundle.
# Written against the published APIs, not yet run on a Jetson. Running it again does no harm.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=${EDGEVIT_SETUP_ROOT:-} # where /etc and /proc are; for tests
venv=${HOME:-/root}/edgevit-venv
source=
target=
duration=10
precisions=()
bundle=

usage() {
    cat <<'TEXT'
Usage: setup.sh [OPTION]... [BUNDLE]

Makes a virtual environment that sees JetPack's TensorRT, installs EdgeViT into it without torch, then builds
BUNDLE for this Jetson, checks it on its golden images and times it. Without BUNDLE it stops after the setup.

  --venv DIR          the virtual environment (default: ~/edgevit-venv)
  --edgevit WHAT      what pip installs: a wheel, a checkout, a version (default: this checkout, else edgevit)
  --target TARGET     what to build for (default: what this board and its TensorRT are; edgevit targets lists all)
  --precision P       fp16 or int8; can be given again (default: both; the fastest that is accurate is yours)
  --duration SECONDS  of timing, for each variant (default: 10)
  --help              this text
TEXT
}

say() { printf '%s\n' "$*" >&2; }

# fail CODE MESSAGE REMEDY: ends as edgevit does: 2 is bad input, 3 is something missing on this machine.
fail() {
    say "error: $2"
    say "  try: $3"
    exit "$1"
}

read_options() {
    while [ $# -gt 0 ]; do
        case $1 in
        --help | -h)
            usage
            exit 0
            ;;
        --venv | --edgevit | --target | --precision | --duration)
            [ $# -ge 2 ] || fail 2 "$1 needs a value" "setup.sh --help"
            case $1 in
            --venv) venv=$2 ;;
            --edgevit) source=$2 ;;
            --target) target=$2 ;;
            --precision) precisions+=("$2") ;;
            --duration) duration=$2 ;;
            esac
            shift 2
            ;;
        -*) fail 2 "there is no option $1" "setup.sh --help" ;;
        *)
            [ -z "$bundle" ] || fail 2 "one bundle at a time, not $bundle and $1" "setup.sh --help"
            bundle=$1
            shift
            ;;
        esac
    done
    [ ${#precisions[@]} -gt 0 ] || precisions=(fp16 int8)
    [ -z "$bundle" ] || [ -f "$bundle/manifest.json" ] ||
        fail 2 "$bundle is no bundle" "copy one here: scp -r NAME.edgevit $(hostname):"
}

check_machine() {
    [ -e "$root/etc/nv_tegra_release" ] ||
        fail 3 "this is no Jetson: there is no /etc/nv_tegra_release" "run it on the device; docs/installing.md has the others"
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
        fail 3 "EdgeViT needs Python 3.10 or later, which JetPack 6 and 7 have" "flash JetPack 6 or later"
    python3 -c 'import ensurepip, venv' 2>/dev/null ||
        fail 3 "python3 cannot make virtual environments" "sudo apt-get install python3-venv"
    python3 -c 'import tensorrt' 2>/dev/null ||
        fail 3 "python3 has no tensorrt" "sudo apt-get install tensorrt python3-libnvinfer (or nvidia-jetpack, for all of it)"
}

make_environment() {
    if [ ! -e "$venv/pyvenv.cfg" ]; then
        say "Making the virtual environment $venv"
        python3 -m venv --system-site-packages "$venv"
    fi
    grep -qi '^include-system-site-packages *= *true' "$venv/pyvenv.cfg" ||
        fail 2 "$venv does not see the system's packages, and so no TensorRT" "remove it, or name another with --venv"
}

install_edgevit() {
    if [ -z "$source" ]; then
        source=edgevit
        [ ! -e "$here/../../pyproject.toml" ] || source=$(cd "$here/../.." && pwd)
    fi
    # The extra writes the ONNX files that TensorRT builds from. It brings no torch.
    say "Installing $source"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "${source}[quantize]"
    tensorrt=$("$venv/bin/python" -c 'import tensorrt; print(tensorrt.__version__)') ||
        fail 3 "TensorRT does not load in $venv" "remove $venv and run this again"
    say "TensorRT $tensorrt"
    "$venv/bin/edgevit" doctor >&2
}

# Which target this board is; TensorRT's version says which JetPack, and so which edition.
choose_target() {
    [ -z "$target" ] || return 0
    local model base=
    model=$(tr -d '\0' <"$root/proc/device-tree/model" 2>/dev/null) || model=unknown
    case $model in
    *"Orin Nano"*) base=jetson-orin-nano ;;
    *"Orin NX"*) base=jetson-orin-nx ;;
    *"AGX Orin"*) base=jetson-agx-orin ;;
    *Thor*) base=jetson-thor ;;
    *) fail 2 "no target is known for the board '$model'" "name one with --target; $venv/bin/edgevit targets lists all" ;;
    esac
    target=$("$venv/bin/python" -c 'import sys; from edgevit.targets import edition_for
print(edition_for(sys.argv[1], sys.argv[2]) or "")' "$base" "$tensorrt")
    [ -n "$target" ] ||
        fail 3 "$base is not for TensorRT $tensorrt" "$venv/bin/edgevit targets $base shows the versions that it is for"
    say "This is a $model: target $target"
}

# Prints the name of the variant.
build() {
    local said
    said=$("$venv/bin/edgevit" build "$bundle" --target "$target" --precision "$1" --json) || return
    "$venv/bin/python" -c 'import json, sys; print(json.load(sys.stdin)["variants"][0]["name"])' <<<"$said"
}

# Opening a variant compares its answers to all golden images with float32's; the first image is then classified.
check() {
    local images=("$bundle"/golden*/*.png)
    "$venv/bin/edgevit" predict "$bundle" "${images[0]}" --variant "$1" >&2
    say "$1 answers to the golden images as float32 does"
}

show_power() {
    if command -v nvpmodel >/dev/null; then
        say "Power mode: $(nvpmodel -q 2>/dev/null | tr '\n' ' ')"
        say "Figures depend on it; docs/jetson.md says how to set it (nvpmodel, jetson_clocks)."
    fi
}

read_options "$@"
check_machine
make_environment
install_edgevit
if [ -z "$bundle" ]; then
    say "EdgeViT is set up: $venv/bin/edgevit --help"
    exit 0
fi
choose_target
variants=()
for precision in "${precisions[@]}"; do
    name=$(build "$precision")
    check "$name"
    variants+=(--variant "$name")
done
show_power
"$venv/bin/edgevit" benchmark "$bundle" "${variants[@]}" --duration "$duration"
