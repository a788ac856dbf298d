//! What a command works with.

use super::args::Globals;
use crate::daemon::{DaemonOptions, spawn};
use crate::error::{CliError, Code};
use crate::home::Home;
use crate::rpc::client::Client;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use std::path::PathBuf;

/// The global options, resolved, and the connection once there is one.
pub(super) struct Ctx {
    pub(super) home: Home,
    pub(super) json: bool,
    spawn: bool,
    client: Option<Client>,
}

impl Ctx {
    pub(super) fn new(globals: Globals) -> Result<Ctx, CliError> {
        let home = match globals.home {
            Some(dir) if dir.as_os_str().is_empty() => {
                return Err(CliError::new(Code::Usage, "--home is empty"));
            }
            Some(dir) => Home::new(&dir)?,
            None => Home::in_data_directory(|name| std::env::var_os(name).map(PathBuf::from))?,
        };
        let Globals { json, no_spawn, .. } = globals;
        Ok(Ctx { home, json, spawn: !no_spawn, client: None })
    }

    /// What a daemon is started with when a command just needs one.
    pub(super) fn default_daemon(&self) -> DaemonOptions {
        DaemonOptions::new(self.home.clone())
    }

    /// The daemon, started if none runs and `--no-spawn` is not given.
    pub(super) async fn client(&mut self) -> Result<&mut Client, CliError> {
        if self.client.is_none() {
            let found = Client::connect_alive(&self.home).await?;
            self.client = Some(match found {
                Some(client) => client,
                None if self.spawn => self.start(&self.default_daemon()).await?,
                None => return Err(self.no_daemon()),
            });
        }
        self.client.as_mut().ok_or_else(|| CliError::internal("no connection"))
    }

    /// Starts a daemon with these options, or finds the one that runs.
    pub(super) async fn start(&self, options: &DaemonOptions) -> Result<Client, CliError> {
        spawn::connect_or_start(options, &executable()?).await
    }

    pub(super) fn no_daemon(&self) -> CliError {
        CliError::new(Code::NoDaemon, format!("no daemon is running at {}", self.home.dir().display()))
            .hint("start one: capstan daemon start")
    }

    /// One request to the daemon.
    pub(super) async fn call(&mut self, method: &str, params: Json) -> Result<Json, CliError> {
        self.client().await?.call(method, params).await
    }

    /// One request to the daemon, for a result of a known shape.
    pub(super) async fn call_as<T: DeserializeOwned>(
        &mut self,
        method: &str,
        params: Json,
    ) -> Result<T, CliError> {
        self.client().await?.call_as(method, params).await
    }
}

/// This program, to start daemons with.
pub(super) fn executable() -> Result<PathBuf, CliError> {
    std::env::current_exe().map_err(|error| CliError::io("cannot find this program", error))
}
