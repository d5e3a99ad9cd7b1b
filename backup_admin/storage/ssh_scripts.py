"""What runs on the far host: a POSIX shell, nothing of ours is installed there.

The scripts are constants without a quote or an exclamation mark in them, so that the login shell
of the far user, whichever it is, hands them to `sh` as they are. The folder and the names come in by
standard input, where no shell reads them as anything but data.
"""

from __future__ import annotations

READY, ABSENT, NONE, DONE, END = "ready", "absent", "none", "done", "."

# What a login shell of the far user may have set for `ls` and would make rows nobody can read.
_UNSET = "CDPATH TIME_STYLE QUOTING_STYLE BLOCK_SIZE BLOCKSIZE LS_BLOCK_SIZE POSIXLY_CORRECT"
_BEGIN = f"umask 077; set -f; LC_ALL=C; export LC_ALL; unset {_UNSET}; IFS= read -r d; "
_ENTER = (
    'cd -- "$d" 2>/dev/null || { echo absent; cat >/dev/null; exit 0; }; '
    "case $d in /*) ;; *) d=$(pwd -P);; esac; "
)
# A `sync` that knows no files syncs all; one that fails at the disk must not pass for that.
_SYNC = (
    's() { e=$(sync "$1" 2>&1) || case $e in *nput/output*|*o?space*|*uota*) echo "$e" >&2; exit 1;; '
    "*) sync || exit 1;; esac; }; "
)
_PARENT = 'p=.; case $n in */*) p=${n%/*}; mkdir -p -- "$p" || exit 1;; esac; '
_SIZE = 'set -- $(ls -dnL -- "$f"); '
# Only what is said not to be there is not there: a folder that cannot be searched may hold it.
_UNSEEN = (
    'elif e=$(ls -d -- "$f" 2>&1); then echo none; '
    'else case $e in *o?such?file*|*ot?a?directory*) echo none;; *) echo "$e";; esac; fi'
)
_UNREAD = '{ [ -f "$f" ] && echo cannot be read there >&2; exit 1; }'
_LINK = (
    'if e=$(ln -- "$f" "$n" 2>&1); then s "$p"; echo stored; '
    'elif [ -e "$n" ]; then if cmp -s -- "$f" "$n"; then s "$p"; echo same; else echo exists; fi; '
)

# Answers one question a line; a part is read in blocks of the size that stands there. `ls -dn` is the only
# portable way to a size that reads no content.
ANSWERING = (
    f"{_BEGIN}{_ENTER}echo ready; "
    'while read -r op f a b c; do [ -d "$d" ] || { echo absent; exit 0; }; case $op in '
    f'size|read) if [ -f "$f" ]; then {_SIZE}echo "f $5"; '
    "[ $op = size ] || [ $((a * c)) -ge $5 ] || "
    f'dd if="$f" bs=$c skip=$a count=$b 2>/dev/null || {_UNREAD}; {_UNSEEN};; '
    'remove) if [ -d "$f" ] || e=$(rm -f -- "$f" 2>&1); then echo done; else echo "$e"; fi;; '
    'list) [ -d "$f" ] && find "$f" -name ".tmp-*" -prune -o -type f -exec ls -dn {} + 2>&1; echo .;; '
    'left) find . -path "./.tmp-*" -type f -exec ls -dn {} + 2>&1; echo .;; '
    'clear) if e=$(rm -rf -- "$f" 2>&1); then echo done; else echo "$e"; fi;; '
    "time) date -u +%Y%m%d%H%M%S;; "
    "free) df -Pk . | tail -n 1;; "
    "esac; done"
)

# Takes one object by standard input: lines with its name, a temporary name, its size and how to
# publish it, then its bytes.
PUTTING = (
    f"{_BEGIN}{_SYNC}IFS= read -r n; IFS= read -r f; read -r size how; {_ENTER}"
    'if [ $how = new ] && [ -e "$n" ]; then cat >/dev/null; echo exists; exit 0; fi; '
    f'{_PARENT}cat >"$f" || {{ rm -f -- "$f"; exit 1; }}; '
    f'{_SIZE}[ "$5" = $size ] || {{ rm -f -- "$f"; echo short; exit 0; }}; s "$f"; '
    'if [ $how = over ]; then mv -f -- "$f" "$n" || { rm -f -- "$f"; exit 1; }; '
    's "$p"; echo stored; exit 0; fi; '
    f'{_LINK}else rm -f -- "$f"; echo "no link: $e" >&2; exit 1; fi; rm -f -- "$f"'
)

# Takes one large object in the same way, into a temporary folder: what a link that was cut leaves there
# is where rsync goes on.
STREAMING = (
    f"{_BEGIN}{_SYNC}IFS= read -r t; IFS= read -r n; read -r size; {_ENTER}"
    f'{_PARENT}mkdir -p -- "$t" || exit 1; f=$t/0; cat >"$f" || {{ rm -rf -- "$t"; exit 1; }}; '
    f'{_SIZE}[ "$5" = $size ] || {{ echo short; exit 0; }}; s "$f"; '
    f'{_LINK}else rm -rf -- "$t"; echo "no link: $e" >&2; exit 1; fi; rm -rf -- "$t"'
)

# Publishes what rsync left in a temporary folder: a line `file size name` for each object.
PUBLISHING = (
    f"{_BEGIN}{_SYNC}IFS= read -r t; {_ENTER}"
    f"while read -r f size n; do f=$t/$f; {_PARENT}"
    f'{_SIZE}if [ "$5" = $size ]; then s "$f"; {_LINK}else echo "no link: $e" >&2; exit 1; fi; '
    'else echo short; fi; done; rm -rf -- "$t"'
)

MAKING = f'{_BEGIN}mkdir -p -- "$d" && echo done'

LOOKING = f'{_BEGIN}if [ -d "$d" ]; then echo done; else echo none; fi'


def command_of(script: str) -> str:
    """Return the command that a login shell of any kind hands to a POSIX shell."""
    return f"exec sh -c '{script}'"
