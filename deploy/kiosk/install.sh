#!/usr/bin/env bash
# AWPortrait Edge · 人像工作室 — the kiosk on Debian or Raspberry Pi OS: scripts, units, settings, and the user `kiosk`. Run
# again after a change of SCREEN_ON or SCREEN_OFF, or an update. Nothing else is touched, and no package installed.
#   install.sh [--dry-run] [--uninstall]        DESTDIR=folder: as if that were /, without users and without systemd
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

root=${DESTDIR:-}
root=${root%/}
lib=$root/usr/local/lib/awportrait-kiosk
units=$root/etc/systemd/system
settings=$root/etc/default/awportrait-kiosk
state=$root/var/lib/awportrait-kiosk
marker=$lib/user-is-ours
timers=(awportrait-screen-on.timer awportrait-screen-off.timer)
services=(awportrait-kiosk.service awportrait-screen-on.service awportrait-screen-off.service)
pointers=(left_ptr pointer text xterm hand1 hand2 grab grabbing wait watch progress crosshair move not-allowed help)
dry="" remove=""

say() { echo "$*" >&2; }
die() { say "✗ $*"; exit 2; }

run() {  # a command that changes something
  if [ -n "$dry" ]; then echo "+ $*"; else "$@"; fi
}

write() {  # file: what it reads becomes that file
  if [ -n "$dry" ]; then cat >/dev/null; echo "+ write $1"; else mkdir -p "${1%/*}"; cat > "$1"; chmod 644 "$1"; fi
}

setting() {  # name: its value. The file is systemd's, where & and spaces need no quotes: no shell may read it.
  [ ! -r "$settings" ] || sed -n "s/^$1=//p" "$settings" | tail -n 1
}

# One pixel that nothing is seen of, in Xcursor's format: header, table with one entry, image of 1 x 1.
empty_pointer() {
  printf 'Xcur\x10\0\0\0\0\0\x01\0\x01\0\0\0'
  printf '\x02\0\xfd\xff\x18\0\0\0\x1c\0\0\0'
  printf '\x24\0\0\0\x02\0\xfd\xff\x18\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0'
}

# Older versions of cage ask for a theme that has the name of a pointer.
install_pointer() {
  local name
  empty_pointer | write "$lib/icons/default/cursors/default"
  for name in "${pointers[@]}"; do run ln -sfn default "$lib/icons/default/cursors/$name"; done
  run ln -sfn default "$lib/icons/left_ptr"
}

install_files() {
  run install -d -m 755 "$lib" "$units" "${settings%/*}"
  run install -m 755 kiosk.sh screen.sh "$lib/"
  run install -m 644 "${services[@]}" "${timers[@]}" "$units/"
  [ -e "$settings" ] || run install -m 644 kiosk.env.example "$settings"
  install_pointer
}

# A user that was here before stays as it is: somebody has decided what it may.
install_user() {
  local group groups=()
  if id kiosk >/dev/null 2>&1; then
    [ -e "$marker" ] || say "! 用户 kiosk 已存在,不作改动;它需要的组 · the user kiosk exists and stays as it is; it needs the groups: video input render"
    return
  fi
  for group in video input render i2c; do
    ! getent group "$group" >/dev/null || groups+=("$group")
  done
  run useradd --system --user-group --home-dir "$state" --shell /usr/sbin/nologin --groups "$(IFS=,; echo "${groups[*]}")" kiosk
  run touch "$marker"
}

check_time() {  # SCREEN_ON|SCREEN_OFF
  local at
  at=$(setting "$1")
  [[ "$at" =~ ^(([01][0-9]|2[0-3]):[0-5][0-9])?$ ]] || die "$1=$at: 时间要写成 07:00 · a time is written 07:00"
}

# A timer cannot read settings. Without a time there is no timer.
schedule() {  # on|off, SCREEN_ON|SCREEN_OFF
  local at unit=awportrait-screen-$1.timer
  at=$(setting "$2")
  if [ -z "$at" ]; then
    run rm -f "$units/$unit.d/schedule.conf"
    [ -n "$root" ] || run systemctl disable --now --quiet "$unit"
    return
  fi
  printf '[Timer]\nOnCalendar=\nOnCalendar=*-*-* %s\n' "$at" | write "$units/$unit.d/schedule.conf"
  [ -n "$root" ] || { run systemctl daemon-reload; run systemctl enable --quiet "$unit"; run systemctl restart "$unit"; }
}

look_for_programs() {
  command -v cage >/dev/null || command -v labwc >/dev/null || say "! 还缺 missing: sudo apt-get install cage"
  command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null ||
    command -v cog >/dev/null || say "! 还缺 missing: sudo apt-get install chromium"
}

install_all() {
  check_time SCREEN_ON
  check_time SCREEN_OFF
  install_files
  if [ -z "$root" ]; then
    install_user
    run systemctl daemon-reload
    run systemctl enable --quiet awportrait-kiosk.service
    look_for_programs
  fi
  schedule on SCREEN_ON
  schedule off SCREEN_OFF
  say "✓ 设置 settings: $settings   启动 start: systemctl restart awportrait-kiosk"
}

remove_user() {
  run loginctl terminate-user kiosk || true  # who is not logged in cannot be ended
  run userdel kiosk
}

uninstall_all() {
  check_time SCREEN_ON
  check_time SCREEN_OFF
  local unit ours=""
  [ ! -e "$marker" ] || ours=1
  for unit in "${services[@]}" "${timers[@]}"; do
    [ -n "$root" ] || [ ! -e "$units/$unit" ] || run systemctl disable --now --quiet "$unit"
    run rm -f "$units/$unit"
  done
  for unit in "${timers[@]}"; do
    run rm -f "$units/$unit.d/schedule.conf"
    [ ! -d "$units/$unit.d" ] || run rmdir --ignore-fail-on-non-empty "$units/$unit.d"
  done
  run rm -rf "$lib" "$state"
  if cmp -s kiosk.env.example "$settings"; then run rm -f "$settings"
  elif [ -e "$settings" ]; then say "! 您改过的设置留着 · your settings stay: $settings"; fi
  [ -n "$root" ] || run systemctl daemon-reload
  [ -n "$root" ] || [ -z "$ours" ] || remove_user
  say "✓ 已卸载 uninstalled"
}

for word in "$@"; do
  case "$word" in
    --dry-run) dry=1 ;;
    --uninstall) remove=1 ;;
    *) die "用法 Usage: install.sh [--dry-run] [--uninstall]" ;;
  esac
done
[ -n "$root" ] || [ -n "$dry" ] || [ "$(id -u)" = 0 ] || die "请用 root 运行 · run it as root: sudo deploy/kiosk/install.sh"
if [ -n "$remove" ]; then uninstall_all; else install_all; fi
