//! What Prometheus sees: typed metrics whose doc comments are the help texts.
//!
//! Nothing here is global. A [`Metrics`] belongs to one database and carries its name as the constant label
//! `database`; several of them share one registry. Labels come from the enums below, every combination exists from
//! the start with 0, and no tenant or schema name ever becomes a label: the number of series is fixed.
//!
//! ```
//! use prometheus::Registry;
//! use tenantd::metrics::{Channel, EventOutcome, Metrics, encode};
//!
//! let registry = Registry::new();
//! let metrics = Metrics::new("main", &registry)?;
//! metrics.events_total.get((Channel::DashboardLogin, EventOutcome::Queued)).inc();
//! assert!(encode(&registry).contains("tenantd_events_total"));
//! # Ok::<(), prometheus::Error>(())
//! ```

use prometheus::process_collector::ProcessCollector;
use prometheus::{Gauge, Histogram, IntCounter, IntGauge, Opts, Registry, TextEncoder};

pub use family::Family;
use family::Register;
pub use labels::{
    BrakeReason, Channel, EventOutcome, LabelSet, Reason, ReconcileOutcome, State, SweepKind,
};

mod family;
mod labels;

/// From a claimed spare (under 1 ms) to a large migration set that waits for locks.
const RECONCILE: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
];
/// From a head check of a small fleet to a full sweep of a hundred thousand schemas.
const SWEEP: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

/// Declares the struct and its constructor; field `x` becomes the metric `tenantd_x`.
macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $name:ident: $kind:ty $(= $buckets:expr)?,)+) => {
        /// The metrics of one database.
        #[derive(Clone, Debug)]
        pub struct Metrics {
            $($(#[doc = $help])+ pub $name: $kind,)+
        }

        impl Metrics {
            /// Registers every metric, all at 0.
            ///
            /// # Errors
            /// When a `Metrics` of the same database is registered already.
            pub fn new(database: &str, registry: &Registry) -> prometheus::Result<Self> {
                $(let $name = {
                    let help = concat!($($help),+).trim();
                    let opts = Opts::new(concat!("tenantd_", stringify!($name)), help)
                        .const_label("database", database);
                    let buckets: &[f64] = &[];
                    $(let buckets: &[f64] = { let _ = buckets; $buckets };)?
                    <$kind as Register>::register(registry, opts, buckets)?
                };)+
                Ok(Self { $($name,)+ })
            }
        }
    };
}

metrics! {
    /// Tenants in the registry.
    tenants: IntGauge,
    /// Tenants whose schema exists.
    schemas_existing: IntGauge,
    /// Tenants whose schema has at least one table.
    schemas_with_tables: IntGauge,
    /// Tenants whose schema exists and has no table.
    schemas_without_tables: IntGauge,
    /// Tenants by state, as the last sweep saw them.
    tenants_by_state: Family<IntGauge, State>,
    /// Tenants whose catalog differed from a fresh schema's when they were last verified.
    tenants_drifted: IntGauge,
    /// Tenants with fewer rows in tenantd.applied than files.
    tenants_unrecorded: IntGauge,
    /// Triggers that are gone, disabled or other than configured; what they tell of waits for the sweep.
    trigger_missing: IntGauge,
    /// Whether the LISTEN connection is up and notifications arrive on it (1) or not (0).
    listener_connected: IntGauge,
    /// Whether NOTIFY does not work here, so that the fleet is looked at every sweep.poll_interval instead (1) or not (0).
    listener_polling: IntGauge,
    /// How full the notification queue of the server is, from 0 to 1; at 1 no commit with a NOTIFY succeeds.
    notification_queue_usage_ratio: Gauge,
    /// Whether this daemon leads (1): it does the periodic sweeps and sets the numbers of the fleet, which are 0 with the others.
    leading: IntGauge,
    /// Tenants that wait in the queue.
    queue_depth: IntGauge,
    /// Spares that a new tenant can be given: schemas migrated ahead of need.
    spares: IntGauge,
    /// Whether a version is stopped because it failed on too many tenants (1) or none (0); `status` names it.
    breaker_open: IntGauge,
    /// Tenants that a rollout still has to bring to head.
    rollout_pending: IntGauge,
    /// Whether the fleet is paused (1): no existing schema is migrated until `tenantd resume`.
    rollout_paused: IntGauge,
    /// Tenants brought forward a second, by all daemons, over the last ten seconds.
    rollout_rate: Gauge,
    /// Seconds until the rollout is done at this rate; 0 where none runs or nothing moves.
    rollout_eta_seconds: Gauge,
    /// Whether the workers wait because the server is in trouble (1), by reason; replication_lag and waiting hold up
    /// rollouts only.
    brake: Family<IntGauge, BrakeReason>,
    /// When the last sweep succeeded, in seconds since the epoch; 0 before the first.
    sweep_last_success_timestamp_seconds: Gauge,
    /// Notifications received, by channel and by what became of them: queued, coalesced with a waiting wakeup,
    /// rerun after the one in flight, dropped because the queue is full (a sweep follows), rejected as no known tenant.
    events_total: Family<IntCounter, (Channel, EventOutcome)>,
    /// Tenants looked at, by what woke us and by the result: applied, current (nothing to do), waiting (not due yet),
    /// blocked (lock not obtained), failed, quarantined, gone (no longer registered), busy (another daemon has it),
    /// left_alone (its state needs a person).
    reconciles_total: Family<IntCounter, (Reason, ReconcileOutcome)>,
    /// Migration files applied, one for each tenant and version.
    migrations_applied_total: IntCounter,
    /// Spares given to new tenants.
    spares_claimed_total: IntCounter,
    /// Times the LISTEN connection had to be made again.
    listener_reconnects_total: IntCounter,
    /// Time from receiving a notification until the tenant is at head, by channel.
    event_to_ready_seconds: Family<Histogram, Channel> = RECONCILE,
    /// Time to reconcile one tenant.
    reconcile_duration_seconds: Histogram = RECONCILE,
    /// Time of a sweep by kind: head compares registry and ledger, full also counts tables.
    sweep_duration_seconds: Family<Histogram, SweepKind> = SWEEP,
}

/// The metrics of the process, which concern no database.
#[derive(Clone, Debug)]
pub struct ProcessMetrics {
    /// 1, with the version of tenantd as label.
    pub build_info: IntGauge,
}

impl ProcessMetrics {
    /// Registers `tenantd_build_info` and the usual `process_…` metrics.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let opts = Opts::new(
            "tenantd_build_info",
            "1, with the version of tenantd as label.",
        )
        .const_label("version", env!("CARGO_PKG_VERSION"));
        let build_info: IntGauge = Register::register(registry, opts, &[])?;
        build_info.set(1);
        registry.register(Box::new(ProcessCollector::for_self()))?;
        Ok(Self { build_info })
    }
}

/// Everything in the registry in the text format 0.0.4.
pub fn encode(registry: &Registry) -> String {
    let text = TextEncoder::new().encode_to_string(&registry.gather());
    text.unwrap_or_else(|error| format!("# tenantd cannot encode its metrics: {error}\n"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    fn fresh() -> (Registry, Metrics) {
        let registry = Registry::new();
        ProcessMetrics::new(&registry).expect("process metrics");
        let metrics = Metrics::new("main", &registry).expect("metrics");
        (registry, metrics)
    }

    #[test]
    fn every_series_of_the_contract_starts_at_zero() {
        let text = encode(&fresh().0);
        let ours = text.lines().filter(|line| line.starts_with("tenantd_"));
        let (info, ours): (Vec<_>, Vec<_>) = ours.partition(|line| line.contains("build_info"));
        assert_eq!(
            info,
            [format!(
                "tenantd_build_info{{version=\"{}\"}} 1",
                env!("CARGO_PKG_VERSION")
            )]
        );
        for line in &ours {
            assert!(
                line.ends_with(" 0") && line.contains("database=\"main\""),
                "{line}"
            );
        }
        let count = |name: &str| {
            let start = format!("tenantd_{name}{{");
            ours.iter().filter(|line| line.starts_with(&start)).count()
        };
        for name in [
            "tenants",
            "schemas_existing",
            "schemas_with_tables",
            "schemas_without_tables",
            "tenants_drifted",
            "tenants_unrecorded",
            "trigger_missing",
            "listener_connected",
            "listener_polling",
            "notification_queue_usage_ratio",
            "leading",
            "queue_depth",
            "spares",
            "spares_claimed_total",
            "breaker_open",
            "rollout_pending",
            "rollout_paused",
            "rollout_rate",
            "rollout_eta_seconds",
            "sweep_last_success_timestamp_seconds",
            "migrations_applied_total",
            "listener_reconnects_total",
            "reconcile_duration_seconds_count",
        ] {
            assert_eq!(count(name), 1, "{name}");
        }
        assert_eq!(count("tenants_by_state"), 14);
        assert_eq!(count("brake"), 8);
        assert_eq!(count("events_total"), 3 * 5);
        assert_eq!(count("reconciles_total"), 5 * 9);
        assert_eq!(count("event_to_ready_seconds_count"), 3);
        assert_eq!(count("sweep_duration_seconds_count"), 2);
        assert!(ours.len() <= 250, "{} series", ours.len());
    }

    #[test]
    fn each_label_combination_counts_for_itself() {
        let (registry, metrics) = fresh();
        for (number, labels) in <(Reason, ReconcileOutcome)>::all().into_iter().enumerate() {
            metrics.reconciles_total.get(labels).inc_by(number as u64);
        }
        metrics.tenants_by_state.get(State::Refused).set(7);
        let text = encode(&registry);
        let line =
            r#"tenantd_reconciles_total{database="main",outcome="left_alone",reason="login"} 8"#;
        assert!(text.contains(line), "{text}");
        let line =
            r#"tenantd_reconciles_total{database="main",outcome="left_alone",reason="sweep"} 44"#;
        assert!(text.contains(line), "{text}");
        assert!(text.contains(r#"tenantd_tenants_by_state{database="main",state="refused"} 7"#));
    }

    #[test]
    fn databases_share_a_registry_and_one_database_registers_once() {
        let (registry, _metrics) = fresh();
        let second = Metrics::new("shard \"2\"", &registry).expect("another database");
        second.tenants.set(3);
        assert!(Metrics::new("main", &registry).is_err());
        assert!(encode(&registry).contains(r#"tenantd_tenants{database="shard \"2\""} 3"#));
    }

    #[test]
    fn promtool_finds_nothing_to_say() {
        let command = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut promtool = command.expect("promtool is missing: apt-get install prometheus");
        let mut input = promtool.stdin.take().expect("stdin");
        input
            .write_all(encode(&fresh().0).as_bytes())
            .expect("write");
        drop(input);
        let output = promtool.wait_with_output().expect("wait");
        let said = [output.stdout, output.stderr].concat();
        assert!(
            output.status.success() && said.is_empty(),
            "{}",
            String::from_utf8_lossy(&said)
        );
    }
}
