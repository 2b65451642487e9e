#!/usr/bin/env bash
# AWPortrait Edge · 人像工作室 — 用 Tailscale 在自己的设备间以 https 打开 · https among one's own devices, by Tailscale. docs/proxies.md
# 工作室要设 · the studio's settings: STUDIO_PROXY=127.0.0.1 STUDIO_HOST=127.0.0.1
# 没有在 Tailscale 上跑过,只查过写法 · it was not run with Tailscale: only its form is tested.
#   ./tailscale.sh            https://NAME.TAILNET.ts.net/
#   ./tailscale.sh /studio    https://NAME.TAILNET.ts.net/studio, STUDIO_PATH=/studio
#   tailscale serve reset     撤销 · takes it all back
set -euo pipefail

path=${1:-}
# 名称 *.ts.net 工作室本来就认 · the studio answers to names in *.ts.net by itself.
exec tailscale serve --bg --https=443 --set-path="${path:-/}" "http://127.0.0.1:7860$path"
