#!/usr/bin/env bash
# AWPortrait Edge · 人像工作室 — as a service of this machine, from this folder: a user of its own, the program in
# /opt/awportrait-edge, which only root can write to, the unit, and a file of settings. Run again from a newer release it
# updates (docs/update.md). For Debian, Ubuntu, Raspberry Pi OS, Fedora, Arch: what has systemd and Python 3.11.
#   install.sh [--edge | --full] [--kiosk] [--wheelhouse FOLDER] [--dry-run]
#   install.sh --uninstall [--purge] [--kiosk] [--dry-run]
#   DESTDIR=folder: as if that were /, without users and without systemd
set -euo pipefail
umask 022
tree=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

root=${DESTDIR:-}
root=${root%/}
base=$root/opt/awportrait-edge
unit=$root/etc/systemd/system/awportrait-edge.service
settings=$root/etc/awportrait-edge.env
state=$root/var/lib/awportrait-edge
user=awportrait
whose="AWPortrait Edge" # of a user that this script has made
python=${PYTHON:-python3}
kind="" kiosk="" dry="" remove="" purge="" wheelhouse=${STUDIO_WHEELHOUSE:-}

say() { echo "$*" >&2; }
die() { say "✗ $*"; exit 2; }

run() {  # a command that changes something
  if [ -n "$dry" ]; then echo "+ $*"; else "$@"; fi
}

service() { [ -n "$root" ] || run systemctl "$@"; }

write() {  # file, mode: what it reads becomes that file, if it is not that already
  if [ -n "$dry" ]; then cat >/dev/null; echo "+ write $1"; return; fi
  mkdir -p "${1%/*}"
  (umask 077; cat > "$1.new")
  chmod "$2" "$1.new"
  mv "$1.new" "$1"
}

check() {
  if [ ! -f "$tree/run.sh" ] || [ ! -d "$tree/webui" ]; then die "$tree: 不是完整的程序 · is not the whole program"; fi
  command -v "$python" >/dev/null || die "请安装 Python 3.11 以上 · install Python 3.11 or newer"
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    die "需要 Python 3.11 以上(可设 PYTHON=/usr/bin/python3.12) · Python 3.11 or newer is needed (you may set PYTHON=...)"
  # The service sees no home of anybody's.
  case "$("$python" -c 'import os, sys; print(os.path.realpath(sys.base_prefix))')/" in
    /home/*|/root/*|/run/user/*) [ -n "$root" ] ||
      die "这个 Python 在用户目录里,服务看不到:请用系统的 · this Python is in somebody's home, which the service cannot see: PYTHON=/usr/bin/python3" ;;
  esac
  [ -n "$root" ] || command -v systemctl >/dev/null || die "这里没有 systemd · there is no systemd here"
}

install_user() {
  if getent passwd "$user" >/dev/null; then return; fi
  run useradd --system --user-group --comment "$whose" --home-dir "$state" --no-create-home --shell /usr/sbin/nologin "$user"
}

# Before there was this script, the program itself lay there.
set_old_aside() {
  [ -e "$base/webui" ] || return 0
  local aside
  aside=$base.before-$(date +%Y%m%d%H%M%S)
  say "! 原来手工安装的程序移到 $aside · what was installed by hand is moved there"
  service stop awportrait-edge.service
  run mv "$base" "$aside"
}

install_program() {
  local words=()
  [ -z "$kind" ] || words+=("--$kind")
  [ -z "$wheelhouse" ] || export STUDIO_WHEELHOUSE=$wheelhouse
  set_old_aside
  run install -d -m 755 "$base"
  if [ -z "$root" ] && [ -e "$base/current/run.sh" ]; then
    run "$base/run.sh" update "$tree" ${words[@]+"${words[@]}"}
  else
    [ -n "$kind" ] || [ -e "$base/current/run.sh" ] || words+=(--edge)
    [ -z "$root" ] || words+=(--untried)
    run env -C "$tree" "$python" -B -m webui.update --root "$base" update "$tree" ${words[@]+"${words[@]}"}
  fi
  run ln -sfn current/run.sh "$base/run.sh"
  # Files have the context of the folder that they were made in; here that of /opt is wanted.
  if [ -z "$root" ] && command -v selinuxenabled >/dev/null && selinuxenabled; then run restorecon -R "$base"; fi
}

unit_here() {  # the unit as this machine can start it: systemd starts nothing with a group that is missing
  if getent group render >/dev/null; then cat "$tree/deploy/systemd/awportrait-edge.service"
  else sed 's/^SupplementaryGroups=render$/#&/' "$tree/deploy/systemd/awportrait-edge.service"; fi
}

install_settings() {
  [ ! -e "$settings" ] || return 0
  write "$settings" 640 <<'TEXT'
# 设置,一行一个;全部设置见 /opt/awportrait-edge/run.sh help。改后:systemctl restart awportrait-edge
# Settings, a line each; run.sh help lists them all. Then: systemctl restart awportrait-edge
#STUDIO_PORT=7860
#STUDIO_PASSWORD=
TEXT
  [ -n "$root" ] || run chgrp "$user" "$settings"
}

start() {  # "new" or "changed": what the unit is; "": as it was
  [ -z "$root" ] || return 0
  if [ -n "$1" ]; then run systemctl daemon-reload; fi
  if [ "$1" = new ]; then
    run systemctl enable --quiet awportrait-edge.service
    say "  启动 starting …"
    # A processor that is too old is no failure for systemd (ExecCondition=), but nothing runs.
    run systemctl restart awportrait-edge.service || true
    run systemctl is-active --quiet awportrait-edge.service || die "没有启动 · it did not start: journalctl -u awportrait-edge"
  elif [ "$1" = changed ]; then
    run systemctl try-restart awportrait-edge.service
  fi
}

install_all() {
  check
  [ -n "$root" ] || install_user
  install_settings
  install_program
  local how=new
  if [ -e "$unit" ]; then how=changed; if unit_here | cmp -s - "$unit"; then how=""; fi; fi
  [ -z "$how" ] || unit_here | write "$unit" 644
  if grep -qs "/opt/awportrait-edge/\.venv" "$unit".d/*.conf; then
    say "! 请改掉 · change: $unit.d: /opt/awportrait-edge/.venv… → /opt/awportrait-edge/current/venv"
  fi
  start "$how"
  [ -z "$kiosk" ] || "$tree/deploy/kiosk/install.sh" ${dry:+--dry-run}
  say "✓ 程序 program: $base   设置 settings: $settings   数据 data: $state"
  say "  状态 status: systemctl status awportrait-edge   更新 update: $base/run.sh update FILE"
}

uninstall_all() {
  local home ours
  home=$(grep -hs "^\(Environment=\)\?STUDIO_HOME=" "$settings" "$unit".d/*.conf | tail -n 1 || true)
  ours=$(getent passwd "$user" | cut -d: -f5 || true)
  [ ! -e "$unit" ] || service disable --now --quiet awportrait-edge.service
  run rm -f "$unit"
  service daemon-reload
  run rm -rf "$base"
  if [ -n "$purge" ]; then
    run rm -rf "$state" "$settings"
    if [ -z "$root" ] && [ "$ours" = "$whose" ]; then run userdel "$user"; fi
  else
    say "! 数据与设置留着 · data and settings stay: $state, $settings (--purge)"
  fi
  [ -z "$home" ] || say "! 这里的数据不动 · these data are not touched: ${home##*STUDIO_HOME=}"
  [ -z "$kiosk" ] || "$tree/deploy/kiosk/install.sh" --uninstall ${dry:+--dry-run}
  say "✓ 已卸载 uninstalled"
}

main() {
  while [ $# -gt 0 ]; do
    case "$1" in
      --edge) kind=edge ;;
      --full) kind=full ;;
      --kiosk) kiosk=1 ;;
      --dry-run) dry=1 ;;
      --uninstall) remove=1 ;;
      --purge) purge=1 ;;
      --wheelhouse) [ $# -gt 1 ] || die "--wheelhouse FOLDER"; wheelhouse=$2; shift ;;
      --wheelhouse=*) wheelhouse=${1#*=} ;;
      *) die "用法 Usage: install.sh [--edge|--full] [--kiosk] [--wheelhouse FOLDER] [--dry-run] | --uninstall [--purge]" ;;
    esac
    shift
  done
  [ -z "$purge" ] || [ -n "$remove" ] || die "--purge: 只与 --uninstall 一起用 · only with --uninstall"
  [ -z "$wheelhouse" ] || wheelhouse=$(cd "$wheelhouse" && pwd) || die "--wheelhouse"
  [ -n "$root" ] || [ -n "$dry" ] || [ "$(id -u)" = 0 ] || die "请用 root 运行 · run it as root: sudo deploy/systemd/install.sh"
  if [ -n "$remove" ]; then uninstall_all; else install_all; fi
}

# Read to its end before anything is done: it may be part of what it replaces.
main "$@"; exit
