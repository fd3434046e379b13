#!/usr/bin/env bash
# security.sh [BINARY]: checks what docs/security.md promises, one line a check, on a throw-away PostgreSQL with a real
# daemon. Without BINARY the debug build is used. What is a test of the suite is called by its name.
# The numbers are those of the project's security checklist.
set -uo pipefail
cd "$(dirname "$0")/.."
CARGO=${CARGO:-cargo}
passed=0 failed=0
dir=$(mktemp -d /tmp/tenantd-security-XXXXXX)
daemon='' postmaster=''
finish() {
    [[ -z $daemon ]] || { kill -KILL "$daemon"; wait "$daemon"; } 2>/dev/null
    [[ -z $postmaster ]] || { kill -QUIT "$postmaster"; wait "$postmaster"; } 2>/dev/null
    rm -rf "$dir"
}
trap finish EXIT
die() { echo "security.sh: $*" >&2; exit 2; }

# check NUMBER WHAT COMMAND...: ok when the command ends with 0, else its output follows.
check() {
    local number=$1 what=$2
    shift 2
    if "$@" >"$dir/said" 2>&1; then
        passed=$((passed + 1)); printf '%-4s ok      %s\n' "$number" "$what"
    else
        failed=$((failed + 1)); printf '%-4s FAILED  %s\n' "$number" "$what"
        tail -n 15 "$dir/said" | sed 's/^/        /'
    fi
}
is() { [[ $1 == "$2" ]] || { echo "found: $1"; echo "expected: $2"; return 1; }; }
none() { local found; found=$("$@"); [[ -z $found ]] || { echo "$found"; return 1; }; }
# Every name must be that of a test that ran and passed.
tests() {
    local target=(--test it)
    [[ $1 != --lib ]] || { target=(--lib); shift; }
    "$CARGO" test -q "${target[@]}" -- --exact "$@" | tee "$dir/tests" || return 1
    grep -q "^test result: ok. $# passed" "$dir/tests" || { echo "expected $# tests: $*"; return 1; }
}

# --- What can be read -------------------------------------------------------------------------------------------------
unit=systemd/tenantd.service
no_session_path() { grep -rnE 'SET search_path' src --include=*.rs --include=*.sql | grep -vE 'LOCAL|SECURITY DEFINER SET search_path = pg_catalog, pg_temp|/check/|/keeps_name.rs:'; }
quoting_elsewhere() { grep -rnE 'escape_(identifier|literal)' src | grep -v '^src/pg/ident.rs'; }
names_unquoted() { grep -rnE '"[^"]*(CREATE|ALTER|DROP|GRANT|REVOKE|COMMENT ON) [A-Z ]*\\"\{' src | grep -v '^src/error.rs'; }
unit_keys() {
    for key in DynamicUser=yes NoNewPrivileges=yes CapabilityBoundingSet= ProtectSystem=strict PrivateTmp=yes PrivateDevices=yes \
        'RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6' SystemCallFilter=@system-service MemoryDenyWriteExecute=yes \
        LoadCredential= Type=notify WatchdogSec= LimitCORE=0; do
        grep -q "^$key" $unit || { echo "$key is missing"; return 1; }
    done
}
# The program of the unit is not installed here.
verify() { sed "s|^ExecStart=[^ ]*|ExecStart=/bin/true|" $unit >"$dir/tenantd.service" && none systemd-analyze verify --man=no "$dir/tenantd.service"; }
ends_sessions() { grep -rnE 'pg_(terminate|cancel)_backend' src migrations; }
unsafe_code() { grep -q '^unsafe_code = "forbid"' Cargo.toml && [[ -f Cargo.lock ]] && ! grep -q Cargo.lock .gitignore && none grep -rnE '\bunsafe (\{|fn|impl)' src; }

check S4 'no session-wide search_path is set in src' none no_session_path
check S6 'names and literals are quoted in src/pg/ident.rs only' none quoting_elsewhere
check S6 'no statement has a name between quotes of its own' none names_unquoted
check S20 "the unit has every hardening key and no core file" unit_keys
check S24 'Cargo.lock is kept, unsafe code is forbidden' unsafe_code
check S28 'no SQL of ours ends or cancels a session' none ends_sessions
scripts/need systemd systemd-analyze >/dev/null
check S19 'systemd-analyze security: exposure at most 2.0' systemd-analyze security --offline=true --threshold=20 $unit
check S20 'systemd-analyze verify has nothing to say' verify

# --- Dependencies -----------------------------------------------------------------------------------------------------
deny=target/tools/bin/cargo-deny
if [[ ! -x $deny ]]; then
    echo 'installing cargo-deny into target/tools (some minutes)'
    "$CARGO" install -q cargo-deny --version 0.20.2 --locked --debug --root target/tools
fi
check S22 'cargo deny: bans (with the floors of the driver), licences, sources' $deny --log-level error check bans licenses sources
echo 'S22  open    advisories: their database needs the internet; run `cargo deny check advisories`'

# --- Tests of the suite -----------------------------------------------------------------------------------------------
"$CARGO" build -q && "$CARGO" test -q --no-run || die 'the tests do not build'
check S2 'tests: least rights, a listener that may only connect' tests security::rights::what_install_grants_is_no_more_than_the_daemon_needs roles::an_ordinary_role_that_install_prepared_can_run_the_daemon
check S3 'test: needless powers and planters are warned about by name' tests security::rights::the_daemon_warns_about_needless_powers_and_about_those_who_may_plant_objects
check S4 'tests: planted functions are not called, a file cannot leave its path' tests security::rights::what_somebody_planted_in_a_tenants_schema_or_in_public_is_not_called faults::lifecycle::what_a_tenants_role_plants_in_its_schema_or_in_public_never_runs_as_the_migrator apply::a_file_that_leaves_its_search_path_or_role_is_refused
check S6 'test: 10 000 hostile names come back from pg_namespace' tests security::input::ten_thousand_hostile_names_come_back_from_the_catalog_as_they_were
FUZZ_INPUTS=1000000 check S7 'tests: 1 000 000 payloads and as many connection strings' tests security::input::whatever_a_notification_carries_is_an_id_or_is_rejected security::input::no_connection_string_makes_the_parser_panic_or_quote_a_password
if grep -q '^mod tls;' tests/it/main.rs; then
    check S8 'tests: TLS to the right server only (S8, S9, S10)' "$CARGO" test -q --test it -- tls::
else
    echo 'S8   open    TLS (S8, S9, S10): tests/it/tls.rs is not there yet'
fi
check S11 'test: a password file that others may read is not read' tests --lib pg::conninfo::tests::a_password_file_that_others_may_read_is_ignored_with_a_warning
check S11 'test: a readable configuration file with a password is warned about' tests security::privacy::a_configuration_file_with_a_password_that_everybody_may_read_is_warned_about
check S12 'test: a canary password at trace level, in every wrong place' tests passwords::a_password_is_asked_for_and_never_shown
check S13 'test: rows of customers are in no log and not in the ledger' tests security::privacy::what_customers_wrote_is_in_no_log_and_not_in_the_ledger
check S14 'test: loopback by default, a warning otherwise' tests security::network::an_address_that_others_reach_is_warned_about_and_the_default_is_not_one
check S16 'test: 500 slow clients, 1 MB of head, idle ones; 99th percentile of a scrape' tests security::network::five_hundred_slow_clients_a_huge_head_and_idle_ones_cost_a_scrape_nothing
check S17 'test: no tenant in the metrics, as many series at 10 and 210 tenants' tests security::privacy::metrics_name_no_tenant_and_do_not_grow_with_the_fleet
check S21 'test: a database that is away is no reason for the watchdog' tests http::readiness_follows_the_database_and_liveness_does_not
check S21 'test: loops that hang and threads that are blocked are one' tests stop::slow::a_daemon_that_hangs_tells_systemd_no_longer_that_it_lives
check S23 'test: a hostile server costs an error and no memory' tests security::network::a_hostile_server_costs_an_error_and_no_memory
check S25 'tests: servers that are too old or have known holes' tests --lib pg::server::tests::a_server_before_14_is_refused_by_name pg::server::tests::a_minor_with_known_holes_is_warned_about_and_others_are_not
check S26 'tests: migrations that others may write, links that lead out' tests --lib migrations::directory::tests::a_directory_or_file_that_others_may_write_is_refused migrations::directory::tests::a_group_may_write_only_where_it_is_the_owners_own migrations::directory::tests::a_link_may_not_lead_out_of_the_directory
check S27 'test: the ledger says who, what and when, and files cannot change it' tests security::rights::the_ledger_says_who_applied_which_file_when_and_the_files_role_cannot_change_that
check S28 'test: a session that shares our name is not ended' tests security::rights::a_session_that_only_shares_our_name_is_never_ended

# --- A real daemon ----------------------------------------------------------------------------------------------------
program=$(realpath "${1:-target/debug/tenantd}")
bin=${TENANTD_PG_BIN:-$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)}
[[ -x $bin/initdb ]] || die 'no PostgreSQL server: set TENANTD_PG_BIN'
command -v psql >/dev/null || die 'no psql'
as=()
[[ $(id -u) != 0 ]] || { as=(setpriv --reuid postgres --regid postgres --clear-groups); mkdir "$dir/pg"; chown postgres "$dir/pg"; chmod 755 "$dir"; }
mkdir -p "$dir/pg"
(cd / && "${as[@]}" "$bin/initdb" -N -E UTF8 --no-locale --auth-local trust --auth-host scram-sha-256 -U postgres -D "$dir/pg/data") >"$dir/said" 2>&1 || die "$(cat "$dir/said")"
port=$((20000 + RANDOM % 20000))
(cd / && exec "${as[@]}" "$bin/postgres" -D "$dir/pg/data" -k "$dir/pg" -p $port -c listen_addresses=127.0.0.1 -c fsync=off) >"$dir/pg.log" 2>&1 &
postmaster=$!
sql() { psql -X -A -t -q -h "$dir/pg" -p $port -U "${as_role:-postgres}" -d app -c "$1"; }
for _ in {1..100}; do psql -X -q -h "$dir/pg" -p $port -U postgres -d postgres -c 'CREATE DATABASE app' 2>/dev/null && break; sleep 0.1; done
canary=Kanarienvogel$RANDOM customer=Kunde$RANDOM
sql "REVOKE CREATE ON SCHEMA public FROM PUBLIC;
     CREATE TABLE tenants (id bigint PRIMARY KEY, name text); CREATE ROLE web LOGIN; GRANT SELECT, INSERT ON tenants TO web;
     CREATE ROLE owner; CREATE ROLE tenantd LOGIN PASSWORD '$canary'" || die 'no database'
mkdir -p "$dir/set"
echo 'CREATE TABLE items (id bigint PRIMARY KEY);' >"$dir/set/0001_items.sql"
(umask 077; echo "127.0.0.1:$port:app:tenantd:$canary" >"$dir/pgpass")
cat >"$dir/tenantd.toml" <<TOML
[database]
url = "host=127.0.0.1 port=$port dbname=app user=tenantd"
[registry]
name_column = "name"
[schema]
usage = ["web"]
[migrations]
dir = "$dir/set"
role = "owner"
[http]
listen = "127.0.0.1:0"
[log]
level = "trace"
TOML
run() { env -i PATH="$PATH" TENANTD_CONFIG="$dir/tenantd.toml" PGPASSFILE="$dir/pgpass" "$program" "$@"; }
run install --role tenantd -d "host=$dir/pg port=$port dbname=app user=postgres" >"$dir/said" 2>&1 || die "$(cat "$dir/said")"
env -i PATH="$PATH" TENANTD_CONFIG="$dir/tenantd.toml" PGPASSFILE="$dir/pgpass" "$program" run >"$dir/daemon.log" 2>&1 &
daemon=$!
url=''
for _ in {1..100}; do
    url=$(sed -n 's|.*serving \(http://[^/]*\)/.*|\1|p' "$dir/daemon.log")
    [[ -n $url ]] && curl -sf "$url/readyz" >/dev/null && break
    sleep 0.1
done
as_role=web sql "INSERT INTO tenants VALUES (1, '$customer')"
for _ in {1..100}; do [[ $(sql "SELECT tenantd.ready('1')") == t ]] && break; sleep 0.1; done
curl -s "$url/metrics" >"$dir/metrics"

unwelcome() { for method in POST PUT DELETE PATCH OPTIONS TRACE; do curl -s -o /dev/null -w '%{http_code}\n' -X $method "$url/status?target=http://example.org"; done | sort -u; }
sources() { ss -Hltnp | grep "pid=$daemon," | awk '{print $4}' | sed 's/:[0-9]*$//' | sort -u; }
visible() { tr '\0' '\n' <"/proc/$daemon/$1" | grep -ci "$canary" || true; }
leaks() { grep "$canary" "$dir/metrics" "$dir/daemon.log"; }
steer() { for sql in "UPDATE tenantd.tenant SET held_by = 'x'" 'DELETE FROM tenantd.applied' "INSERT INTO tenantd.request (kind) VALUES ('sweep')"; do as_role=web sql "$sql" 2>/dev/null && echo "allowed: $sql"; done; true; }
check S1 "the daemon's role has no powers, and the daemon says nothing of it" is "$(sql "SELECT count(*) FROM pg_roles WHERE rolname = 'tenantd' AND (rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls OR rolreplication)") $(grep -c 'connected as role' "$dir/daemon.log")" '0 0'
check S2 'the application may use the schema of a tenant and create nothing in it' is "$(sql "SELECT has_schema_privilege('web', 'tenant_1', 'CREATE'), has_schema_privilege('web', 'tenant_1', 'USAGE')")" 'f|t'
check S3 'nobody but owners may create in public, tenantd and the tenant schemas' is "$(sql "SELECT count(*) FROM pg_namespace n, pg_roles r WHERE n.nspname ~ '^(tenant|public)' AND NOT r.rolsuper AND r.rolname NOT IN ('owner', 'tenantd', 'pg_database_owner') AND has_schema_privilege(r.oid, n.oid, 'CREATE')")" 0
check S5 'every function of the ledger but tenantd_login, which runs as its caller, has a fixed path or is bound when created; triggers are not for PUBLIC' is "$(sql "SELECT count(*) FROM pg_proc p WHERE pronamespace = 'tenantd'::regnamespace AND (prosqlbody IS NULL AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (proconfig), proname = 'tenantd_login' AND NOT prosecdef) OR prorettype = 'trigger'::regtype AND has_function_privilege('web', oid, 'EXECUTE'))")" 0
check S5 'guard, record, those of many tenants and stamp are not for PUBLIC and run as their caller' is "$(sql "SELECT count(*) FILTER (WHERE prosecdef OR has_function_privilege('web', oid, 'EXECUTE')), count(*) FROM pg_proc WHERE pronamespace = 'tenantd'::regnamespace AND proname IN ('guard', 'record', 'guard_all', 'record_all', 'stamp')")" '0|5'
check S11 'no password in /proc/PID/environ and /proc/PID/cmdline' is "$(visible environ) $(visible cmdline)" '0 0'
check S12 'no password in log and metrics at level trace' none leaks
check S14 'it listens on 127.0.0.1 only' is "$(sources)" 127.0.0.1
check S17 'no tenant name in the metrics' is "$(grep -c "$customer" "$dir/metrics")" 0
check S18 'methods other than GET and HEAD are 405, whatever the query' is "$(unwelcome)" 405
check S29 'the application cannot hold, release or ask' none steer
check S15 'documented: no TLS and no password on the HTTP port, a proxy instead' grep -q 'auth_basic_user_file' docs/security.md

echo "$passed passed, $failed failed"
[[ $failed == 0 ]]
