# `make demo` shows the main job, `make test` passes the tests; both install what they need.
CARGO ?= cargo
# The PostgreSQL versions of `make test-matrix`
PG ?= 14 15 16 17 18
# Tests wait for servers more than they work
export RUST_TEST_THREADS ?= 5

.PHONY: help demo test test-matrix faults kill-matrix security bench bench-quick bench-peers lint postgres promtool pgbouncer

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

demo: postgres ## Show the main job on a throw-away PostgreSQL (ONCE=1: end by itself)
	$(CARGO) build --release --bin tenantd --example demo
	target/release/examples/demo $(if $(ONCE),--once)

test: postgres promtool pgbouncer ## Run the tests on throw-away PostgreSQL servers, without those of minutes
	$(CARGO) test -- --skip slow::

faults: postgres promtool pgbouncer ## Run every test, the slow ones too, and write docs/faults.md
	rm -rf target/faults && mkdir -p target/faults
	TENANTD_FAULTS=$(CURDIR)/target/faults $(CARGO) test --test it | tee target/faults/results.txt
	$(CARGO) run --quiet --example faults_table target/faults

test-matrix: postgres promtool pgbouncer ## Run the integration tests on PostgreSQL 14 to 18 (PG="14 18": on these)
	@CARGO="$(CARGO)" scripts/test-matrix $(PG)

security: postgres ## Check what docs/security.md promises, one line a check
	@CARGO="$(CARGO)" tests/security.sh

kill-matrix: postgres ## Kill daemons and backends 400 times (TENANTD_SEED=n: as that time)
	$(CARGO) test --test it kill_matrix::slow -- --nocapture

bench: postgres ## Measure against bare SQL on one private cluster, and write docs/benchmark.md
	$(CARGO) bench --bench ratios

bench-quick: postgres ## The same in two minutes, with a small fleet, into target/bench
	BENCH_QUICK=1 BENCH_TENANTS=$(or $(BENCH_TENANTS),500) BENCH_OUT=$(or $(BENCH_OUT),target/bench) $(CARGO) bench --bench ratios

bench-peers: postgres ## Install the tools people use today under target/peers and measure them, into the same page
	CARGO="$(CARGO)" scripts/bench-peers
	BENCH_PARTS=new-tenant,claim,peers $(CARGO) bench --bench ratios

lint: ## What CI demands of the text
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --document-private-items

postgres: # A server's programs, without a running server
	@scripts/need postgresql /usr/lib/postgresql/*/bin/postgres postgres

promtool:
	@scripts/need prometheus /usr/bin/promtool promtool

pgbouncer:
	@scripts/need pgbouncer /usr/sbin/pgbouncer pgbouncer
