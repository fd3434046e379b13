//! Names, payloads and connection strings that somebody made up.

use tenantd::{
    config,
    fleet::Registry,
    pg::{conninfo, ident::Ident},
};

use super::CANARY;
use crate::support::App;

const NAMES: usize = 10_000;

/// How many inputs a parser gets: a few in the suite, a million from `make security`.
fn inputs() -> usize {
    std::env::var("FUZZ_INPUTS").map_or(20_000, |text| text.parse().unwrap())
}

/// Texts of up to `longest` of these pieces and of characters from everywhere, the same in each run.
fn hostile(pieces: &'static [&str], longest: u64) -> impl Iterator<Item = String> {
    let mut state = 42_u64;
    // splitmix64: fast without optimisation, and good enough.
    let mut below = move |limit: u64| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 29)) % limit
    };
    std::iter::repeat_with(move || {
        let mut text = String::new();
        for _ in 0..below(longest) {
            match below(4) {
                0 => text.extend(char::from_u32(below(0x11_0000) as u32)),
                _ => text.push_str(pieces[below(pieces.len() as u64) as usize]),
            }
        }
        text
    })
}

#[tokio::test]
async fn ten_thousand_hostile_names_come_back_from_the_catalog_as_they_were() {
    let app = App::bare("hostile names").await;
    let pieces = &[
        "\"", "'", "\\", ";", "$", "$$", "%", "{schema}", ".", "/*", "--", " ", "\n", "\t", "a",
        "A", "é", "DROP", "pg_",
    ];
    // A name is 1 to 63 bytes without a zero, and pg_ is the server's.
    let mut names: Vec<_> = hostile(pieces, 16)
        .filter(|name| {
            (1..=63).contains(&name.len()) && !name.starts_with("pg_") && !name.contains('\0')
        })
        .take(2 * NAMES)
        .collect();
    names.sort();
    names.dedup();
    names.truncate(NAMES);
    assert_eq!(names.len(), NAMES);
    let mut sql = "BEGIN; CREATE TABLE public.before AS SELECT oid FROM pg_namespace;".to_owned();
    for name in &names {
        sql.push_str(&format!("CREATE SCHEMA {};\n", Ident(name)));
    }
    app.sql.batch_execute(&sql).await.unwrap();
    let sql =
        "SELECT nspname::text FROM pg_namespace WHERE oid NOT IN (SELECT oid FROM public.before)
               ORDER BY nspname COLLATE \"C\"";
    let rows = app.sql.query(sql, &[]).await.unwrap();
    let kept: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(kept, names);
    app.run("ROLLBACK").await;
}

#[tokio::test]
async fn whatever_a_notification_carries_is_an_id_or_is_rejected() {
    let app = App::bare("payloads").await;
    app.run("CREATE TABLE public.u (id uuid); CREATE TABLE public.t (id text)")
        .await;
    for (table, anything) in [("tenants", false), ("u", false), ("t", true)] {
        let registry = config::Registry {
            table: format!("public.{table}").parse().unwrap(),
            ..config::Config::default().registry
        };
        let registry = Registry::open(&app.sql, &registry).await.unwrap();
        let pieces = &[
            "0",
            "1",
            "9",
            "-",
            "a",
            "f",
            "18446744073709551616",
            "\0",
            "\n",
            " ",
            "'",
            "{",
            "{\"a\":",
            "123e4567-e89b-12d3-a456-426614174000",
        ];
        for payload in hostile(pieces, 40).take(inputs() / 3 + 1) {
            let Some(id) = registry.parse_id(&payload) else {
                continue;
            };
            let plain = id
                .bytes()
                .all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
            assert!(
                plain || anything && id == payload,
                "{payload:?} became {id:?}"
            );
        }
        assert_eq!(
            registry.parse_id(&"1".repeat(257)),
            None,
            "longer than 256 bytes"
        );
        assert_eq!(registry.parse_id(&"x".repeat(256)).is_some(), anything);
        assert_eq!(registry.parse_id(""), None);
    }
}

#[test]
fn no_connection_string_makes_the_parser_panic_or_quote_a_password() {
    let pieces = &[
        "postgres://",
        "app",
        ":Kanarienvogel@",
        "password=Kanarienvogel",
        "host=",
        "port=",
        "user",
        "sslmode=",
        "require",
        ":",
        "@",
        "/",
        "?",
        "&",
        "=",
        "%",
        "%41",
        "'",
        "\\",
        " ",
        "[::1]",
        "5432",
        ",",
        "db",
    ];
    for text in hostile(pieces, 12).take(inputs()) {
        // A target shows user, database and host, wherever they were written; an error shows no value.
        if let Err(error) = conninfo::resolve(Some(&text), &|_| None) {
            let said = format!("{error} {error:?}");
            assert!(!said.contains(CANARY), "{text:?} is told as {said:?}");
        }
    }
}
