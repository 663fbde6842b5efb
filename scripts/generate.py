"""Generates the Python stubs, Envoy's descriptor set and the OpenAPI document from `proto/`.

python scripts/generate.py            write them
python scripts/generate.py --check    exit 1 if what is committed differs
python scripts/generate.py --protos   only lay out the google/api protos that buf resolves imports from
"""

import argparse
import filecmp
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import google.api
import grpc_tools
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from openapi import openapi

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
STUBS = Path("sdk/dalston/v1")
DESCRIPTOR = Path("envoy/dalston.binpb")
OPENAPI = Path("envoy/openapi.json")
COMMON_PROTOS = Path(next(iter(google.api.__path__))).parent.parent
WELL_KNOWN = Path(next(iter(grpc_tools.__path__))) / "_proto"
VENDORED = [
    "google/api/annotations.proto",
    "google/api/http.proto",
    "google/api/httpbody.proto",
]
# Rich errors have an empty body behind Envoy unless it knows their types.
DESCRIBED = ["google/rpc/error_details.proto", "google/rpc/status.proto"]


def lay_out_vendored_protos() -> None:
    """Copies the google/api protos into `third_party/`, which git ignores."""
    for name in VENDORED:
        target = ROOT / "third_party/googleapis" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(COMMON_PROTOS / name, target)


def protoc(*arguments: str) -> None:
    command = [sys.executable, "-m", "grpc_tools.protoc"]
    includes = [f"-I{path}" for path in (PROTO, COMMON_PROTOS, WELL_KNOWN)]
    # The mypy plugins are scripts beside the interpreter, which need not be on PATH.
    bin_dir = Path(sys.executable).parent
    plugins = [f"--plugin={name}={bin_dir / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    subprocess.run([*command, *includes, *plugins, *arguments], check=True)


def generate(target: Path) -> None:
    """Writes stubs, descriptor set and OpenAPI document below `target`, in the repository's layout."""
    sources = sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto"))
    package_root = target / STUBS.parent.parent
    package_root.mkdir(parents=True, exist_ok=True)
    (target / DESCRIPTOR).parent.mkdir(parents=True, exist_ok=True)
    protoc(
        f"--python_out={package_root}",
        f"--grpc_python_out={package_root}",
        f"--mypy_out=quiet:{package_root}",
        f"--mypy_grpc_out=quiet:{package_root}",
        *sources,
    )
    protoc("--include_imports", f"--descriptor_set_out={target / DESCRIPTOR}", *sources, *DESCRIBED)
    with tempfile.TemporaryDirectory() as directory:
        commented = Path(directory) / "commented.binpb"
        protoc("--include_source_info", f"--descriptor_set_out={commented}", *sources)
        descriptors = FileDescriptorSet.FromString(commented.read_bytes())
    (target / OPENAPI).write_text(openapi(descriptors, _version()), encoding="utf-8")


def _version() -> str:
    project = tomllib.loads((ROOT / "sdk/pyproject.toml").read_text(encoding="utf-8"))
    return str(project["project"]["version"])


def differences(fresh: Path) -> list[str]:
    """Names of generated files that differ from the committed ones, or exist on one side only."""
    names = {str(p.relative_to(fresh)) for p in fresh.rglob("*") if p.is_file()}
    committed = {str(p.relative_to(ROOT)) for p in (ROOT / STUBS).glob("*_pb2*")}
    return sorted(
        name
        for name in names | committed
        if not (fresh / name).exists()
        or not (ROOT / name).exists()
        or not filecmp.cmp(fresh / name, ROOT / name, shallow=False)
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--protos", action="store_true")
    arguments = parser.parse_args()
    lay_out_vendored_protos()
    if arguments.protos:
        return 0
    if not arguments.check:
        for stale in (ROOT / STUBS).glob("*_pb2*"):
            stale.unlink()
        generate(ROOT)
        return 0
    with tempfile.TemporaryDirectory() as directory:
        generate(Path(directory))
        changed = differences(Path(directory))
    for name in changed:
        print(f"{name} is not what proto/ generates: run `make generate`", file=sys.stderr)
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
