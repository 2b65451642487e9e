#!/usr/bin/env bash
# AWPortrait Edge · 人像工作室 — everything starts here: set up, serve, test, build, measure. CI runs the same commands.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
  cat <<'TEXT'
AWPortrait Edge · 人像工作室        webUI二次开发 by 科哥

  ./run.sh [serve]   安装(仅首次)并启动,浏览器打开 http://localhost:7860 · install once, then serve
  ./run.sh --https   用 https 提供服务(edge、app 也可用),页面 /trust 说明怎样让手机信任 · serve https (edge and app too); /trust says how phones come to trust it
  ./run.sh edge      不装 PyTorch 的轻量安装并启动 · a light installation without PyTorch, then serve
  ./run.sh app       在自己的窗口里打开,关掉窗口任务照做(--stop 停止;--install 加到应用菜单,--uninstall 移除)· the page in a window of its own, which jobs outlive (--stop; --install: into the menu, --uninstall)
  ./run.sh setup     只安装 · install only
  ./run.sh test      检查与全部测试(含真实浏览器),多进程并行 · lint, types, architecture, all tests (real browser included), in parallel
  ./run.sh test quick  三分钟内的检查:规范、类型、架构、单元与契约测试 · lint, types, architecture, unit and contract tests, within three minutes
  ./run.sh build     制作模型包 · make model bundles (./run.sh build --help)
  ./run.sh models    可下载的模型 · models to download (./run.sh models get ID)
  ./run.sh bench     在本机测速 · measure this machine
  ./run.sh chaos kills|stops|crashes|crowd|bombs|disk|soak|inbox|frame  故意杀死、停止、弄崩、挤爆服务,塞给它炸弹文件,写满磁盘、弄坏数据库,让五十人一直用,折腾放入即修复的文件夹,或让相框挂上一天,看有没有丢东西 · kill, stop, crash or crowd the service, send it bombs, fill its disk, damage its database, let fifty use it for long, mistreat a watched folder, or hang a frame for a day, and see what is lost
  ./run.sh token NAME [--revoke]  程序用的令牌(显示一次;作废) · a token for a program (shown once; ended)
  ./run.sh password  把密码变成可写进配置的散列 · turn a password into a hash that a configuration may hold
  ./run.sh backup FILE   备份作品与任务,可在运行时做(--models 连同模型) · pictures and jobs into one file, while the server runs too
  ./run.sh restore FILE  从备份恢复,先停止程序 · a home out of a backup, while no server runs
  ./run.sh watch [INBOX]  放入即修复:看着一个文件夹,修好的放进另一个(服务器运行时用 STUDIO_INBOX)· what is put into a folder is restored into another (with a server: STUDIO_INBOX)
  ./run.sh doctor    体检:缺什么、哪里不对、怎么办,什么都不改(--json) · what is missing or wrong, and what to do; changes nothing
  ./run.sh help      本说明 · this text

设置 Settings (environment variables):
TEXT
  python3 -m engines.settings 2>/dev/null || echo "  (需要 Python 3.11 以上才能列出 · needs Python 3.11 or newer to list them)"
}

die() { echo "✗ $*" >&2; exit 1; }

# A virtual environment that can install packages. Debian ships venv separately.
make_venv() {  # folder
  local python=${PYTHON:-python3}
  command -v "$python" >/dev/null || die "找不到 Python。请安装 Python 3.11 以上。 Python is missing: install 3.11 or newer."
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    die "需要 Python 3.11 以上(可设 PYTHON=...)。 Python 3.11 or newer is needed (you may set PYTHON=...)."
  if ! "$python" -c 'import ensurepip' 2>/dev/null; then
    [ "$(id -u)" = 0 ] || die "请先运行 First run: sudo apt-get install python3-venv"
    apt-get update -q && apt-get install -y -q python3-venv
  fi
  [ -x "$1/bin/python" ] || "$python" -m venv "$1"
}

# The CPU build of PyTorch is ten times smaller. Its own index has it; where that is out of reach, pip's configuration decides.
torch_index() {
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

# --https, wherever it stands, is the setting STUDIO_HTTPS.
words=()
for word in "$@"; do
  if [ "$word" = --https ]; then export STUDIO_HTTPS=on; else words+=("$word"); fi
done
set -- ${words[@]+"${words[@]}"}

verb=${1:-serve}
[ $# -gt 0 ] && shift
case "$verb" in
  serve) ensure .venv torch build; exec .venv/bin/python -m webui "$@" ;;
  edge)  ensure .venv-edge; exec .venv-edge/bin/python -m webui "$@" ;;
  app)   any_venv; exec "$venv/bin/python" -m webui.desktop "$@" ;;
  setup) ensure .venv torch build; echo "✓ 安装完成,运行 ./run.sh 启动 · installed, start with ./run.sh" ;;
  build) ensure .venv torch build; exec .venv/bin/python -m engines.toolchain "$@" ;;
  models)
    any_venv
    exec "$venv/bin/python" -m engines.catalogue "$@" ;;
  token)    any_venv; exec "$venv/bin/python" -m webui.people.tokens "$@" ;;
  password) any_venv; exec "$venv/bin/python" -m webui.people.password "$@" ;;
  backup|restore) any_venv; exec "$venv/bin/python" -m webui.backup "$verb" "$@" ;;
  watch)    any_venv; exec "$venv/bin/python" -m webui.watch "$@" ;;
  bench) ensure .venv torch build; ensure .venv-edge; exec .venv/bin/python -m benchmarks "$@" ;;
  test)
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
  chaos) ensure .venv torch build train dev; exec .venv/bin/python -m tests.chaos "$@" ;;
  doctor)  # installs nothing: what is not installed, it says
    python=${PYTHON:-python3}
    for venv in .venv-edge .venv; do [ ! -x "$venv/bin/python" ] || python="$venv/bin/python"; done
    command -v "$python" >/dev/null || die "找不到 Python。请安装 Python 3.11 以上。 Python is missing: install 3.11 or newer."
    exec "$python" -B -m webui.doctor "$@" ;;
  help|-h|--help) usage ;;
  *) usage; die "不认识的命令 Unknown verb: $verb" ;;
esac
