# The batch system of a machine without one, in POSIX sh:  sh -c TEXT hpcnb-job HOME VERB ARGUMENTS
#
# Each job has a supervisor, alone in its session, which starts the job's script in a second session, waits for it,
# clears what it left, and writes how it ended. Needs Linux (/proc) and setsid of util-linux 2.32.
#
#   HOME/jobs/TOKEN       who the job is; comes into being once and complete, by a link
#   HOME/jobs/TOKEN.why   why it was told to end, or not to begin; the first word counts
#   HOME/jobs/TOKEN.exit  its exit status, and that word; written last

umask 077
home=${1:-${HPCNB_HOME:-$HOME/.hpcnb}} verb=$2
shift 2
jobs=$home/jobs
grace=5
host=$(uname -n)
read -r boot </proc/sys/kernel/random/boot_id

refuse() {
    printf '%s\n' "$1" >&2
    exit 3
}

uptime() { read -r up rest </proc/uptime; echo "${up%%.*}"; }

# When a process began, in ticks since boot. Together with its number this tells it from a later one; a zombie is none.
born() {
    { read -r line <"/proc/$1/stat"; } 2>/dev/null || return 1
    set -- ${line##*) }
    [ "$1" != Z ] || return 1
    shift 19
    echo "$1"
}

lives() { [ -n "$2" ] && [ "$(born "$1")" = "$2" ]; }

# The processes of a session. Its number is free for others only when the last of them has gone, so that a later
# session with that number is known by its leader.
members() {
    session=$1
    found=$(born "$1") && [ "$found" != "$2" ] && return
    for stat in /proc/[0-9]*/stat; do
        { read -r line <"$stat"; } 2>/dev/null || continue
        set -- "${line%% *}" ${line##*) }
        [ "$5" != "$session" ] || [ "$2" = Z ] || echo "$1"
    done
}

send() {
    name=$1
    shift
    for pid in "$@"; do kill -s "$name" "$pid" 2>/dev/null; done
}

# End a session: the polite signal, some time, the other signal until nobody is left.
finish() {
    [ -n "$2" ] || return
    send TERM $(members "$@")
    deadline=$(($(uptime) + grace))
    while left=$(members "$@") && [ -n "$left" ]; do
        now=$(uptime)
        [ "$now" -lt "$deadline" ] || send KILL $left
        [ "$now" -lt "$((deadline + grace))" ] || return
        sleep 0.1
    done
}

record() {
    leader='' began='' supervisor='' since=''
    { read -r leader began supervisor since end there bootid <"$jobs/$1"; } 2>/dev/null
}

because() { (set -C && echo "$2" >"$jobs/$1.why") 2>/dev/null; }

submit() {
    text=$1 token=$2 script=$3 directory=$4 log=$5
    mkdir -p "$jobs" || exit 3
    [ ! -e "$jobs/$token" ] || return 0
    [ -f "$script" ] || refuse "there is no file $script"
    [ -d "$directory" ] || refuse "there is no directory $directory"
    (: >>"$log") || exit 3
    chmod u+x "$script" || exit 3
    forget
    shift
    setsid -f sh -c "$text" hpcnb-job "$home" supervise "$text" "$@" </dev/null >/dev/null 2>&1 ||
        refuse "setsid --fork does not work: it needs util-linux 2.32 or newer"
    tries=500
    while [ ! -e "$jobs/$token" ]; do
        [ "$tries" -gt 0 ] || exit 5
        tries=$((tries - 1))
        sleep 0.02
    done
}

# What has ended a month ago is no longer remembered.
forget() {
    find "$jobs" -name '*.exit' -mtime +30 | while read -r old; do
        rm -f "${old%.exit}" "${old%.exit}.why" "$old"
    done
}

# The script runs in the foreground: sh starts what is in the background with SIGINT ignored, and Python keeps that.
supervise() {
    text=$1 token=$2 script=$3 log=$5 end=$(($(uptime) + $6))
    cd "$4" || exit
    limit "$token" "$end" &
    setsid sh -c "$text" hpcnb-job "$home" lead "$token" "$script" "$log" "$$" "$(born $$)" "$end"
    status=$?
    trap '' TERM
    kill -s TERM 0
    record "$token"
    [ "$supervisor $since" = "$$ $(born $$)" ] || exit
    finish "$leader" "$began"
    why=''
    read -r why <"$jobs/$token.why"
    echo "$status $why" >"$jobs/$token.exit.new" && mv -f "$jobs/$token.exit.new" "$jobs/$token.exit"
}

lead() {
    echo "$$ $(born $$) $4 $5 $6 $host $boot" >"$jobs/$1.$$" && ln "$jobs/$1.$$" "$jobs/$1"
    won=$?
    rm -f "$jobs/$1.$$"
    [ "$won" = 0 ] || exit
    export HPCNB_JOB_ID="$1"
    exec "$2" >>"$3" 2>&1
}

limit() {
    while left=$(($2 - $(uptime))) && [ "$left" -gt 0 ]; do
        # Often enough, since a sleeping machine's seconds count, but not to sleep.
        sleep "$((left < 60 ? left : 60))"
        # Nobody is left, and a supervisor that was killed could not say so.
        ! record "$1" || [ -n "$(members "$leader" "$began")" ] || exit
    done
    because "$1" TIMEOUT
    until record "$1"; do sleep 0.1; done
    finish "$leader" "$began"
}

# Submit a job, from inside of one, that is to begin when this one has ended, however that is; prints its id.
follow() {
    token=$(tr -d - </proc/sys/kernel/random/uuid)
    setsid -f sh -c "$1" hpcnb-job "$home" after "$HPCNB_JOB_ID" "$token" "$@" </dev/null >/dev/null 2>&1 || exit 3
    echo "$token"
}

after() {
    record "$1"
    text=$3 token=$2
    shift 3
    while lives "$supervisor" "$since" && [ ! -e "$jobs/$token.why" ]; do sleep 0.5; done
    [ ! -e "$jobs/$token.why" ] || exec rm -f "$jobs/$token.why"
    submit "$text" "$token" "$@"
}

# Let a job that is to follow another one not begin.
withdraw() { [ -e "$jobs/$1" ] || because "$1" CANCELLED; }

list() {
    [ -d "$jobs" ] || refuse "there is no directory $jobs"
    for job; do
        if [ ! -e "$jobs/$job" ]; then echo "$job gone"
        elif ! record "$job"; then echo "$job unreadable"
        elif ended "$job"; then :
        elif [ "$there" != "$host" ]; then echo "$job elsewhere $there"
        elif [ "$bootid" != "$boot" ]; then echo "$job rebooted $there"
        elif lives "$leader" "$began"; then echo "$job running $there $((end - $(uptime)))"
        elif lives "$supervisor" "$since"; then echo "$job completing $there"
        else ended "$job" || echo "$job vanished $there"
        fi
    done
}

ended() {
    { read -r status why <"$jobs/$1.exit"; } 2>/dev/null && echo "$1 ended $there $status $why"
}

cancel() {
    text=$1
    shift
    for job; do
        record "$job" || continue
        [ ! -e "$jobs/$job.exit" ] || continue
        [ "$there" = "$host" ] || refuse "job $job runs on $there, and this is $host"
        [ "$bootid" = "$boot" ] || continue
        because "$job" CANCELLED
        setsid -f sh -c "$text" hpcnb-job "$home" finish "$leader" "$began" </dev/null >/dev/null 2>&1
    done
}

find_job() { [ ! -e "$jobs/$1" ] || echo "$1"; }

case $verb in
submit | supervise | lead | follow | after | withdraw | list | cancel | finish) "$verb" "$@" ;;
find) find_job "$@" ;;
*) refuse "there is no verb $verb" ;;
esac
