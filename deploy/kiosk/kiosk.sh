#!/usr/bin/env bash
# AWPortrait Edge · 人像工作室 — the frame page in a browser that fills the screen. It waits for the server as long as that
# takes, and becomes the browser; awportrait-kiosk.service starts it again when it ends. Settings: kiosk.env.example.
set -euo pipefail

url=${STUDIO_URL:-http://localhost:7860}
url=${url%/}
page="$url/frame${FRAME_QUERY:+?${FRAME_QUERY#\?}}"
read -ra pauses <<< "${KIOSK_PAUSES:-1 2 4 8 15}"  # seconds between two looks at the server; the last of them for ever
check_s=${KIOSK_CHECK_S:-20}

say() { echo "$*" >&2; }
die() { say "✗ $*"; exit 2; }

first_of() {  # commands...: the first of them that is there
  local command
  for command in "$@"; do
    if command -v "$command" >/dev/null; then echo "$command"; return; fi
  done
  return 1
}

fetch() {  # address
  if command -v curl >/dev/null; then curl -fsS -o /dev/null --max-time 5 "$1" 2>/dev/null
  else wget -q -O /dev/null -T 5 -t 1 "$1"; fi
}

# Either will do: pictures can be shown while models load or the disk is full, which /readyz alone would wait for.
answers() { fetch "$url/readyz" || fetch "$url/healthz"; }

wait_for_server() {
  local k=0
  first_of curl wget >/dev/null || die "需要 curl 或 wget · curl or wget is needed: sudo apt-get install curl"
  until answers; do
    # While it waits longer each time it says so; after that the journal would fill with it.
    [ "$k" -ge "${#pauses[@]}" ] || say "… 等待 $url · waiting for $url"
    sleep "${pauses[$((k < ${#pauses[@]} ? k : ${#pauses[@]} - 1))]}"
    k=$((k + 1))
  done
}

# On tmpfs, so that an SD card is not worn out and nothing of a picture stays behind, unless KIOSK_PROFILE says where.
prepare_folders() {
  runtime=${XDG_RUNTIME_DIR:-/run/user/$(id -u)}
  [ -w "$runtime" ] || runtime=$(mktemp -d)
  profile=${KIOSK_PROFILE:-$runtime/awportrait-kiosk/profile}
  cache=$runtime/awportrait-kiosk/cache
  (umask 077; mkdir -p "$profile" "$cache")
}

# A lock of a browser that lost its power, made under another host name, would be "another computer" to Chromium: a dialog.
drop_stale_lock() {
  local lock
  lock=$(readlink "$profile/SingletonLock") || return 0
  kill -0 "${lock##*-}" 2>/dev/null || rm -f "$profile"/Singleton{Lock,Cookie,Socket}
}

pages() {  # how many processes show a page; not those of the browser's own menus. [-]: no command that looks for them
  local listed
  listed=$(pgrep -a -f -- "[-]-type=renderer.*--user-data-dir=$profile") || true
  grep -c -e . <<< "$(grep -v -e --top-chrome-webui -e --extension-process <<< "$listed")" || true
}

# A page whose process has died leaves the browser alive with "Aw, Snap!", and systemd content. Then the browser has to go.
watch_page() {  # process of the browser
  local had=0 missing=0
  while sleep "$check_s" && [ -e "/proc/$1/exe" ]; do  # one that ended and was not waited for yet has none
    if [ "$(pages)" -gt 0 ]; then had=1 missing=0; else missing=$((missing + had)); fi
    if [ "$missing" -ge 2 ]; then
      say "✗ 页面的进程没了,重启浏览器 · the page's process is gone, the browser is started again"
      kill "$1"
      sleep "$check_s"
      [ ! -e "/proc/$1/exe" ] || kill -KILL "$1"
      return
    fi
  done
}

show_in_chromium() {  # command
  # shellcheck disable=SC2054  # Chromium's lists have commas
  local flags=(
    --kiosk --no-first-run --no-default-browser-check --password-store=basic
    # Nothing over the picture. The crash bubble's flag was renamed in 2022; a browser passes over the name it lacks.
    --noerrdialogs --disable-infobars --hide-crash-restore-bubble --disable-session-crashed-bubble
    --disable-pinch --overscroll-history-navigation=0
    # Small boards: one process for the page, little for its scripts and its cache, and no downloads into a profile in memory.
    # Not --enable-low-end-device-mode, which may draw pictures with fewer colours. The address bar's menus, which nobody
    # sees here, would be a second page process, of 65 MB.
    --process-per-site --renderer-process-limit=1 --js-flags=--max-old-space-size=96
    --disk-cache-dir="$cache" --disk-cache-size=16777216 --disable-component-update --disable-background-networking
    --disable-features=Translate,MediaRouter,WebUIOmniboxPopup,WebUIOmniboxAimPopup,WebUIOmniboxFullPopup
    --user-data-dir="$profile"
  )
  [ -z "${WAYLAND_DISPLAY:-}" ] || flags+=(--ozone-platform=wayland)
  local own=()
  read -ra own <<< "${KIOSK_FLAGS:-}"
  drop_stale_lock
  if command -v pgrep >/dev/null; then watch_page $$ & fi
  exec "$1" "${flags[@]}" ${own[@]+"${own[@]}"} "$page"
}

show_in_cog() {
  local own=()
  read -ra own <<< "${KIOSK_FLAGS:-}"
  export COG_PLATFORM_WL_VIEW_FULLSCREEN=${COG_PLATFORM_WL_VIEW_FULLSCREEN:-1}
  [ -z "${WAYLAND_DISPLAY:-}" ] || own=(--platform=wl ${own[@]+"${own[@]}"})
  exec cog --webprocess-failure=exit ${own[@]+"${own[@]}"} "$page"
}

browser=$(first_of chromium chromium-browser google-chrome google-chrome-stable cog) ||
  die "没有浏览器,请安装 Chromium 或 cog · there is no browser, install Chromium or cog: sudo apt-get install chromium"
prepare_folders
wait_for_server
case "$browser" in
  cog) show_in_cog ;;
  *) show_in_chromium "$browser" ;;
esac
