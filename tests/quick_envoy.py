"""Makes a copy of Envoy that compiles the filter in half the time: usage: quick_envoy.py ENVOY COPY

Envoy compiles the filter at its start, which takes 3 s of processor time. Half of that is V8's inlining of wasm functions into each
other. The end-to-end tests start some 60 Envoys, so that this is a quarter of the whole run. Envoy has no setting for V8's flags:
they are a text in its program. The copy differs from it in this text alone, and in it `--no-wasm-inlining` takes the place of the
length of stack traces. What the compiled code does is the same.

A version of Envoy that has other flags is not changed: the copy is a link to it.
"""

import os
import sys
from pathlib import Path

FLAGS = b"--no-liftoff --wasm_max_mem_pages=%u --stack-trace-limit=%u\0"
INSTEAD = b"--no-liftoff --no-wasm-inlining --wasm_max_mem_pages=%u"


def program(envoy: Path) -> Path:
    """The program itself, where `envoy` is the script of the Python package."""
    packaged = sorted(envoy.parent.parent.glob("lib/python3*/site-packages/envoy/_bin/envoy"))
    return packaged[0] if packaged else envoy


def main() -> None:
    envoy, copy = program(Path(sys.argv[1])), Path(sys.argv[2])
    content = envoy.read_bytes()
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.unlink(missing_ok=True)
    if content.count(FLAGS) != 1:
        print(f"{envoy} has other flags for V8: tests use it as it is", file=sys.stderr)
        copy.symlink_to(envoy.resolve())
        return
    unfinished = copy.with_suffix(".unfinished")
    unfinished.write_bytes(content.replace(FLAGS, INSTEAD.ljust(len(FLAGS), b"\0")))
    unfinished.chmod(0o755)
    os.replace(unfinished, copy)


if __name__ == "__main__":
    main()
