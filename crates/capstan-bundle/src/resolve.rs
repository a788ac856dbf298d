//! From what an import says to a file, as Node and TypeScript find it.

use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::{fs, io};

/// Tried in this order where a path has no file of its own.
const EXTENSIONS: [&str; 7] = ["ts", "mts", "js", "mjs", "cjs", "cts", "json"];
/// What TypeScript calls a file by the name of what it becomes.
const WRITTEN_AS: [(&str, &str); 3] = [("js", "ts"), ("mjs", "mts"), ("cjs", "cts")];
/// The name of a file that is not there: a module that a package does without. It exports nothing.
pub(crate) const NOTHING: &str = "(nothing).cjs";
/// The longest `package.json`, bytes.
const PACKAGE_BYTES_MAX: u64 = 4 << 20;
/// Modules of Node that packages ask for without saying so.
const NODES_OWN: [&str; 23] = [
    "assert",
    "async_hooks",
    "buffer",
    "child_process",
    "crypto",
    "dns",
    "events",
    "fs",
    "http",
    "http2",
    "https",
    "module",
    "net",
    "os",
    "path",
    "process",
    "querystring",
    "stream",
    "timers",
    "tls",
    "url",
    "util",
    "zlib",
];
/// Nested conditions and lists in one entry of a package's `exports`.
const NESTING_MAX: usize = 32;

/// Who asks: `import` and `require` see different entries of a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Asker {
    Import,
    Require,
}

/// Finds files, and remembers the packages it has read.
#[derive(Debug, Default)]
pub(crate) struct Resolver {
    packages: BTreeMap<PathBuf, Option<Map<String, Json>>>,
}

impl Resolver {
    /// Returns the file that `specifier` means in `importer`, with symbolic links followed; or a few words on why there
    /// is none.
    pub(crate) fn find(&mut self, importer: &Path, specifier: &str, asker: Asker) -> Result<PathBuf, String> {
        let beside = importer.parent().unwrap_or(Path::new("/"));
        let found = if let Some((home, target)) = self.elsewhere(beside, specifier) {
            match target {
                None => return Ok(home.join(NOTHING)),
                Some(target) if is_path(&target) => within(&home, &target),
                Some(target) => self.package(&home, &target, asker),
            }
        } else if is_path(specifier) {
            let path = tidy(&beside.join(specifier));
            self.file_or_directory(&path, asker).ok_or_else(|| "there is no such file".to_owned())
        } else if let Some(name) = specifier.strip_prefix("node:") {
            Err(format!("a vat has no modules of Node such as {name}"))
        } else if specifier.contains(':') {
            Err("only files and packages can be imported".to_owned())
        } else if specifier.starts_with('#') {
            self.private(beside, specifier, asker)
        } else {
            self.package(beside, specifier, asker)
        }?;
        let found = match self.instead(&found) {
            None => found,
            Some((home, None)) => return Ok(home.join(NOTHING)),
            Some((home, Some(target))) => within(&home, &target)?,
        };
        fs::canonicalize(&found).map_err(|error| format!("{}: {error}", found.display()))
    }

    /// What the package of an importer takes for another package where there is no Node, which may be nothing.
    fn elsewhere(&mut self, beside: &Path, specifier: &str) -> Option<(PathBuf, Option<String>)> {
        let (home, package) = self.scope(beside).filter(|_| !is_path(specifier))?;
        replaced(&package, specifier).map(|target| (home, target))
    }

    /// The file that a package has instead of this one where there is no Node, which may be none.
    fn instead(&mut self, found: &Path) -> Option<(PathBuf, Option<String>)> {
        let (home, package) = self.scope(found.parent()?)?;
        let name = found.strip_prefix(&home).ok()?.to_str()?;
        replaced(&package, &format!("./{name}")).map(|target| (home, target))
    }

    /// Whether the package that a file belongs to says that its `.js` files are ES modules.
    pub(crate) fn is_module_package(&mut self, file: &Path) -> bool {
        self.scope(file.parent().unwrap_or(Path::new("/")))
            .is_some_and(|(_, package)| package.get("type").is_some_and(|kind| kind == "module"))
    }

    fn file_or_directory(&mut self, path: &Path, asker: Asker) -> Option<PathBuf> {
        file(path).or_else(|| self.directory(path, asker))
    }

    /// The entry of a directory: of its package, or its index.
    fn directory(&mut self, path: &Path, asker: Asker) -> Option<PathBuf> {
        if !path.is_dir() {
            return None;
        }
        let package = self.read(path);
        let keys: &[&str] =
            if asker == Asker::Import { &["browser", "module", "main"] } else { &["browser", "main"] };
        let main = keys.iter().filter_map(|key| package.as_ref()?.get(*key)?.as_str());
        let entry =
            main.map(|main| tidy(&path.join(main))).find_map(|main| file(&main).or_else(|| index(&main)));
        entry.or_else(|| index(path))
    }

    /// `name`, `@scope/name`, or one of them with a path behind it.
    fn package(&mut self, beside: &Path, specifier: &str, asker: Asker) -> Result<PathBuf, String> {
        let names = if specifier.starts_with('@') { 2 } else { 1 };
        let end = specifier.match_indices('/').nth(names - 1).map_or(specifier.len(), |(at, _)| at);
        let (name, rest) = specifier.split_at(end);
        let parts: Vec<&str> = name.split('/').collect();
        if parts.len() != names || parts.iter().any(|part| part.is_empty() || part.starts_with('.')) {
            return Err("this is no name of a package".to_owned());
        }
        let subpath = format!(".{rest}");
        // A package may import itself by its own name.
        if let Some((home, package)) = self.scope(beside)
            && package.get("name").is_some_and(|own| own == name)
            && let Some(exports) = package.get("exports").cloned()
        {
            return exported(&home, &exports, &subpath, asker);
        }
        for ancestor in beside.ancestors() {
            let home = ancestor.join("node_modules").join(name);
            if !home.is_dir() {
                continue;
            }
            let exports = self.read(&home).and_then(|package| package.get("exports").cloned());
            return match exports {
                Some(exports) => exported(&home, &exports, &subpath, asker),
                None if rest.is_empty() => {
                    self.directory(&home, asker).ok_or_else(|| format!("{} has no entry", home.display()))
                }
                None => {
                    let path = tidy(&home.join(rest.trim_start_matches('/')));
                    self.file_or_directory(&path, asker)
                        .ok_or_else(|| format!("{} has no file {subpath}", home.display()))
                }
            };
        }
        if NODES_OWN.contains(&name) {
            return Err(format!("a vat has no modules of Node such as {name}"));
        }
        Err(format!("no package {name:?} in any node_modules from {} upwards", beside.display()))
    }

    /// `#name`, which a package defines for itself.
    fn private(&mut self, beside: &Path, specifier: &str, asker: Asker) -> Result<PathBuf, String> {
        let found =
            self.scope(beside).and_then(|(home, package)| Some((home, package.get("imports")?.clone())));
        let (home, imports) = found.ok_or("no package.json with \"imports\" above it")?;
        let target =
            matching(&imports, specifier, asker).ok_or("it is not among the package's \"imports\"")?;
        if is_path(&target) { within(&home, &target) } else { self.package(&home, &target, asker) }
    }

    /// The nearest directory upwards that has a `package.json`, and that.
    fn scope(&mut self, from: &Path) -> Option<(PathBuf, Map<String, Json>)> {
        from.ancestors().find_map(|home| Some((home.to_owned(), self.read(home)?)))
    }

    fn read(&mut self, home: &Path) -> Option<Map<String, Json>> {
        let read = || -> io::Result<Map<String, Json>> {
            let path = home.join("package.json");
            let metadata = fs::metadata(&path)?;
            if !metadata.is_file() || metadata.len() > PACKAGE_BYTES_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            Ok(serde_json::from_str(&fs::read_to_string(path)?)?)
        };
        self.packages.entry(home.to_owned()).or_insert_with(|| read().ok()).clone()
    }
}

/// What stands for a module where there is no Node; `None`: nothing does.
fn replaced(package: &Map<String, Json>, module: &str) -> Option<Option<String>> {
    match package.get("browser")?.get(module)? {
        Json::String(target) => Some(Some(target.clone())),
        Json::Bool(false) => Some(None),
        Json::Null | Json::Bool(true) | Json::Number(_) | Json::Array(_) | Json::Object(_) => None,
    }
}

fn is_path(specifier: &str) -> bool {
    matches!(specifier.split('/').next(), Some("" | "." | ".."))
}

/// Removes `.` and `..` by name, as import paths mean them.
fn tidy(path: &Path) -> PathBuf {
    let mut tidied = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(tidied.pop()),
            part => tidied.push(part),
        }
    }
    tidied
}

/// The file at a path, or the one that the path leaves the extension off.
fn file(path: &Path) -> Option<PathBuf> {
    if path.is_file() {
        return Some(path.to_owned());
    }
    let extension = path.extension().and_then(|extension| extension.to_str());
    let written = WRITTEN_AS.iter().find(|(becomes, _)| Some(*becomes) == extension);
    let written = written.map(|(_, source)| path.with_extension(source));
    written.filter(|path| path.is_file()).or_else(|| {
        EXTENSIONS.iter().find_map(|extension| {
            let mut name = path.file_name()?.to_owned();
            name.push(".");
            name.push(extension);
            Some(path.with_file_name(name)).filter(|path| path.is_file())
        })
    })
}

fn index(directory: &Path) -> Option<PathBuf> {
    if directory.is_dir() { file(&directory.join("index")) } else { None }
}

/// A file of a package that its `exports` allow.
fn exported(home: &Path, exports: &Json, subpath: &str, asker: Asker) -> Result<PathBuf, String> {
    // A single entry may stand without a table.
    let single = !exports.as_object().is_some_and(|table| table.keys().any(|key| key.starts_with('.')));
    let target = match single {
        true if subpath == "." => chosen(exports, "", asker, 0),
        true => None,
        false => matching(exports, subpath, asker),
    };
    let target =
        target.ok_or_else(|| format!("the package at {} does not export {subpath}", home.display()))?;
    within(home, &target)
}

fn within(home: &Path, target: &str) -> Result<PathBuf, String> {
    let path = tidy(&home.join(target));
    if !target.starts_with("./") || !path.starts_with(home) {
        return Err(format!("the package at {} points outside itself", home.display()));
    }
    Some(path).filter(|path| path.is_file()).ok_or_else(|| format!("{} has no file {target}", home.display()))
}

/// What a table of `exports` or `imports` says about a name; of patterns with a star the longest prefix wins.
fn matching(table: &Json, name: &str, asker: Asker) -> Option<String> {
    let table = table.as_object()?;
    if let Some(entry) = table.get(name) {
        return chosen(entry, "", asker, 0);
    }
    let patterns = table.iter().filter_map(|(key, entry)| {
        let (before, after) = key.split_once('*')?;
        let star = name.strip_prefix(before)?.strip_suffix(after)?;
        Some((before.len(), star, entry)).filter(|_| !star.is_empty())
    });
    let (_, star, entry) = patterns.max_by_key(|(length, ..)| *length)?;
    chosen(entry, star, asker, 0)
}

/// Takes the first condition that holds.
fn chosen(entry: &Json, star: &str, asker: Asker, depth: usize) -> Option<String> {
    if depth > NESTING_MAX {
        return None;
    }
    match entry {
        Json::String(target) => Some(target.replace('*', star)),
        Json::Array(list) => list.iter().find_map(|entry| chosen(entry, star, asker, depth + 1)),
        Json::Object(conditions) => conditions.iter().find_map(|(condition, entry)| {
            let holds = match condition.as_str() {
                // A vat is no page, but has even less of Node.
                "default" | "browser" | "production" => true,
                "import" | "module" => asker == Asker::Import,
                "require" => asker == Asker::Require,
                _ => false,
            };
            if holds { chosen(entry, star, asker, depth + 1) } else { None }
        }),
        Json::Null | Json::Bool(_) | Json::Number(_) => None,
    }
}
