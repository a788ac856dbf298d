//! The system subclusters of a daemon, from a file (02 §10.4). What a daemon was started with is kept in its home, so that
//! it comes back with them however it is started next.

use crate::cluster::{Cluster, make_absolute, read_text};
use crate::error::{CliError, Code};
use crate::home::Home;
use capstan_host::SystemSubcluster;
use capstan_model::vat::VatLimits;
use serde::Deserialize;
use serde_json::Value as Json;
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// More system subclusters than anyone means to run.
const SYSTEM_MAX: usize = 100;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    config: Json,
}

/// System subclusters whose configurations are sound; code is not loaded yet.
#[derive(Debug)]
pub(crate) struct System {
    subclusters: Vec<SystemSubcluster>,
    /// The list with absolute paths, for the home.
    text: String,
}

impl System {
    /// Reads a list of `{"name": …, "config": …}`; code paths are relative to the file. Blocks.
    /// `limits`: of vats that have none of their own.
    pub(crate) fn read(path: &Path, limits: VatLimits) -> Result<System, CliError> {
        let path = std::path::absolute(path).map_err(|error| CliError::io(path.display(), error))?;
        Self::parse(&read_text(&path)?, path.parent().unwrap_or(Path::new("/")), limits)
    }

    /// Reads what is kept in a home; none if there is nothing. Blocks.
    pub(super) fn recall(home: &Home, limits: VatLimits) -> Result<System, CliError> {
        if file(home).exists() {
            Self::read(&file(home), limits)
        } else {
            Self::parse("[]", home.dir(), limits)
        }
    }

    fn parse(text: &str, base: &Path, limits: VatLimits) -> Result<System, CliError> {
        let refuse =
            |why: String| CliError::new(Code::BadConfig, format!("invalid system subclusters: {why}"));
        let mut list: Json = serde_json::from_str(text).map_err(|error| refuse(error.to_string()))?;
        for entry in list.as_array_mut().into_iter().flatten() {
            if let Some(config) = entry.get_mut("config") {
                make_absolute(config, base);
            }
        }
        let entries = Vec::<Entry>::deserialize(&list).map_err(|error| refuse(error.to_string()))?;
        let names: BTreeSet<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
        if names.len() != entries.len() {
            return Err(refuse("two have one name".to_owned()));
        }
        if entries.len() > SYSTEM_MAX {
            return Err(refuse(format!("more than {SYSTEM_MAX}")));
        }
        let subclusters = entries.into_iter().map(|Entry { name, config }| {
            let recorded = Cluster::parse(&config)?.text().to_owned();
            let load = move || {
                let loaded = Cluster::parse(&config).and_then(|cluster| cluster.load(false, limits));
                loaded.map_err(|error| error.to_string())
            };
            Ok(SystemSubcluster::loaded_by(name, recorded, load))
        });
        Ok(System { subclusters: subclusters.collect::<Result<_, CliError>>()?, text: list.to_string() })
    }

    /// As a host takes them.
    pub(super) fn subclusters(&self) -> Vec<SystemSubcluster> {
        self.subclusters.clone()
    }

    /// Keeps the list in the home. Interrupted, it leaves the old list or the new.
    pub(super) fn keep(&self, home: &Home) -> Result<(), CliError> {
        let new = file(home).with_extension("json.new");
        let written = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)
            .and_then(|mut file| file.write_all(self.text.as_bytes()).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&new, file(home)));
        written.map_err(|error| CliError::io(new.display(), error))
    }
}

/// Forgets what is kept in the home.
pub(super) fn forget(home: &Home) {
    let _ = fs::remove_file(file(home));
}

fn file(home: &Home) -> PathBuf {
    home.dir().join("system.json")
}
