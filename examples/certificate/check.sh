#!/bin/sh
# Plays a mesh with openssl, and asks through the TLS listener with curl. Prints `N passed, N failed, N skipped`.
set -u
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d) || exit 1
sidecar=
trap '[ -z "$sidecar" ] || { kill "$sidecar"; wait "$sidecar"; }; rm -rf "$work"' EXIT
cd "$work" || exit 1
umask 022
passed=0 failed=0

# A CA; and a certificate of one, with this alternative name.
ca() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj "/CN=$1" -keyout "$1.key" -out "$1.pem" 2>/dev/null
}
leaf() {
  printf 'basicConstraints=critical,CA:false\nkeyUsage=critical,digitalSignature\nsubjectAltName=%s\n' "$3" >"$2.ext"
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/O=example" -keyout "$2.key" -out "$2.csr" 2>/dev/null
  openssl x509 -req -in "$2.csr" -CA "$1.pem" -CAkey "$1.key" -days 1 -extfile "$2.ext" -out "$2.pem" 2>/dev/null
}
ca mesh && ca elsewhere && ca entry || exit 1
leaf entry proxy DNS:localhost,IP:127.0.0.1
leaf mesh billing URI:spiffe://example.org/billing
leaf mesh other URI:spiffe://example.org/other
leaf elsewhere forged URI:spiffe://example.org/billing

sed "s|/run/spire/bundle.pem|$work/mesh.pem|" "$here/policy.toml" >policy.toml
STRIPE_RESTRICTED_KEY="rk_test_$(openssl rand -hex 20)" "$VALETKEY_BINARY" serve --policy policy.toml --ca-in-memory \
  --listen 127.0.0.1:0 --admin 127.0.0.1:0 --control "$work/run/control.sock" --audit audit.jsonl --ca-publish public \
  --listen-tls 127.0.0.1:0 --listen-tls-cert proxy.pem --listen-tls-key proxy.key --ready-file ready.json 2>log &
sidecar=$!
tries=0
while [ ! -s ready.json ]; do
  tries=$((tries + 1))
  [ "$tries" -lt 400 ] && kill -0 "$sidecar" || { cat log; exit 1; }
  sleep 0.05
done
proxy="https://$(sed 's/.*"proxy_tls":"\([^"]*\)".*/\1/' ready.json)"
nonce=$("$VALETKEY_BINARY" nonce create --quiet --control "$work/run/control.sock" --agent billing --task t --service stripe --scope read:customers) || exit 1

# What the answer has to hold, a name, then what is shown to the proxy.
expect() {
  wanted=$1 name=$2
  shift 2
  # The agent's own door, behind which is no upstream.
  curl -q -sS -v --max-time 20 --proxy "$proxy" --proxy-cacert entry.pem --cacert public/ca.pem "$@" \
    -H "Authorization: Bearer $nonce" https://valetkey.internal/v1/self >out 2>&1
  if grep -q "$wanted" out; then
    passed=$((passed + 1)) && echo "ok: $name"
  else
    failed=$((failed + 1)) && echo "FAILED: $name" && cat out
  fi
}

expect '"agent":"billing"' "its SVID proves the agent" --proxy-cert billing.pem --proxy-key billing.key
expect agent_mismatch "another agent's does not" --proxy-cert other.pem --proxy-key other.key
expect identity_refused "nor does one of another trust domain's CA" --proxy-cert forged.pem --proxy-key forged.key
expect agent_unidentified "nor does none"

echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
