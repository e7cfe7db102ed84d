# Runs a script that was checked before: two arguments for each command, the word and what it is
# told. Nothing of the script is ever read as shell.
code=0 over='' cleaning='' cancelled=''
trap 'cancelled=1' TERM INT HUP
while [ "$#" -gt 1 ]; do
    if [ -n "$over$cancelled" ] && [ -z "$cleaning" ] && [ "$1" != cleanup ]; then
        shift 2
        continue
    fi
    case $1 in
    echo)
        printf '%s\n' "$2"
        ;;
    log)
        printf '[%s] %s\n' "$(date '+%Y-%m-%d %H:%M:%S')" "$2" >&2
        ;;
    sleep)
        # A shell hears of signals while it waits, and not while a command runs. It would tell of
        # a sleep that a stop ended. A stop goes to both, and the sleep may hear of it first.
        sleep "$2" &
        ended=0
        if [ -z "$cancelled" ] || [ -n "$cleaning" ]; then
            wait "$!" 2>/dev/null || ended=$?
        fi
        [ "$ended" -le 128 ] || cancelled=1
        if [ -n "$cancelled" ] && [ -z "$cleaning" ]; then
            kill "$!" 2>/dev/null
            wait "$!" 2>/dev/null
        fi
        ;;
    return)
        [ -z "$cleaning" ] || break
        code=$2 over=1
        ;;
    raise)
        if [ -n "$cleaning" ]; then
            [ "$code" != 0 ] || code=$2
            break
        fi
        code=$2 over=1
        ;;
    cleanup)
        # From here on only KILL ends it, when the grace is over.
        trap '' TERM INT HUP
        cleaning=1
        ;;
    esac
    shift 2
done
[ -z "$cancelled" ] || code=255
exit "$code"
