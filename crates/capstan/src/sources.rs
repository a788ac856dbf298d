//! From the file of a vat to its program (04 §4, §9).

use crate::cluster::{percent_decoded, read_text};
use crate::error::{CliError, Code};
use capstan_bundle::{Bundle, BundleError, Served, needs_bundling};
use capstan_host::{fetch_code, served_modules};
use capstan_model::vat::{CodeFormat, VatCode};
use serde_json::{Value as Json, json};
use std::path::{Path, PathBuf};

/// What follows a source's name to call its bundle.
pub(crate) const BUNDLE_EXTENSION: &str = "bundle";

/// Where a program is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    File(PathBuf),
    /// `http:` or `https:`.
    Web(String),
    /// `data:`, here decoded.
    Here(String),
}

/// Reads the program at a place. Blocks.
pub(crate) fn program_at(format: CodeFormat, place: &Place) -> Result<VatCode, CliError> {
    match place {
        Place::File(path) => program(format, path),
        Place::Here(text) => Ok(VatCode { format, name: "data.bundle".into(), text: text.as_str().into() }),
        Place::Web(url) => {
            let text = fetch_code(url).map_err(|why| CliError::new(Code::LaunchFailed, why))?;
            let path = url.split(['?', '#']).next().unwrap_or_default();
            let name = path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("web.bundle");
            Ok(VatCode { format, name: name.into(), text: text.into() })
        }
    }
}

/// The text in a `data:` URL.
pub(crate) fn data_of(url: &str) -> Option<String> {
    let (kind, data) = url.strip_prefix("data:")?.split_once(',')?;
    let data = percent_decoded(data)?;
    let bytes = if kind.ends_with(";base64") { base64_decoded(&data)? } else { data };
    String::from_utf8(bytes).ok()
}

fn base64_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for digit in text.trim_ascii_end().iter().filter(|byte| !byte.is_ascii_whitespace() && **byte != b'=') {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0x3fff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    Some(bytes)
}

/// Reads the program at a path. A source is bundled if it has to be; one that imports only what the runtime serves is
/// run as it is. Blocks.
fn program(format: CodeFormat, path: &Path) -> Result<VatCode, CliError> {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into();
    let text = read_text(path)?;
    if format == CodeFormat::Module && needs_bundling(path, &served()).map_err(|error| told(path, &error))? {
        let text = bundle(path)?.into();
        return Ok(VatCode {
            format: CodeFormat::Bundle,
            name: name(&path.with_extension(BUNDLE_EXTENSION)),
            text,
        });
    }
    Ok(VatCode { format, name: name(path), text: text.into() })
}

/// Bundles a source: the JSON text that a file called `.bundle` has. Blocks.
pub(crate) fn bundle(source: &Path) -> Result<String, CliError> {
    read_text(source)?;
    let bundle = capstan_bundle::bundle(source, &served()).map_err(|error| told(source, &error))?;
    let Bundle { code, exports, external, source_map } = bundle;
    let source_map: Json = serde_json::from_str(&source_map)
        .map_err(|error| CliError::internal(format!("the source map of {}: {error}", source.display())))?;
    let document = json!({"moduleFormat": "iife", "code": code, "exports": exports, "external": external,
        "sourceMap": source_map});
    Ok(document.to_string())
}

fn served() -> Vec<Served> {
    let texts = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
    served_modules()
        .map(|(name, exports)| Served { name: name.to_owned(), exports: texts(exports) })
        .collect()
}

/// The files of an error are relative to the entry's directory; users are told where they are.
fn told(entry: &Path, error: &BundleError) -> CliError {
    let file = entry.parent().unwrap_or(Path::new("")).join(&error.file);
    let place = match error.position {
        Some((line, column)) => format!("{}:{line}:{column}", file.display()),
        None => file.display().to_string(),
    };
    CliError::new(Code::LaunchFailed, format!("{place}: {}", error.message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_text_in_either_form() {
        for (url, text) in [
            ("data:,a%20b", Some("a b")),
            ("data:application/json;base64,eyJhIjoi4oKsIn0=", Some("{\"a\":\"\u{20ac}\"}")),
            ("data:;base64,eA==", Some("x")),
            ("data:;base64,", Some("")),
            ("data:;base64,e-", None),
            ("data:text", None),
            ("data:,%zz", None),
            ("data:,%ff", None),
        ] {
            assert_eq!(data_of(url).as_deref(), text, "{url}");
        }
    }
}
