//! The migration sets, made here so that every contender gets the same text.

/// A file's name without its ending, and its text.
pub(crate) type File = (String, String);

const TABLES: [&str; 30] = [
    "accounts",
    "addresses",
    "products",
    "categories",
    "prices",
    "stocks",
    "suppliers",
    "purchases",
    "purchase_lines",
    "orders",
    "order_lines",
    "shipments",
    "shipment_lines",
    "invoices",
    "invoice_lines",
    "payments",
    "refunds",
    "coupons",
    "reviews",
    "returns",
    "tickets",
    "messages",
    "documents",
    "projects",
    "tasks",
    "timesheets",
    "employees",
    "contracts",
    "reports",
    "audits",
];
/// Tables of the set that fleets are made with.
pub(crate) const FLEET_TABLES: usize = 20;

/// What a sign-up builds: 40 files, 30 tables with identity columns, foreign keys and indexes, about 230 relations.
pub(crate) fn sign_up() -> Vec<File> {
    let tables = TABLES.iter().enumerate().map(|(at, table)| {
        let parent = at.checked_sub(1).map(|at| TABLES[at / 2]);
        let (column, index) = parent.map_or_else(Default::default, |parent| {
            (
                format!("    {parent}_id bigint REFERENCES {parent} (id) ON DELETE CASCADE,\n"),
                format!("CREATE INDEX {table}_{parent}_id_idx ON {table} ({parent}_id);\n"),
            )
        });
        let sql = format!(
            "CREATE TABLE {table} (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
{column}    name text NOT NULL,
    status text NOT NULL DEFAULT 'new',
    amount numeric(12, 2) NOT NULL DEFAULT 0,
    details jsonb NOT NULL DEFAULT '{{}}',
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT {table}_amount_not_negative CHECK (amount >= 0)
);
{index}CREATE INDEX {table}_created_at_idx ON {table} (created_at);
"
        );
        (format!("{:04}_{table}", at + 1), sql)
    });
    let changes = (0..10).map(|at| {
        let [first, second, third] = [0, 1, 2].map(|it| TABLES[at * 3 + it]);
        let sql = format!(
            "ALTER TABLE {first} ADD COLUMN updated_at timestamptz;
ALTER TABLE {second} ADD COLUMN archived boolean NOT NULL DEFAULT false;
CREATE INDEX {first}_updated_at_idx ON {first} (updated_at);
CREATE INDEX {second}_live_idx ON {second} (id) WHERE NOT archived;
ALTER TABLE {third} ALTER COLUMN status SET DEFAULT 'draft';
"
        );
        (format!("{:04}_changes_{}", at + 31, at + 1), sql)
    });
    tables.chain(changes).collect()
}

/// What the schemas of a fleet hold: `tables` tables, two a file, each with its primary key.
pub(crate) fn fleet(tables: usize) -> Vec<File> {
    let names: Vec<_> = TABLES[..tables].iter().collect();
    let files = names.chunks(2).enumerate().map(|(at, pair)| {
        let table = |name: &&&str| {
            format!(
                "CREATE TABLE {name} (
    id bigint PRIMARY KEY,
    name varchar(80) NOT NULL,
    amount numeric(12, 2) NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now()
);
"
            )
        };
        let sql: String = pair.iter().map(table).collect();
        (format!("{:04}_{}", at + 1, pair[0]), sql)
    });
    files.collect()
}

/// A table of the fleet's set, another with each number, so that what a run adds is spread.
pub(crate) fn table(number: usize) -> &'static str {
    TABLES[number % FLEET_TABLES]
}
