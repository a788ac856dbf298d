//! The files that a program is made of.

use crate::module::{Module, parse};
use crate::resolve::{NOTHING, Resolver};
use crate::{BundleError, SOURCE_BYTES_MAX, Served, TOTAL_BYTES_MAX};
use oxc_allocator::Allocator;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

/// More files than any vat has.
const MODULES_MAX: usize = 10_000;

/// Where a request leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    /// The module with this index.
    File(usize),
    /// The served module with this index.
    Served(usize),
    /// Nothing, and the `require` stays as it is: it will throw.
    Nothing,
}

/// All files from the entry on.
pub(crate) struct Graph<'a> {
    /// The entry is the first.
    pub(crate) modules: Vec<Module<'a>>,
    /// For each module, where its requests lead.
    pub(crate) targets: Vec<Vec<Target>>,
    pub(crate) served: &'a [Served],
}

/// Whether the entry is a module of JavaScript that imports nothing but what is served.
pub(crate) fn stands_alone(entry: &Path, served: &[Served]) -> Result<bool, BundleError> {
    let allocator = Allocator::default();
    let mut reader = Reader::new(entry)?;
    if reader.entry.extension().is_some_and(|extension| extension != "js" && extension != "mjs") {
        return Ok(false);
    }
    let text = reader.read(&reader.entry.clone())?;
    // Whatever is wrong with it is told by whoever looks closer.
    Ok(crate::module::imports_only(&allocator, &text, served))
}

/// Reads the entry and all that it leads to.
pub(crate) fn load<'a>(
    allocator: &'a Allocator,
    entry: &Path,
    served: &'a [Served],
) -> Result<Graph<'a>, BundleError> {
    let mut reader = Reader::new(entry)?;
    let mut resolver = Resolver::default();
    let mut paths: Vec<PathBuf> = vec![reader.entry.clone()];
    let mut indices: BTreeMap<PathBuf, usize> = BTreeMap::from([(reader.entry.clone(), 0)]);
    let mut modules: Vec<Module<'a>> = Vec::new();
    let mut targets = Vec::new();
    while let Some(path) = paths.get(modules.len()).cloned() {
        let text = if path.ends_with(NOTHING) { String::new() } else { reader.read(&path)? };
        let by_package = resolver.is_module_package(&path);
        let module = parse(allocator, &path, &reader.shown(&path), &text, by_package)?;
        let mut leads = Vec::with_capacity(module.links.requests.len());
        for (number, request) in module.links.requests.iter().enumerate() {
            let serving = served.iter().position(|one| one.name == request.specifier);
            let has_all = |index: usize| {
                let exports = &served[index].exports;
                module.links.names_wanted(number).all(|name| exports.iter().any(|own| own == name))
            };
            if let Some(index) = serving.filter(|index| has_all(*index)) {
                leads.push(Target::Served(index));
                continue;
            }
            // The package itself, where it is installed, has what the runtime's module of its name lacks.
            let found = resolver.find(&path, &request.specifier, request.asker);
            match (&found, serving) {
                (Err(_), Some(index)) => {
                    leads.push(Target::Served(index));
                    continue;
                }
                (Err(_), None) if request.optional => {
                    leads.push(Target::Nothing);
                    continue;
                }
                (Ok(_), _) | (Err(_), None) => {}
            }
            let found = found.map_err(|why| {
                module.error(request.span, format!("cannot import {:?}: {why}", request.specifier))
            })?;
            let next = paths.len();
            let index = *indices.entry(found.clone()).or_insert(next);
            if index == next {
                paths.push(found);
            }
            leads.push(Target::File(index));
        }
        if paths.len() > MODULES_MAX {
            return Err(reader.error(&path, format!("more than {MODULES_MAX} files")));
        }
        modules.push(module);
        targets.push(leads);
    }
    Ok(Graph { modules, targets, served })
}

/// Reads sources, and not too much.
struct Reader {
    entry: PathBuf,
    left: u64,
}

impl Reader {
    fn new(entry: &Path) -> Result<Reader, BundleError> {
        let canonical = entry.canonicalize();
        let canonical = canonical.map_err(|why| BundleError {
            file: entry.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            position: None,
            message: why.to_string(),
        })?;
        Ok(Reader { entry: canonical, left: TOTAL_BYTES_MAX })
    }

    /// The path as errors and maps show it: relative to the entry's directory, with slashes.
    fn shown(&self, path: &Path) -> String {
        let base: Vec<Component<'_>> = self.entry.parent().into_iter().flat_map(Path::components).collect();
        let parts: Vec<Component<'_>> = path.components().collect();
        let common = base.iter().zip(&parts).take_while(|(a, b)| a == b).count();
        let up = std::iter::repeat_n("..".to_owned(), base.len() - common);
        let down = parts[common..].iter().map(|part| part.as_os_str().to_string_lossy().into_owned());
        up.chain(down).collect::<Vec<_>>().join("/")
    }

    fn error(&self, path: &Path, message: impl Into<String>) -> BundleError {
        BundleError { file: self.shown(path), position: None, message: message.into() }
    }

    fn read(&mut self, path: &Path) -> Result<String, BundleError> {
        let mut text = String::new();
        // Before it is opened: opening a pipe would wait for its writer.
        let regular = std::fs::metadata(path).and_then(|metadata| {
            if metadata.is_file() { Ok(()) } else { Err(std::io::Error::other("not a regular file")) }
        });
        let opened = regular.and_then(|()| File::open(path));
        let read = opened.and_then(|file| file.take(SOURCE_BYTES_MAX + 1).read_to_string(&mut text));
        let bytes = read.map_err(|why| self.error(path, why.to_string()))? as u64;
        if bytes > SOURCE_BYTES_MAX {
            return Err(self.error(path, format!("longer than {SOURCE_BYTES_MAX} bytes")));
        }
        self.left = self.left.checked_sub(bytes).ok_or_else(|| {
            self.error(path, format!("with it the sources are longer than {TOTAL_BYTES_MAX} bytes together"))
        })?;
        Ok(text)
    }
}
