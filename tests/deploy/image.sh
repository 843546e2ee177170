#!/usr/bin/env bash
# Builds what deploy/Dockerfile builds, without docker, and runs it much as the image does: in an empty root file system,
# as another user, without shell and libraries. Needs root (for chroot and mounts) and takes as long as a release build.
#
# Usage: tests/deploy/image.sh [BINARY]     with a static binary that is there already, nothing is built
set -euo pipefail
cd "$(dirname "$0")/../.."

fail() { echo "FAIL  $*"; exit 1; }
ok() { echo "ok    $*"; }

target=x86_64-unknown-linux-gnu
if [ $# -gt 0 ]; then
  binary=$1
else
  # The very command of the Dockerfile.
  command=$(sed -n 's/^RUN \(RUSTFLAGS=.* cargo build .*\) \\$/\1/p' deploy/Dockerfile)
  [ -n "$command" ] || fail "deploy/Dockerfile has no build command"
  TARGET=$target bash -c "$command"
  binary=${CARGO_TARGET_DIR:-target}/$target/release/valetkey
fi
# ldd says "statically linked" or "not a dynamic executable", with different exit codes.
linked=$(ldd "$binary" 2>&1 || true)
[[ $linked == *"statically linked"* || $linked == *"not a dynamic"* ]] || fail "it is not static: $linked"
ok "the binary is static, $(stat --format %s "$binary") bytes"

root=$(mktemp -d)
server= sidecar=
cleanup() {
  for process in $server $sidecar; do kill "$process" 2>/dev/null || true; done
  wait
  umount "$root/proc" "$root"/dev/* 2>/dev/null || true
  rm -rf --one-file-system "$root"
}
trap cleanup EXIT
chmod 755 "$root"
mkdir -p "$root"/{proc,dev,etc/ssl/certs,etc/valetkey,data}
cp "$binary" "$root/valetkey"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
chown 64888 "$root/data"
# What every container has (OCI runtime specification, "Default Filesystems" and "Default Devices").
mount -t proc proc "$root/proc"
for device in null random urandom; do
  touch "$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done

run() { chroot --userspec=64888:64888 "$root" /valetkey "$@"; }

run --version >/dev/null && ok "it runs without libraries, as another user"

cat > "$root/etc/valetkey/policy.toml" <<'POLICY'
version = 1
[credentials.api]
source = "file"
path = "/data/key"
hosts = ["api.valetkey.test"]
[services.api]
hosts = ["api.valetkey.test"]
credential = "api"
slots = ["bearer"]
[[services.api.scopes]]
name = "read"
risk = "low"
allow = ["GET /{*path}"]
[agents.worker]
identity = ["any"]
grants = { api = ["read"] }
[minters.root]
identity = ["uid:0"]
agents = ["worker"]
may = ["mint"]
POLICY
echo "sk_live_0123456789abcdef" > "$root/data/key"
chmod 444 "$root/data/key"

# Names are resolved by the C library that is linked in: a DNS server of our own sees whether it asks.
python3 - "$root/asked" <<'PYTHON' &
import socket, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.53", 53))
while True:
    packet, client = server.recvfrom(512)
    end = packet.index(0, 12)
    question = packet[12:end + 5]
    is_a = question[-4:-2] == b"\0\1"
    # 192.0.2.1 is for documentation: it is judged, and refused.
    answer = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xc0\0\2\1" if is_a else b""
    server.sendto(packet[:2] + b"\x81\x80\0\1" + (b"\0\1" if is_a else b"\0\0") + b"\0\0\0\0" + question + answer, client)
    open(sys.argv[1], "a").write(packet[13:13 + packet[12]].decode() + "\n")
PYTHON
server=$!
echo "nameserver 127.0.0.53" > "$root/etc/resolv.conf"

chroot --userspec=64888:64888 "$root" /valetkey serve --policy /etc/valetkey/policy.toml --listen 127.0.0.1:0 --admin 127.0.0.1:0 \
  --control /data/run/control.sock --control-group 64888 --ca-dir /data/ca --ca-publish /data/public --ready-file /data/ready.json --audit - \
  > "$root/audit.jsonl" 2> "$root/stderr.log" &
sidecar=$!
for _ in $(seq 300); do [ -s "$root/data/ready.json" ] && break; sleep 0.1; done
[ -s "$root/data/ready.json" ] || { cat "$root/stderr.log"; fail "it was not ready"; }
ok "it starts in an empty root file system"
[ "$(grep -c 'BEGIN CERTIFICATE' "$root/data/public/ca-bundle.pem")" -gt 50 ] || fail "the bundle has no public roots"
ok "it has public roots"

body='{"agent":"worker","task":"t","service":"api","scope":"read"}'
nonce=$(curl -fsS --unix-socket "$root/data/run/control.sock" --json "$body" http://localhost/v1/nonces | sed 's/.*"nonce":"\([^"]*\)".*/\1/')
proxy=$(sed 's/.*"proxy":"\([^"]*\)".*/\1/' "$root/data/ready.json")
said=$(curl -sS --max-time 30 --proxy "http://$proxy" --cacert "$root/data/public/ca.pem" -H "Authorization: Bearer $nonce" https://api.valetkey.test/x)
[[ $said == *address_forbidden* ]] || { cat "$root/stderr.log"; fail "it did not judge the address: $said"; }
grep -q api "$root/asked" || fail "it did not ask the DNS server"
ok "it resolves names by DNS, and judges their addresses"

kill "$sidecar"
wait "$sidecar" || fail "it ended with $?"
sidecar=
ok "it ends well"
echo "6 passed, 0 failed, 0 skipped"
