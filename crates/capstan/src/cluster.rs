//! Cluster configurations: from a file to what the kernel launches (05 §3).
//!
//! The command line checks a configuration and makes its paths absolute; the daemon loads the code. Both use this
//! module, so that what the one accepts the other understands.

use crate::error::{CliError, Code};
use crate::sources::{self, Place};
use capstan_host::code_hash;
use capstan_kernel::host_op::{LaunchConfig, VatConfig};
use capstan_model::vat::{CodeFormat, Endowments, FileAccess, GLOBALS, VatCode, VatLimits};
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The longest program or configuration file, bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// More vats than anyone means to launch at once.
const VATS_MAX: usize = 1000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ClusterSpec {
    bootstrap: String,
    vats: Map<String, Json>,
    #[serde(default)]
    services: Vec<String>,
    #[serde(default)]
    io: Map<String, Json>,
    #[serde(default)]
    bundles: Map<String, Json>,
    #[serde(default)]
    force_reset: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct VatSpec {
    bundle_spec: Option<String>,
    source_spec: Option<String>,
    bundle_name: Option<String>,
    parameters: Option<Json>,
    #[serde(default, rename = "creationOptions")]
    _creation_options: Map<String, Json>,
    #[serde(default)]
    platform_config: PlatformSpec,
    #[serde(default)]
    globals: Vec<Arc<str>>,
    network: Option<NetworkSpec>,
    #[serde(default)]
    limits: LimitsSpec,
}

/// Which host capabilities a vat is given beside its globals (04 §3).
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlatformSpec {
    fs: Option<FsSpec>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct FsSpec {
    root_dir: Arc<str>,
    #[serde(default)]
    exists_sync: bool,
    #[serde(default)]
    promises: FsPromisesSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct FsPromisesSpec {
    #[serde(default)]
    read_file: bool,
    #[serde(default)]
    access: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct NetworkSpec {
    allowed_hosts: Vec<Arc<str>>,
}

/// Limits of one vat (04 §8); what is left out is as for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct LimitsSpec {
    crank_deadline_ms: Option<u64>,
    memory_bytes_max: Option<u64>,
    syscalls_max: Option<u32>,
    body_units_max: Option<u64>,
    slots_max: Option<u32>,
    store_bytes_max: Option<u64>,
    queued_max: Option<u32>,
}

impl LimitsSpec {
    pub(crate) fn over(self, defaults: VatLimits) -> VatLimits {
        VatLimits {
            crank_deadline_ms: self.crank_deadline_ms.unwrap_or(defaults.crank_deadline_ms),
            memory_bytes_max: self.memory_bytes_max.unwrap_or(defaults.memory_bytes_max),
            syscalls_max: self.syscalls_max.unwrap_or(defaults.syscalls_max),
            body_units_max: self.body_units_max.unwrap_or(defaults.body_units_max),
            slots_max: self.slots_max.unwrap_or(defaults.slots_max),
            store_bytes_max: self.store_bytes_max.unwrap_or(defaults.store_bytes_max),
            queued_max: self.queued_max.unwrap_or(defaults.queued_max),
        }
    }
}

/// A configuration whose shape is sound; code is not loaded yet.
#[derive(Debug)]
pub struct Cluster {
    bootstrap: Arc<str>,
    vats: Vec<Member>,
    services: Vec<Arc<str>>,
    /// Whether a subcluster launched from an equal configuration is to be terminated first.
    pub force_reset: bool,
    text: String,
}

#[derive(Debug)]
struct Member {
    name: Arc<str>,
    format: CodeFormat,
    place: Place,
    parameters: Option<Arc<str>>,
    limits: LimitsSpec,
    endowments: Endowments,
}

fn refuse(why: impl std::fmt::Display) -> CliError {
    CliError::new(Code::BadConfig, format!("invalid cluster config: {why}"))
}

/// Returns the configuration that launches one vat from one file; the vat is called like the file.
pub fn of_single_source(path: &Path) -> Json {
    let name = path.file_stem().map_or_else(|| "main".to_owned(), |stem| stem.to_string_lossy().into_owned());
    let bundle = path.extension().is_some_and(|extension| extension == "bundle");
    let key = if bundle { "bundleSpec" } else { "sourceSpec" };
    json!({"bootstrap": name, "vats": {name.as_str(): {key: path.to_string_lossy()}}})
}

/// Makes the paths of a configuration absolute: they are relative to `base`.
pub fn make_absolute(config: &mut Json, base: &Path) {
    for table in ["vats", "bundles"] {
        let specs = config.get_mut(table).and_then(Json::as_object_mut);
        for spec in specs.into_iter().flat_map(|specs| specs.values_mut()) {
            for key in ["sourceSpec", "bundleSpec"] {
                let Some(Json::String(text)) = spec.get_mut(key) else { continue };
                if !has_scheme(text) {
                    *text = base.join(&*text).to_string_lossy().into_owned();
                }
            }
            if let Some(Json::String(root)) = spec.pointer_mut("/platformConfig/fs/rootDir") {
                *root = base.join(&*root).to_string_lossy().into_owned();
            }
        }
    }
}

/// Whether a text is a URL rather than a path.
fn has_scheme(text: &str) -> bool {
    let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
    scheme.len() > 1 && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

impl Cluster {
    /// Checks the shape of a configuration. Unknown fields, and nulls for absent ones, are refused.
    pub fn parse(config: &Json) -> Result<Cluster, CliError> {
        refuse_nulls(config)?;
        let spec = ClusterSpec::deserialize(config).map_err(refuse)?;
        if !spec.vats.contains_key(&spec.bootstrap) {
            let message = format!("invalid bootstrap vat name {:?}", spec.bootstrap);
            return Err(CliError::new(Code::BadConfig, message));
        }
        if spec.vats.len() > VATS_MAX {
            return Err(refuse(format_args!("more than {VATS_MAX} vats")));
        }
        if !spec.io.is_empty() {
            let message =
                "Cluster config declares IO channels but no IO channel factory was provided to the kernel";
            return Err(CliError::new(Code::LaunchFailed, message));
        }
        let members = spec.vats.iter().map(|(name, vat)| member(name, vat, &spec.bundles));
        Ok(Cluster {
            vats: members.collect::<Result<_, _>>()?,
            bootstrap: spec.bootstrap.into(),
            services: spec.services.into_iter().map(Arc::from).collect(),
            force_reset: spec.force_reset,
            text: config.to_string(),
        })
    }

    /// The configuration as a launch records it, JSON text.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Reads every program. `limits` are those of vats that have none of their own. Blocks.
    pub fn load(self, bootstrap_optional: bool, limits: VatLimits) -> Result<LaunchConfig, CliError> {
        let programs = programs(&self.vats)?;
        let vats = self.vats.into_iter().zip(programs).map(|(member, code)| VatConfig {
            name: member.name,
            code_hash: code_hash(&code.text),
            code,
            parameters: member.parameters,
            limits: member.limits.over(limits),
            endowments: member.endowments,
        });
        Ok(LaunchConfig {
            vats: vats.collect(),
            bootstrap: self.bootstrap,
            bootstrap_optional,
            services: self.services,
            text: self.text.into(),
        })
    }

    /// Checks that every program that is on this machine can be read and put together. Blocks.
    pub fn check_files(&self) -> Result<(), CliError> {
        let here = self.vats.iter().filter(|member| !matches!(member.place, Place::Web(_)));
        programs(here).map(drop)
    }
}

/// Each vat's program; what several run is read once.
fn programs<'m>(vats: impl IntoIterator<Item = &'m Member>) -> Result<Vec<VatCode>, CliError> {
    let mut known = BTreeMap::new();
    let one = |Member { format, place, .. }: &Member| match known.entry((*format, place.clone())) {
        Entry::Occupied(code) => Ok(VatCode::clone(code.get())),
        Entry::Vacant(slot) => sources::program_at(*format, place).map(|code| slot.insert(code).clone()),
    };
    vats.into_iter().map(one).collect()
}

/// The names of the vats in a configuration as a launch recorded it.
pub(crate) fn vat_names(text: &str) -> BTreeSet<String> {
    let config: Json = serde_json::from_str(text).unwrap_or_default();
    let vats = config.get("vats").and_then(Json::as_object);
    vats.into_iter().flat_map(|vats| vats.keys().cloned()).collect()
}

fn refuse_nulls(config: &Json) -> Result<(), CliError> {
    let object = config.as_object().ok_or_else(|| refuse("not an object"))?;
    let vats = object.get("vats").and_then(Json::as_object);
    let specs = vats.into_iter().flat_map(|vats| vats.values()).filter_map(Json::as_object);
    for (key, value) in specs.chain([object]).flatten() {
        if value.is_null() && key != "parameters" {
            return Err(refuse(format_args!("{key} is null; leave it out instead")));
        }
    }
    Ok(())
}

fn member(name: &str, vat: &Json, bundles: &Map<String, Json>) -> Result<Member, CliError> {
    let refuse = |why: &str| refuse(format_args!("vat {name:?}: {why}"));
    let parse = |json: &Json| VatSpec::deserialize(json).map_err(|error| refuse(&error.to_string()));
    let spec = parse(vat)?;
    if let Some(unknown) = spec.globals.iter().find(|name| !GLOBALS.contains(&&***name)) {
        return Err(refuse(&format!("there is no global {unknown:?}")));
    }
    if spec.platform_config.fs.as_ref().is_some_and(|fs| !fs.root_dir.starts_with('/')) {
        return Err(refuse("the rootDir of fs must be absolute"));
    }
    let files = spec.platform_config.fs.map(|fs| FileAccess {
        root_dir: fs.root_dir,
        exists_sync: fs.exists_sync,
        read_file: fs.promises.read_file,
        access: fs.promises.access,
    });
    let endowments = Endowments {
        globals: spec.globals,
        allowed_hosts: spec.network.map(|network| network.allowed_hosts),
        files,
    };
    let limits = spec.limits;
    let (source, bundle) = match (spec.source_spec, spec.bundle_spec, spec.bundle_name) {
        (Some(source), None, None) => (Some(source), None),
        (None, Some(bundle), None) => (None, Some(bundle)),
        (None, None, Some(key)) => {
            let named = bundles.get(&key).ok_or_else(|| refuse(&format!("no bundle is called {key:?}")))?;
            let named = parse(named)?;
            (named.source_spec, named.bundle_spec)
        }
        _ => return Err(refuse("needs exactly one of sourceSpec, bundleSpec and bundleName")),
    };
    let (format, text) = match (source, bundle) {
        (Some(source), None) => (CodeFormat::Module, source),
        (None, Some(bundle)) => (CodeFormat::Bundle, bundle),
        _ => return Err(refuse("its bundle needs exactly one of sourceSpec and bundleSpec")),
    };
    let place = match path_of(&text) {
        Some(path) => Some(Place::File(path)),
        None if format == CodeFormat::Module => None,
        None if text.starts_with("http:") || text.starts_with("https:") => Some(Place::Web(text.clone())),
        None => sources::data_of(&text).map(Place::Here),
    };
    let urls =
        if format == CodeFormat::Module { "a file URL" } else { "a URL with file, http, https or data" };
    let place = place.ok_or_else(|| refuse(&format!("{text:?} is neither a path nor {urls}")))?;
    let parameters = spec.parameters.map(|parameters| parameters.to_string().into());
    Ok(Member { name: name.into(), format, place, parameters, limits, endowments })
}

/// The path that a path or a `file:` URL names.
fn path_of(text: &str) -> Option<PathBuf> {
    if !has_scheme(text) {
        return Some(text.into());
    }
    let rest = text.strip_prefix("file://")?;
    let rest = rest.strip_prefix("localhost").unwrap_or(rest);
    if !rest.starts_with('/') {
        return None;
    }
    percent_decoded(rest).and_then(|bytes| String::from_utf8(bytes).ok()).map(PathBuf::from)
}

/// The bytes that a part of a URL stands for.
pub(crate) fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut left = text.as_bytes();
    while let Some((first, after)) = left.split_first() {
        let (byte, after) = match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                let digits = [*high, *low];
                (u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?, after)
            }
            (b'%', _) => return None,
            (byte, after) => (*byte, after),
        };
        bytes.push(byte);
        left = after;
    }
    Some(bytes)
}

/// Reads a regular file of UTF-8 text.
pub fn read_text(path: &Path) -> Result<String, CliError> {
    let failed = |error: std::io::Error| CliError::io(path.display(), error);
    let metadata = fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(CliError::io(path.display(), "not a regular file"));
    }
    if metadata.len() > FILE_BYTES_MAX {
        return Err(CliError::io(path.display(), format_args!("longer than {FILE_BYTES_MAX} bytes")));
    }
    fs::read_to_string(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(config: Json) -> (Code, String) {
        match Cluster::parse(&config) {
            Ok(cluster) => panic!("accepted: {cluster:?}"),
            Err(error) => (error.code, error.message),
        }
    }

    #[test]
    fn unsound_configurations_are_refused_with_the_reason() {
        let vats = json!({"a": {"sourceSpec": "a.js"}});
        for (config, code, why) in [
            (json!([]), Code::BadConfig, "not an object"),
            (json!({"vats": vats}), Code::BadConfig, "bootstrap"),
            (json!({"bootstrap": "b", "vats": vats}), Code::BadConfig, "invalid bootstrap vat name \"b\""),
            (json!({"bootstrap": "a", "vats": vats, "extra": 1}), Code::BadConfig, "extra"),
            (json!({"bootstrap": "a", "vats": vats, "services": null}), Code::BadConfig, "services is null"),
            (
                json!({"bootstrap": "a", "vats": {"a": {"sourceSpec": "a.js", "x": 1}}}),
                Code::BadConfig,
                "`x`",
            ),
            (json!({"bootstrap": "a", "vats": {"a": {}}}), Code::BadConfig, "exactly one of"),
            (
                json!({"bootstrap": "a", "vats": {"a": {"sourceSpec": "a.js", "bundleSpec": "b"}}}),
                Code::BadConfig,
                "exactly one of",
            ),
            (
                json!({"bootstrap": "a", "vats": {"a": {"bundleName": "b"}}}),
                Code::BadConfig,
                "no bundle is called \"b\"",
            ),
            (
                json!({"bootstrap": "a", "vats": {"a": {"sourceSpec": "https://x/y"}}}),
                Code::BadConfig,
                "neither a path nor a file URL",
            ),
            (
                json!({"bootstrap": "a", "vats": {"a": {"sourceSpec": "a.js", "globals": ["process"]}}}),
                Code::BadConfig,
                "no global \"process\"",
            ),
            (
                json!({"bootstrap": "a", "vats": {"a": {"sourceSpec": "a.js", "limits": {"fuel": 1}}}}),
                Code::BadConfig,
                "`fuel`",
            ),
            (json!({"bootstrap": "a", "vats": vats, "io": {"c": {}}}), Code::LaunchFailed, "IO channel"),
        ] {
            let (got, message) = refused(config.clone());
            assert!(got == code && message.contains(why), "{config}: {got} {message}");
        }
    }

    #[test]
    fn a_vat_may_ask_for_globals_and_have_limits_of_its_own() {
        let config = json!({"bootstrap": "a", "vats": {"a": {"sourceSpec": "a.js", "globals": ["Date", "URL"],
            "network": {"allowedHosts": []}, "limits": {"crankDeadlineMs": 5, "queuedMax": 7}}}});
        let vats = Cluster::parse(&config).map(|cluster| cluster.vats).unwrap_or_default();
        let asked: Vec<_> = vats.iter().map(|vat| (vat.endowments.clone(), vat.limits)).collect();
        let endowments = Endowments {
            globals: vec!["Date".into(), "URL".into()],
            allowed_hosts: Some(Vec::new()),
            files: None,
        };
        let limits = LimitsSpec { crank_deadline_ms: Some(5), queued_max: Some(7), ..LimitsSpec::default() };
        assert_eq!(asked, [(endowments, limits)]);
    }

    #[test]
    fn paths_are_relative_to_the_configuration_and_urls_stay() {
        let mut config = json!({"bootstrap": "a", "vats": {
            "a": {"sourceSpec": "a.js"}, "b": {"bundleSpec": "file:///x%20y/b.bundle"}, "c": {"bundleName": "n"}},
            "bundles": {"n": {"bundleSpec": "/abs/n.bundle"}}});
        make_absolute(&mut config, Path::new("/base"));
        let cluster = Cluster::parse(&config).map(|cluster| cluster.vats).unwrap_or_default();
        let shown = |place: &Place| match place {
            Place::File(path) => path.display().to_string(),
            Place::Web(url) | Place::Here(url) => url.clone(),
        };
        let places: Vec<_> = cluster.iter().map(|vat| (vat.format, shown(&vat.place))).collect();
        let paths: Vec<_> = places.iter().map(|(format, text)| (*format, text.as_str())).collect();
        assert_eq!(
            paths,
            [
                (CodeFormat::Module, "/base/a.js"),
                (CodeFormat::Bundle, "/x y/b.bundle"),
                (CodeFormat::Bundle, "/abs/n.bundle"),
            ]
        );
    }
}
