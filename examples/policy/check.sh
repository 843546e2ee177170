#!/bin/sh
# Runs the cases, and sees that they find a policy that allows too much. Prints `N passed, N failed, N skipped`.
set -u
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
unset VALETKEY_POLICY
passed=0 failed=0

# The exit code that is expected, what it shows, then the command.
expect() {
  wanted=$1 name=$2
  shift 2
  "$VALETKEY_BINARY" policy "$@" >"$work/out" 2>&1
  if [ $? -eq "$wanted" ]; then
    passed=$((passed + 1)) && echo "ok: $name"
  else
    failed=$((failed + 1)) && echo "FAILED: $name" && cat "$work/out"
  fi
}

policy="$here/../python/policy.toml"
sed 's/\["read:customers"\]/["read:customers", "write:refunds"]/' "$policy" >"$work/wide.toml"
expect 0 "the policy says what the cases expect" test "$here/cases.toml"
expect 1 "a policy that allows refunds does not" test "$here/cases.toml" --policy "$work/wide.toml"
expect 1 "and differs" diff "$policy" "$work/wide.toml" --exit-code
expect 0 "from itself nothing differs" diff "$policy" "$policy" --exit-code

echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
