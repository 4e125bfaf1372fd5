#!/usr/bin/env bash
# Throws what nobody would write at everything that reads what others wrote: fuzz.sh [SECONDS-FOR-EACH [TARGET...]]
#
# Coverage is a pass of the compiler's own and libFuzzer comes as a crate, so neither nightly nor cargo-fuzz is needed.
# With SEED=1 every run tries the same, as far as its time goes. What is found stays in fuzz/artifacts; what was learnt in
# fuzz/corpus. Without a C++ compiler it says so and passes. BUILD=only compiles the targets.
set -uo pipefail
cd "$(dirname "$0")/../fuzz"

seconds=${1:-10}
shift || true
target=$(rustc -vV | sed -n 's/^host: //p')
targets=("$@")
((${#targets[@]})) || mapfile -t targets < <(basename -s .rs $(grep -l fuzz_target! fuzz_targets/*.rs))

if ! command -v c++ >/dev/null; then
  echo "skipped: no C++ compiler, which libFuzzer needs (Debian: g++)"
  echo "0 passed, 0 failed"
  exit
fi

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-../target}/fuzz
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing"
cargo build --quiet --release --target "$target" "${targets[@]/#/--bin=}" || exit 1
[[ ${BUILD:-} != only ]] || exit 0

# Directories that the targets make are many and small.
[[ -w /dev/shm ]] && export TMPDIR=/dev/shm
passed=0 failed=0
for name in "${targets[@]}"; do
  mkdir -p "corpus/$name" "artifacts/$name"
  log=$(mktemp)
  options=(-max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -dict=dictionary -print_final_stats=1
    ${SEED:+-seed="$SEED"})
  if "$CARGO_TARGET_DIR/$target/release/$name" "${options[@]}" -artifact_prefix="artifacts/$name/" \
    "corpus/$name" "seeds/$name" >"$log" 2>&1; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    tail -40 "$log"
    echo "FAILED: $name; again: make fuzz TARGETS=$name, or give the executable the file in fuzz/artifacts/$name"
  fi
  printf '%-16s %s executions\n' "$name" "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")"
  rm -f "$log"
done
echo "$passed passed, $failed failed"
((failed == 0))
