//! The label sets. They are closed: adding a member is a change of the contract with dashboards and alerts.

/// The values of one label, or of two together.
pub trait LabelSet: Copy + Sized + 'static {
    /// The names of the labels.
    const NAMES: &'static [&'static str];
    /// Every member, in the order of [`LabelSet::index`].
    fn all() -> Vec<Self>;
    /// The values, in the order of the names.
    fn values(self) -> Vec<&'static str>;
    /// The place of this member in [`LabelSet::all`].
    fn index(self) -> usize;
}

macro_rules! label {
    ($(#[$doc:meta])+ $name:ident($label:literal) { $($(#[$member_doc:meta])+ $member:ident = $value:literal,)+ }) => {
        $(#[$doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$member_doc])+ $member,)+ }

        impl $name {
            /// Every member.
            pub const ALL: &'static [Self] = &[$(Self::$member,)+];

            /// The word for it in metrics, logs and JSON.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$member => $value,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl LabelSet for $name {
            const NAMES: &'static [&'static str] = &[$label];
            fn all() -> Vec<Self> { Self::ALL.to_vec() }
            fn values(self) -> Vec<&'static str> { vec![self.as_str()] }
            fn index(self) -> usize { self as usize }
        }
    };
}

label! {
    /// Where a notification came in.
    Channel("channel") {
        /// The trigger on the registry.
        TenantInserted = "tenant_inserted",
        /// The trigger on the login table, or the application itself.
        DashboardLogin = "dashboard_login",
        /// The application or the command line.
        TenantdWake = "tenantd_wake",
    }
}
label! {
    /// What became of a notification.
    EventOutcome("outcome") {
        /// The tenant was put into the queue.
        Queued = "queued",
        /// It waited there already.
        Coalesced = "coalesced",
        /// It is in flight and will be looked at once more.
        Rerun = "rerun",
        /// The queue is full; a sweep will find the tenant.
        Dropped = "dropped",
        /// The payload names no known tenant.
        Rejected = "rejected",
    }
}
label! {
    /// Why a tenant is looked at, most urgent first: the order of the work queue.
    Reason("reason") {
        /// Somebody logged in.
        Login = "login",
        /// The tenant is new.
        Insert = "insert",
        /// A person or the application asked.
        Manual = "manual",
        /// Its next attempt is due.
        Retry = "retry",
        /// A sweep found it.
        Sweep = "sweep",
    }
}
label! {
    /// The result of looking at one tenant.
    ReconcileOutcome("outcome") {
        /// Pending files were applied; it is at head.
        Applied = "applied",
        /// It was at head already.
        Current = "current",
        /// It is not due yet: a later attempt is set, or the fleet is paused.
        Waiting = "waiting",
        /// A lock was not obtained in time.
        Blocked = "blocked",
        /// An error that will be retried.
        Failed = "failed",
        /// A terminal error, or the attempts are used up.
        Quarantined = "quarantined",
        /// It is no longer in the registry.
        Gone = "gone",
        /// Another worker or daemon has it.
        Busy = "busy",
        /// Its state needs a person.
        LeftAlone = "left_alone",
    }
}
label! {
    /// The state of a tenant.
    State("state") {
        /// At head.
        Current = "current",
        /// The ledger knows versions that the set lacks.
        Ahead = "ahead",
        /// No schema yet.
        Unprovisioned = "unprovisioned",
        /// A schema without tables that was never filled.
        Empty = "empty",
        /// Files are pending.
        Behind = "behind",
        /// A lock was not obtained; the timer decides.
        Blocked = "blocked",
        /// An error with attempts left; the timer decides.
        Failed = "failed",
        /// Parked until the set changes or an operator acts.
        Quarantined = "quarantined",
        /// An applied file was changed.
        Modified = "modified",
        /// Filled by somebody else, unknown to the ledger.
        Untracked = "untracked",
        /// The ledger filled it and its tables are gone.
        Lost = "lost",
        /// Stamp and ledger differ.
        Restored = "restored",
        /// An operator holds it.
        Held = "held",
        /// Its name cannot be a schema.
        Refused = "refused",
    }
}
label! {
    /// Why the brake is on.
    BrakeReason("reason") {
        /// The disk is full.
        Disk = "disk",
        /// The lock table or the memory is.
        Memory = "memory",
        /// There is no connection left.
        Connections = "connections",
        /// The server does not answer, or is starting or stopping.
        Unreachable = "unreachable",
        /// It has become a standby.
        ReadOnly = "read_only",
        /// It refuses our password.
        Password = "password",
        /// A standby lags too far: only rollouts wait.
        ReplicationLag = "replication_lag",
        /// Too many sessions wait for locks of ours: only rollouts do too.
        Waiting = "waiting",
    }
}
label! {
    /// How thorough a sweep is.
    SweepKind("kind") {
        /// Registry against ledger.
        Head = "head",
        /// Tables, stamps and gauges too.
        Full = "full",
    }
}

impl<A: LabelSet, B: LabelSet> LabelSet for (A, B) {
    const NAMES: &'static [&'static str] = &[A::NAMES[0], B::NAMES[0]];

    fn all() -> Vec<Self> {
        let second = B::all();
        let pairs = A::all().into_iter();
        pairs
            .flat_map(|a| second.iter().map(move |&b| (a, b)))
            .collect()
    }

    fn values(self) -> Vec<&'static str> {
        [self.0.values(), self.1.values()].concat()
    }

    fn index(self) -> usize {
        self.0.index() * B::all().len() + self.1.index()
    }
}
