#!/usr/bin/env bash
# AWPortrait Edge · 人像工作室 — everything starts here: set up, serve, test, build, measure. CI runs the same commands.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

die() { echo "✗ $*" >&2; exit 1; }

need_python() {  # command
  command -v "$1" >/dev/null || die "找不到 Python。请安装 Python 3.11 以上。 Python is missing: install 3.11 or newer."
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    die "需要 Python 3.11 以上(可设 PYTHON=...)。 Python 3.11 or newer is needed (you may set PYTHON=...)."
}

# A virtual environment that can install packages. Debian ships venv separately.
make_venv() {  # folder
  local python=${PYTHON:-python3}
  need_python "$python"
  if ! "$python" -c 'import ensurepip' 2>/dev/null; then
    [ "$(id -u)" = 0 ] || die "请先运行 First run: sudo apt-get install python3-venv"
    apt-get update -q && apt-get install -y -q python3-venv
  fi
  [ -x "$1/bin/python" ] || "$python" -m venv "$1"
}

# The CPU build of PyTorch is ten times smaller. Its own index has it; where that is out of reach, pip's configuration decides.
torch_index() {
  [ -z "$wheelhouse" ] || return 0
  command -v nvidia-smi >/dev/null && return
  "$1" - <<'PY' || true
from urllib.request import urlopen
try:
    urlopen("https://download.pytorch.org/whl/cpu/torch/", timeout=3).close()
    print("--index-url https://download.pytorch.org/whl/cpu")
except OSError:
    pass
PY
}

requirements() {  # python, extras...: the lists of pyproject.toml, one requirement a line
  "$1" - "${@:2}" <<'PY'
import sys, tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
print("\n".join(project["dependencies"] + [line for extra in sys.argv[1:] for line in project["optional-dependencies"][extra]]))
PY
}

# Install once: a stamp for each list of requirements, so that a second start only compares a hash.
ensure() {  # folder, extras...
  local venv=$1 python="$1/bin/python" want missing="" list
  want=$(cat pyproject.toml constraints.txt | sha256sum)
  for list in base "${@:2}"; do
    [ "$(cat "$venv/.installed-$list" 2>/dev/null || true)" = "$want" ] || missing+=" $list"
  done
  [ -n "$missing" ] || return 0
  make_venv "$venv"
  echo "正在安装 Installing:$missing …"
  # pip would compile all modules there are, most of which nothing imports.
  local install=("$python" -m pip install -q --disable-pip-version-check --no-compile -c constraints.txt)
  if [ -n "$wheelhouse" ]; then
    (cd "$wheelhouse" && sha256sum --check --quiet --strict SHA256SUMS) ||
      die "$wheelhouse: 与 SHA256SUMS 不符 · is not what its SHA256SUMS says"
    install+=(--no-index --find-links "$wheelhouse")
  fi
  if [[ "$missing" = *" torch"* ]] && ! "$python" -c 'import torch' 2>/dev/null; then
    # shellcheck disable=SC2046  # no index is no argument
    "${install[@]}" $(torch_index "$python") 'torch==2.13.*'
  fi
  "${install[@]}" -r <(requirements "$python" "${@:2}")
  # Those of a start are compiled as they are imported here: while somebody waits for the page it would take 4 s. What
  # cannot be imported on this processor is said when it starts.
  "$python" -c 'import webui.gradio_patches, webui.server, engines.worker.__main__, onnxruntime' >/dev/null 2>&1 || true
  for list in base "${@:2}"; do echo "$want" > "$venv/.installed-$list"; done
}

ensure_browser() {
  command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null && return
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -q >/dev/null && apt-get install -y -q chromium >/dev/null || echo "! Chromium 未能安装,浏览器测试将跳过 · browser tests will be skipped"
  fi
}

# The environment that is here: the light one, if there is no other.
any_venv() {
  if [ -x .venv-edge/bin/python ] && [ ! -x .venv/bin/python ]; then venv=.venv-edge; ensure "$venv"
  else venv=.venv; ensure "$venv" torch build; fi
}

python_here() {  # that of what is installed, or else the system's
  local venv python=${PYTHON:-python3}
  for venv in .venv-edge .venv; do [ ! -x "$venv/bin/python" ] || python="$venv/bin/python"; done
  need_python "$python" >&2  # only the answer is printed
  echo "$python"
}

# Where a network is missing: what `./run.sh wheelhouse FOLDER` has put there. It is no setting of the program's.
words=() wheelhouse=${STUDIO_WHEELHOUSE:-}
while [ $# -gt 0 ]; do
  case "$1" in
    --wheelhouse=*) wheelhouse=${1#*=} ;;
    --wheelhouse) [ $# -gt 1 ] || die "--wheelhouse FOLDER"; wheelhouse=$2; shift ;;
    *) words+=("$1") ;;
  esac
  shift
done
set -- ${words[@]+"${words[@]}"}
case "$wheelhouse" in ""|/*) ;; *) wheelhouse=$PWD/$wheelhouse ;; esac
unset STUDIO_WHEELHOUSE

# An update has put a newer program beside this one (docs/update.md): that is meant. Files are still named from here.
if [ -e current/run.sh ]; then
  [ -z "$wheelhouse" ] || export STUDIO_WHEELHOUSE=$wheelhouse
  case "${STUDIO_HOME:-/}" in /*) ;; *) export STUDIO_HOME=$PWD/$STUDIO_HOME ;; esac
  case "${1:-}" in backup|restore|watch|update|wheelhouse|release)
    words=("$1")
    for word in "${@:2}"; do case "$word" in -*|/*) ;; *) word=$PWD/$word ;; esac; words+=("$word"); done
    set -- "${words[@]}"
  esac
  if grep -qs ^start releases/step && [ "${1:-}" != rollback ]; then
    echo "! 上次更新在试用新版本时被打断;启动不了就运行 ./run.sh rollback · an update was interrupted as the newer version was tried; if it does not start: ./run.sh rollback" >&2
  fi
  exec bash current/run.sh "$@"
fi

# The verb is the first word that is no option of every verb. What verbs do, and every setting, webui/cli.py says.
verb=serve
for word in "$@"; do
  if [ "$word" != --https ]; then verb=$word; break; fi
done

case "$verb" in
  serve|build) ensure .venv torch build; exec .venv/bin/python -m webui.cli "$@" ;;
  edge) ensure .venv-edge; exec .venv-edge/bin/python -m webui.cli "$@" ;;
  app|watch|worker|parts|models|token|password|backup|restore) any_venv; exec "$venv/bin/python" -m webui.cli "$@" ;;
  setup)
    if [ "${2:-}" = edge ]; then ensure .venv-edge; else ensure .venv torch build; fi
    echo "✓ 安装完成,运行 ./run.sh 启动 · installed, start with ./run.sh" ;;
  update|rollback) python=$(python_here); exec env ${wheelhouse:+"STUDIO_WHEELHOUSE=$wheelhouse"} "$python" -B -m webui.update "$@" ;;
  wheelhouse)  # with a pip of its own, which installs nothing here
    shift; folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
    make_venv "$folder"
    "$folder/bin/python" deploy/wheelhouse.py --torch-index="$(torch_index "$folder/bin/python")" "$@" ;;
  release) shift; exec bash deploy/release.sh "$@" ;;
  bench) shift; ensure .venv torch build; ensure .venv-edge; exec .venv/bin/python -m benchmarks "$@" ;;
  test)
    shift
    ensure .venv torch build train dev
    which=()
    if [ "${1:-}" = quick ]; then shift; which=(-m "not slow and not browser")
    else ensure_browser; fi
    .venv/bin/ruff check .
    .venv/bin/ruff format --check .
    .venv/bin/mypy
    .venv/bin/lint-imports
    # One thread a process: tiny tensors gain nothing from more, and there are as many workers as cores (two at least).
    workers=$(env -u OMP_NUM_THREADS nproc); [ "$workers" -ge 2 ] || workers=2
    export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
    # A worker that died is a failure, and no other takes its place: xdist 3.8 would wait for the dead one for ever.
    .venv/bin/python -m pytest -n "$workers" --dist loadgroup --no-loadscope-reorder --max-worker-restart 0 "${which[@]}" "$@" ;;
  chaos) shift; ensure .venv torch build train dev; exec .venv/bin/python -m tests.chaos "$@" ;;
  *)  # doctor, version and help, which install nothing: what is not installed, they say
    python=$(python_here)
    exec "$python" -B -m webui.cli "$@" ;;
esac
