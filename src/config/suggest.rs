//! "Did you mean …?"

/// Similarity (0 to 1) from which a suggestion helps more than it puzzles.
const CLOSE_ENOUGH: f64 = 0.8;

/// The candidate most like `word`, if any is close; hyphens and case are no difference.
pub(crate) fn closest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let word = word.to_lowercase().replace('-', "_");
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&word, candidate), candidate))
        .filter(|(score, _)| *score >= CLOSE_ENOUGH)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

/// The tail of an error message: empty, or "; did you mean `candidate`?".
pub(crate) fn hint(suggestion: Option<&str>) -> String {
    suggestion.map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_key_and_a_stranger_finds_none() {
        let keys = ["interval", "full_interval", "max_rate"];
        assert_eq!(closest("intervall", keys), Some("interval"));
        assert_eq!(closest("Max-Rate", keys), Some("max_rate"));
        assert_eq!(closest("colour", keys), None);
        assert_eq!(hint(Some("x")), "; did you mean `x`?");
    }
}
