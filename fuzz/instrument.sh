#!/bin/sh
# For RUSTC_WRAPPER: has the compiler count which edges are reached, for libFuzzer, in the crates that a stranger's bytes
# and calls go through. The rest (Cranelift above all) is built as usual, to keep the build short.
rustc="$1"
shift
case " $* " in
*" --target "*) ;;
# Build scripts and procedural macros.
*) exec "$rustc" "$@" ;;
esac
case " $* " in
*" --crate-name ringfence_"* | *" --crate-name upload "* | *" --crate-name boundary "* | *" --crate-name cache "* | \
    *" --crate-name wasmparser "* | *" --crate-name wasmtime "* | *" --crate-name wasmtime_environ "* | \
    *" --crate-name wasmtime_wasi "* | *" --crate-name wasmtime_wasi_io "*)
    exec "$rustc" "$@" --cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
        -Cllvm-args=-sanitizer-coverage-trace-compares
    ;;
esac
exec "$rustc" "$@"
