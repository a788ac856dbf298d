//! From a vat's sources to one program (04 §4, §9): TypeScript and JavaScript with everything they import, in process.
//!
//! [`bundle`] reads the entry and, from file to file, what it imports; takes the types out; and writes one strict script
//! in which the top-level names of all modules share one scope. Names that would meet are renamed, and nothing else of
//! the sources is changed. CommonJS files become functions that run at their first `require`. What the vat runtime
//! itself serves stays outside and is asked for by name.
//!
//! **Invariant:** the same files give the same bundle, wherever they lie.
//! **Invariant:** nothing of the sources is executed.

mod depth;
mod emit;
mod graph;
mod link;
mod module;
mod names;
mod resolve;

use std::path::Path;
use std::thread;

/// The deepest program that is parsed fits in this. Memory is taken only as used.
const STACK_BYTES: usize = 512 << 20;

/// The longest source, bytes.
pub const SOURCE_BYTES_MAX: u64 = 16 << 20;
/// All sources of a program together, bytes.
pub const TOTAL_BYTES_MAX: u64 = 32 << 20;

/// A module that the vat runtime serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// What imports call it.
    pub name: String,
    /// What it exports.
    pub exports: Vec<String>,
}

/// A program made of sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// A strict script that declares `__vatExports__`. It calls `__vatImports__(name)` for each of `external`.
    pub code: String,
    /// What the entry exports; nothing is known of an entry in CommonJS.
    pub exports: Vec<String>,
    /// The served modules that it needs.
    pub external: Vec<String>,
    /// The source map of `code`, JSON; paths are relative to the entry's directory.
    pub source_map: String,
}

/// Why sources do not become a program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", self.place())]
pub struct BundleError {
    /// The file, relative to the entry's directory.
    pub file: String,
    /// Line and column of it, from 1; columns count UTF-16 code units.
    pub position: Option<(usize, usize)>,
    /// What is wrong there.
    pub message: String,
}

impl BundleError {
    fn place(&self) -> String {
        match self.position {
            Some((line, column)) => format!("{}:{line}:{column}", self.file),
            None => self.file.clone(),
        }
    }
}

/// Whether a source has to be bundled: it is TypeScript, or imports more than what is served. A source that need not be
/// is run as it is.
///
/// # Errors
/// It does not parse.
pub fn needs_bundling(entry: &Path, served: &[Served]) -> Result<bool, BundleError> {
    deep(entry, |entry| graph::stands_alone(entry, served).map(|alone| !alone))
}

/// Bundles a source with all that it imports. Blocks.
///
/// # Errors
/// The first thing wrong with the sources, with its place: a file that cannot be read or does not parse, an import that
/// leads nowhere, a name that is not exported, what no vat can do.
pub fn bundle(entry: &Path, served: &[Served]) -> Result<Bundle, BundleError> {
    deep(entry, |entry| {
        let allocator = oxc_allocator::Allocator::default();
        let graph = graph::load(&allocator, entry, served)?;
        let plan = link::link(&graph)?;
        Ok(emit::emit(&allocator, graph, plan))
    })
}

/// Runs on a thread whose stack is deep enough for any source.
fn deep<T: Send>(
    entry: &Path,
    run: impl FnOnce(&Path) -> Result<T, BundleError> + Send,
) -> Result<T, BundleError> {
    let failed = |message: &str| BundleError {
        file: entry.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        position: None,
        message: message.to_owned(),
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("bundler".to_owned()).stack_size(STACK_BYTES);
        let running = thread.spawn_scoped(scope, || run(entry));
        let running = running.map_err(|why| failed(&format!("the system gave no thread: {why}")))?;
        running.join().unwrap_or_else(|_| Err(failed("the bundler failed on it")))
    })
}
