//! The URI form: `postgres://user:password@host:port,host:port/dbname?key=value&key=value`.

use super::ConninfoError;
use super::parse::Pair;

/// Reads what follows the scheme. Parts that are absent or empty give no parameter.
pub(super) fn parse(text: &str) -> Result<Vec<Pair>, ConninfoError> {
    let mut pairs = Vec::new();
    let authority_end = text.find('/').unwrap_or(text.len());
    let rest = match text[..authority_end].split_once('@') {
        Some((credentials, _)) => {
            push_credentials(credentials, &mut pairs)?;
            &text[credentials.len() + 1..]
        }
        None => text,
    };
    // A `/` or `@` in a password ends it too early, and the remainder would pass for host, port or
    // database and be printed as such. It always leaves an `@` behind.
    if rest.contains('@') {
        return Err(ConninfoError::Syntax(
            "in a URI, `@` and `/` in user, password and other values are written %40 and %2F",
        ));
    }
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, dbname) = rest.split_once('/').unwrap_or((rest, ""));
    push_hosts(authority, &mut pairs)?;
    push_decoded("dbname", dbname, &mut pairs)?;
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=').ok_or(ConninfoError::Syntax(
            "a query parameter of the URI has no `=`",
        ))?;
        pairs.push(query_parameter(decode(key)?, decode(value)?));
    }
    Ok(pairs)
}

fn push_credentials(text: &str, pairs: &mut Vec<Pair>) -> Result<(), ConninfoError> {
    let (user, password) = text.split_once(':').unwrap_or((text, ""));
    push_decoded("user", user, pairs)?;
    push_decoded("password", password, pairs)
}

fn push_decoded(key: &str, text: &str, pairs: &mut Vec<Pair>) -> Result<(), ConninfoError> {
    if !text.is_empty() {
        pairs.push(Pair::new(key, decode(text)?));
    }
    Ok(())
}

/// Reads `host:port,[::1]:port,…` into the two lists that libpq makes of it.
fn push_hosts(authority: &str, pairs: &mut Vec<Pair>) -> Result<(), ConninfoError> {
    let mut hosts = Vec::new();
    let mut ports = Vec::new();
    for item in authority.split(',') {
        let (host, port) = host_and_port(item)?;
        hosts.push(decode(host)?);
        ports.push(decode(port)?);
    }
    for (key, list) in [("host", hosts), ("port", ports)] {
        if list.iter().any(|item| !item.is_empty()) {
            pairs.push(Pair::new(key, list.join(",")));
        }
    }
    Ok(())
}

fn host_and_port(item: &str) -> Result<(&str, &str), ConninfoError> {
    let Some(body) = item.strip_prefix('[') else {
        return Ok(item.split_once(':').unwrap_or((item, "")));
    };
    let (address, after) = body.split_once(']').ok_or(ConninfoError::Syntax(
        "an IPv6 address in the URI has no closing `]`",
    ))?;
    match after.strip_prefix(':') {
        Some(port) => Ok((address, port)),
        None if after.is_empty() => Ok((address, "")),
        None => Err(ConninfoError::Syntax(
            "expected `:` or `/` after the IPv6 address in the URI",
        )),
    }
}

/// JDBC spells TLS `ssl=true`; libpq takes that in a URI as well.
fn query_parameter(key: String, value: String) -> Pair {
    if key == "ssl" && value == "true" {
        Pair::new("sslmode", "require")
    } else {
        Pair::new(key, value)
    }
}

/// Undoes percent-encoding. A `+` stays a `+`, as in libpq.
fn decode(text: &str) -> Result<String, ConninfoError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, after @ ..] = rest else {
            return Err(BAD_PERCENT);
        };
        match (hex(*high), hex(*low)) {
            (Some(high), Some(low)) if high + low > 0 => bytes.push(high * 16 + low),
            _ => return Err(BAD_PERCENT),
        }
        rest = after;
    }
    String::from_utf8(bytes)
        .map_err(|_| ConninfoError::Syntax("percent-encoded bytes in the URI are not UTF-8"))
}

const BAD_PERCENT: ConninfoError = ConninfoError::Syntax(
    "`%` in the URI must be followed by two hexadecimal digits other than 00; a percent sign is %25",
);

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        let pairs = parse(text).unwrap();
        let pairs: Vec<String> = pairs
            .iter()
            .map(|p| format!("{}={}", p.key, p.value))
            .collect();
        pairs.join(" ")
    }

    #[test]
    fn each_part_of_a_uri_becomes_a_parameter() {
        for (text, expected) in [
            ("", ""),
            ("/", ""),
            ("h", "host=h"),
            ("u@h:1/d", "user=u host=h port=1 dbname=d"),
            ("u:p%40%2f%25@h", "user=u password=p@/% host=h"),
            ("u:a:b?c@h/d", "user=u password=a:b?c host=h dbname=d"),
            ("@h", "host=h"),
            ("a:1,b,[::1]:3/d", "host=a,b,::1 port=1,,3 dbname=d"),
            ("%2Frun%2Fpg/d%20b", "host=/run/pg dbname=d b"),
            ("/d?host=/run/pg&a=b+c&", "dbname=d host=/run/pg a=b+c"),
            ("h?ssl=true", "host=h sslmode=require"),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn a_broken_uri_is_refused() {
        for text in [
            "u:p@ss@h/d",
            "u:p/ss@h/d",
            "u:p/x?y=z@h",
            "h/d?key",
            "h/%4",
            "h/%zz",
            "h/%00",
            "h/%ff",
            "[::1/d",
            "[::1]x/d",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
