//! From the file of a vat to its program (04 §4, §9).

use crate::cluster::read_text;
use crate::error::{CliError, Code};
use capstan_bundle::{Bundle, BundleError, Served, needs_bundling};
use capstan_host::served_modules;
use capstan_model::vat::{CodeFormat, VatCode};
use serde_json::{Value as Json, json};
use std::path::Path;

/// What follows a source's name to call its bundle.
pub(crate) const BUNDLE_EXTENSION: &str = "bundle";

/// Reads the program at a path. A source is bundled if it has to be; one that imports only what the runtime serves is
/// run as it is. Blocks.
pub(crate) fn program(format: CodeFormat, path: &Path) -> Result<VatCode, CliError> {
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
