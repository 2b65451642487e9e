#!/usr/bin/env bash
# AWPortrait Edge · 人像工作室 — the kiosk's screen on or off, by the first way that is there and works.
#   screen.sh on|off    0: done   2: asked wrongly   3: none of the programs is there   4: none of those that are there works
# SCREEN_TOOLS chooses among them and their order: a screen that takes orders without following them cannot be told.
# shellcheck disable=SC2317  # each way is called by its name
set -euo pipefail

say() { echo "$*" >&2; }

# Started by a timer it is outside the compositor, whose socket lies in the runtime folder of the same user.
find_compositor() {
  local socket
  export XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-/run/user/$(id -u)}
  [ -z "${WAYLAND_DISPLAY:-}" ] || return 0
  for socket in "$XDG_RUNTIME_DIR"/wayland-*; do
    if [ -S "$socket" ]; then export WAYLAND_DISPLAY=${socket##*/}; return; fi
  done
}

by_wlopm() { wlopm "--$1" '*'; }

by_wlr_randr() {
  local listed line switched=1
  listed=$(wlr-randr) || return 1
  while IFS= read -r line; do
    case "$line" in
      ""|[[:space:]]*) ;;  # what is indented is about the output above it
      *) wlr-randr --output "${line%% *}" "--$1" || return 1; switched=0 ;;
    esac
  done <<< "$listed"
  return "$switched"
}

# Where the kernel drives the screen (KMS) the firmware answers something else, and ends well.
by_vcgencmd() {
  local state=0
  [ "$1" = off ] || state=1
  [[ "$(vcgencmd display_power "$state")" = *"display_power=$state"* ]]
}

# D6 is the power mode: 1 on, 4 off, where screens still listen (5 is the switch). What is off answers no verification.
by_ddcutil() {
  local mode=4
  [ "$1" = off ] || mode=1
  ddcutil --noverify setvcp D6 "$mode"
}

by_xset() { [ -n "${DISPLAY:-}" ] && xset dpms force "$1"; }

state=${1:-}
case "$state" in on|off) ;; *) say "用法 Usage: screen.sh on|off"; exit 2 ;; esac
find_compositor
there=()
for tool in ${SCREEN_TOOLS:-wlopm wlr-randr vcgencmd ddcutil xset}; do
  case "$tool" in wlopm|wlr-randr|vcgencmd|ddcutil|xset) ;; *) say "不认识的程序 Unknown program: $tool"; exit 2 ;; esac
  command -v "$tool" >/dev/null || continue
  there+=("$tool")
  if "by_${tool//-/_}" "$state" >&2; then say "✓ 屏幕 screen: $state ($tool)"; exit 0; fi
done
[ "${#there[@]}" -gt 0 ] || { say "✗ 没有能开关屏幕的程序 · no program that switches a screen is there: wlopm wlr-randr vcgencmd ddcutil xset"; exit 3; }
say "✗ 屏幕没能切换,试过 · the screen was not switched, tried: ${there[*]}"
exit 4
