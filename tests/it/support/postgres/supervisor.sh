# Owns one throw-away cluster: makes it, runs commands from stdin (one a line), removes it when stdin closes.
# Arguments: the binary directory, then lines for postgresql.conf. Answers go to stdout, one line a command.
# TENANTD_PG_DIR: a directory that is there already; TENANTD_PG_PRIMARY: the server to be a standby of.
# PIPE is ignored: an answer to a dead parent must not end us before the clean-up. Another signal ends `read`.
umask 077; cd /; trap '' PIPE; trap : HUP INT TERM
bin=$1; shift; postmaster=
dir=${TENANTD_PG_DIR:-$(mktemp -d /tmp/tenantd-pg-XXXXXX)} || exit 1
running() { read -r _ _ state _ 2>/dev/null <"/proc/$1/stat" && [ "$state" != Z ]; }
stop() {
    [ -n "$postmaster" ] || return 0
    kill -QUIT "$postmaster"
    rounds=0
    while running "$postmaster"; do
        rounds=$((rounds + 1))
        if [ $rounds -gt 250 ]; then
            kill -KILL "$postmaster" $(cat "/proc/$postmaster/task/$postmaster/children")
            break
        fi
        sleep 0.02
    done
    wait "$postmaster"; postmaster=
}
echo "directory $dir"
# The packages of fetch-postgres have no pg_basebackup; a copy between start and stop of a backup is one too.
copy_primary() {
    mkdir -m 700 "$dir/data"
    psql -XAtq -v ON_ERROR_STOP=1 -d "$TENANTD_PG_PRIMARY dbname=postgres" <<EOF || return
SELECT current_setting('server_version_num')::int < 150000 AS old, current_setting('data_directory') AS source \gset
\if :old
SELECT pg_start_backup('standby', true, false) \g /dev/null
\else
SELECT pg_backup_start('standby', true) \g /dev/null
\endif
\setenv SOURCE :source
\! cp -R "\$SOURCE/." "$dir/data"
\if :old
SELECT labelfile FROM pg_stop_backup(false, false) \g $dir/data/backup_label
\else
SELECT labelfile FROM pg_backup_stop(false) \g $dir/data/backup_label
\endif
EOF
    rm -f "$dir/data/postmaster.pid"
    echo "primary_conninfo = '$TENANTD_PG_PRIMARY'" >>"$dir/data/postgresql.auto.conf"
    : >"$dir/data/standby.signal"
}
create() {
    programs=$(dirname "$(readlink -f "$bin/postgres")")
    if [ -n "$TENANTD_PG_PRIMARY" ] && [ -x "$programs/pg_basebackup" ]
    then "$programs/pg_basebackup" -R -X stream -c fast -D "$dir/data" -d "$TENANTD_PG_PRIMARY"
    elif [ -n "$TENANTD_PG_PRIMARY" ]
    then copy_primary
    else "$bin/initdb" -N -E UTF8 --no-locale -A trust -U postgres -D "$dir/data" ${TENANTD_PG_DIR:+-X "$dir/wal"}
    fi
}
if create </dev/null >"$dir/log" 2>&1
then printf '%s\n' "$@" >>"$dir/data/postgresql.conf"; echo initialised
else echo failed
fi
while read -r command port; do
    case $command in
        start)
            stop
            "$bin/postgres" -D "$dir/data" -k "$dir" -p "$port" </dev/null >>"$dir/log" 2>&1 &
            postmaster=$!; echo "started $postmaster" ;;
        stop-immediate) stop; echo stopped ;;
    esac
done
stop
rm -rf "$dir"
