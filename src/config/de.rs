//! Shapes that differ between TOML and the environment: the file has types, a variable only text.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use config::{Value, ValueKind};
use serde::de::{Deserialize, Deserializer, Error, IntoDeserializer, SeqAccess, Visitor};

/// An optional value; the empty string means "not set", so that a layer can take a value back.
pub(super) fn optional<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    match Option::<String>::deserialize(deserializer)? {
        None => Ok(None),
        Some(text) if text.trim().is_empty() => Ok(None),
        Some(text) => text.parse().map(Some).map_err(Error::custom),
    }
}

/// An address to listen on; the empty string means none.
pub(super) fn address<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SocketAddr>, D::Error> {
    optional(deserializer).map_err(|_: D::Error| {
        Error::custom(
            "expected an IP address and a port, such as \"127.0.0.1:8947\", or \"\" for none",
        )
    })
}

/// A duration with its unit, both ways.
pub(super) mod duration {
    use std::time::Duration;

    use serde::de::{Deserialize, Deserializer, Error};

    pub(in super::super) use humantime_serde::serialize;

    pub(in super::super) fn deserialize<'de, D>(deserializer: D) -> Result<Duration, D::Error>
    where
        D: Deserializer<'de>,
    {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map_err(|error| {
            let example = "write for example \"250ms\", \"60s\" or \"5m\"";
            Error::custom(format!("`{text}` is not a duration ({error}); {example}"))
        })
    }
}

/// One of a few words; the error lists them.
pub(super) fn choice<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(String::deserialize(deserializer)?.into_deserializer())
}

/// A list: an array, or text with commas. The empty text is the empty list.
pub(super) fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct List;

    impl<'de> Visitor<'de> for List {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of strings")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Vec<String>, E> {
            if text.trim().is_empty() {
                return Ok(Vec::new());
            }
            Ok(text.split(',').map(|part| part.trim().to_owned()).collect())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<String>, A::Error> {
            let mut items = Vec::new();
            while let Some(item) = seq.next_element()? {
                items.push(item);
            }
            Ok(items)
        }
    }

    deserializer.deserialize_any(List)
}

/// Server settings: a table whose values may be text, numbers or booleans.
///
/// A setting of an extension has a dot in its name. Written without quotes TOML makes a table of it
/// (`citus.shard_count = 4`), and so does the environment; both are put together again.
pub(super) fn settings<'de, D>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error>
where
    D: Deserializer<'de>,
{
    let mut flat = BTreeMap::new();
    for (name, value) in BTreeMap::<String, Value>::deserialize(deserializer)? {
        flatten(name, value, &mut flat).map_err(Error::custom)?;
    }
    Ok(flat)
}

fn flatten(
    name: String,
    value: Value,
    flat: &mut BTreeMap<String, String>,
) -> Result<(), config::ConfigError> {
    match value.kind {
        ValueKind::Table(table) => table
            .into_iter()
            .try_for_each(|(key, value)| flatten(format!("{name}.{key}"), value, flat)),
        _ => {
            flat.insert(name, value.into_string()?);
            Ok(())
        }
    }
}
