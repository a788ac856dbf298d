#!/bin/sh
# Switches a rule off and checks that the test which guards it then fails: a test never seen red proves nothing.
set -eu
cd "$(dirname "$0")/.."

# The persisted incarnation is ignored: the first messages of a restarted peer are dropped as duplicates.
feature=mutant-memory-only-comparison
guard=r136_wiped_sender_is_heard_by_a_restarted_receiver

cargo test --quiet -p capstan-sim --test main -- "$guard"
cargo test --quiet -p capstan-sim --test main --features "$feature" --no-run
if cargo test --quiet -p capstan-sim --test main --features "$feature" -- "$guard" >/dev/null 2>&1; then
    echo "the mutant $feature survives: $guard does not guard anything" >&2
    exit 1
fi
echo "the mutant $feature is killed by $guard"
