//! `launch`.

use super::super::ctx::Ctx;
use crate::cluster::{self, Cluster};
use crate::error::{CliError, Code};
use crate::value;
use capstan_model::capdata::CapData;
use capstan_model::id::KRef;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};
use std::fmt;
use std::path::{Path, PathBuf};

/// `launch`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  capstan launch counter.ts
  capstan launch cluster.json

A cluster configuration:
  {\"bootstrap\": \"alice\",
   \"vats\": {\"alice\": {\"sourceSpec\": \"alice.js\", \"parameters\": {\"name\": \"Alice\"}},
            \"bob\": {\"bundleSpec\": \"bob.bundle\"}}}")]
pub struct LaunchArgs {
    /// A cluster configuration (.json), or the source of one vat (.ts, .mts, .js, .mjs, .cjs) or its bundle
    ///
    /// What a source imports is bundled with it, from files and from node_modules. Paths in a configuration are relative
    /// to it. A single source whose root has no method `bootstrap` is
    /// launched without that call.
    file: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Launched {
    subcluster_id: String,
    root_kref: String,
    bootstrap_result: Option<CapData<KRef>>,
    vats: Map<String, Json>,
}

/// What was launched.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Shown {
    subcluster_id: String,
    root_kref: String,
    bootstrap_result: Json,
    vats: Map<String, Json>,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "subcluster {} with root {}", self.subcluster_id, self.root_kref)?;
        for (name, vat) in &self.vats {
            let part = |key: &str| vat.get(key).and_then(Json::as_str).unwrap_or("-").to_owned();
            writeln!(f, "  {name}: vat {}, root {}", part("vatId"), part("rootKref"))?;
        }
        if !self.bootstrap_result.is_null() {
            writeln!(f, "bootstrap: {}", self.bootstrap_result)?;
        }
        Ok(())
    }
}

pub(super) async fn run(ctx: &mut Ctx, args: LaunchArgs) -> Result<Shown, CliError> {
    let file = std::path::absolute(&args.file).map_err(|error| CliError::io(args.file.display(), error))?;
    let (config, single) = configuration(&file)?;
    // The daemon checks all of this again; a script that made a mistake should not have to start one to hear of it.
    Cluster::parse(&config)?.check_files()?;
    let launched: Launched =
        ctx.call_as("launchSubcluster", json!({"config": config, "bootstrapOptional": single})).await?;
    Ok(Shown {
        subcluster_id: launched.subcluster_id,
        root_kref: launched.root_kref,
        bootstrap_result: launched.bootstrap_result.as_ref().map_or(Json::Null, value::value_json),
        vats: launched.vats,
    })
}

/// Returns the configuration that a file stands for, and whether it was made up for a single source.
fn configuration(file: &Path) -> Result<(Json, bool), CliError> {
    let text = cluster::read_text(file)?;
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("json") => {
            let mut config = serde_json::from_str(&text)
                .map_err(|error| CliError::new(Code::BadConfig, format!("{}: {error}", file.display())))?;
            cluster::make_absolute(&mut config, file.parent().unwrap_or(Path::new("/")));
            Ok((config, false))
        }
        Some("ts" | "mts" | "js" | "mjs" | "cjs" | "bundle") => Ok((cluster::of_single_source(file), true)),
        _ => {
            let message =
                format!("{}: expected .json, .ts, .mts, .js, .mjs, .cjs or .bundle", file.display());
            Err(CliError::new(Code::BadConfig, message))
        }
    }
}
