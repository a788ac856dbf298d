//! `ocap:` URLs, as far as a client must know them: their form.

/// Checks the form of an `ocap:` URL (03 A.5); the error is for people.
pub fn check(text: &str) -> Result<(), String> {
    let refuse = |why: &str| {
        let shown: String = text.chars().take(80).collect();
        Err(format!("{why}: {shown}"))
    };
    let trimmed = text.trim_matches(|c: char| c <= ' ');
    let Some((scheme, rest)) = trimmed.split_once(':') else { return refuse("unparseable URL") };
    if !scheme.eq_ignore_ascii_case("ocap") {
        return refuse("not an ocap URL");
    }
    let path = rest.split(['?', '#']).next().unwrap_or_default();
    let Some((oid, place)) = path.split_once('@') else { return refuse("bad ocap URL") };
    let host = place.split(',').next().unwrap_or_default();
    if oid.is_empty() || oid.starts_with('/') || host.is_empty() || place.contains('@') {
        return refuse("bad ocap URL");
    }
    Ok(())
}

/// Whether a text is meant as a URL rather than a kref.
pub fn looks_like_one(text: &str) -> bool {
    text.trim_start().get(..5).is_some_and(|head| head.eq_ignore_ascii_case("ocap:")) || text.contains("://")
}
