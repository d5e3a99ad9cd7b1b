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
_ENTER = 'cd -- "$d" 2>/dev/null || { echo absent; exit 0; }; case $d in /*) ;; *) d=$(pwd -P);; esac; '
_BAD = 'bad() { rm -rf -- "$a"; echo "$1"; exit 0; }; '
# A `sync` that knows no files syncs all; one that fails at the disk must not pass for that.
_SYNC = (
    's() { e=$(sync "$1" 2>&1) || case $e in *nput/output*|*o?space*|*uota*) bad "$e";; '
    '*) e=$(sync 2>&1) || bad "$e";; esac; }; '
)
# `head` of BusyBox calls a full disk broken, or says nothing and drops the end; `cat` says what it is.
_ROOM = (
    'room() { [ -e "$f" ] || return 0; w=$f; [ "$f" = "$a" ] || w=$a/1; '
    'e=$({ printf %99999s . | cat >>"$w"; } 2>&1) || bad "$e"; [ "$w" = "$a" ] || rm -f -- "$w"; }; '
)
_SIZE = 'set -- $(ls -dnL -- "$f"); '
# Only what is said not to be there is not there: a folder that cannot be searched may hold it.
_UNSEEN = (
    'elif e=$(ls -d -- "$f" 2>&1); then echo none; '
    'else case $e in *o?such?file*|*ot?a?directory*) echo none;; *) echo "$e";; esac; fi'
)
_UNREAD = '{ [ -f "$f" ] && echo cannot be read there >&2; exit 1; }'
# Makes an object `$n` of the file `$f`, whose folder or self is `$a`. What has another size was cut short: of
# a large object that is what rsync goes on with, so it stays. A size that `ls` did not tell is another one.
_PUBLISH = (
    f"publish() {{ {_SIZE}"
    '[ "$5" = $b ] || { room; [ "$f" = "$a" ] && rm -f -- "$a"; echo short; exit 0; }; s "$f"; '
    'p=.; case $n in */*) p=${n%/*}; e=$(mkdir -p -- "$p" 2>&1) || bad "$e";; esac; '
    'if [ $c = over ]; then e=$(mv -f -- "$f" "$n" 2>&1) || bad "$e"; s "$p"; r=stored; '
    'elif e=$(ln -- "$f" "$n" 2>&1); then s "$p"; r=stored; '
    'elif [ -e "$n" ]; then if cmp -s -- "$f" "$n"; then s "$p"; r=same; else r=exists; fi; '
    'else bad "no link: $e"; fi; rm -rf -- "$a"; echo $r; }; '
)

# Answers one question a line; a part is read in blocks of the size that stands there. `ls -dn` is the only
# portable way to a size that reads no content. The bytes of an object follow the line that puts it, and
# nothing follows them before the answer came: some programs read more than they copy. Bytes that nobody took
# would be read as questions: who cannot take them ends.
ANSWERING = (
    f"{_BEGIN}{_ENTER}{_BAD}{_SYNC}{_ROOM}{_PUBLISH}echo ready; "
    'while read -r op f a b c; do cd -- "$d" 2>/dev/null || { echo absent; exit 0; }; case $op in '
    f'size|read) if [ -f "$f" ]; then {_SIZE}echo "f $5"; '
    "[ $op = size ] || [ $((a * c)) -ge $5 ] || "
    f'dd if="$f" bs=$c skip=$a count=$b 2>/dev/null || {_UNREAD}; {_UNSEEN};; '
    'put) n=$f; f=$a; if [ $c = new ] && [ -e "$n" ]; then '
    '[ $b = 0 ] || e=$(head -c $b 2>&1 >/dev/null) || bad "$e"; echo exists; else '
    '[ $c = large ] && f=$a/0 && { e=$(mkdir -p -- "$a" 2>&1) || bad "$e"; }; '
    'm=$({ { [ $b = 0 ] || head -c $b; } >"$f"; } 2>&1) || { room; bad "$m"; }; publish; fi;; '
    "publish) n=$f; f=$a/0; publish;; "
    'remove) if [ -d "$f" ] || e=$(rm -f -- "$f" 2>&1); then echo done; else echo "$e"; fi;; '
    'list) [ -d "$f" ] && find "$f" -name ".tmp-*" -prune -o -type f -exec ls -dn {} + 2>&1; echo .;; '
    'left) find . -path "./.tmp-*" -type f -exec ls -dn {} + 2>&1; echo .;; '
    'clear) if e=$(rm -rf -- "$f" 2>&1); then echo done; else echo "$e"; fi;; '
    "time) date -u +%Y%m%d%H%M%S;; "
    "free) df -Pk . | tail -n 1;; "
    "esac; done"
)

MAKING = f'{_BEGIN}mkdir -p -- "$d" && echo done'

LOOKING = f'{_BEGIN}if [ -d "$d" ]; then echo done; else echo none; fi'


def command_of(script: str) -> str:
    """Return the command that a login shell of any kind hands to a POSIX shell."""
    return f"exec sh -c '{script}'"
