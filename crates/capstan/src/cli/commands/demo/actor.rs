//! One kernel of the demo: a daemon process on a home of its own, and the chatter vat in it.

use crate::daemon::{DaemonOptions, control, spawn};
use crate::error::CliError;
use crate::home::{Holder, Home};
use crate::rpc::client::Client;
use crate::value;
use capstan_kernel::kernel::Generation;
use capstan_model::capdata::CapData;
use capstan_model::id::KRef;
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use serde_json::{Value as Json, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

const CHATTER: &str = include_str!("../../../../../../examples/chatter.js");
/// How long a killed process may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// What is looked at in a daemon's status.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    peer_id: String,
    incarnation: String,
}

/// What is looked at in a remote.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Remote {
    pub(super) peer_id: String,
    pub(super) peer_incarnation: Option<String>,
    pub(super) restarts_seen: u64,
}

/// A kernel. Its daemon does not outlive it.
pub(super) struct Actor {
    pub(super) name: &'static str,
    options: DaemonOptions,
    program: PathBuf,
    source: PathBuf,
    client: Option<Client>,
    pub(super) peer: String,
    pub(super) life: String,
    /// The root of its chatter.
    pub(super) root: String,
}

/// The first eight characters, or the last of a peer id, since all of those begin alike.
pub(super) fn short(text: &str) -> String {
    let tail = text.get(text.len().saturating_sub(8)..).unwrap_or(text);
    if text.starts_with("12D3") { format!("…{tail}") } else { text.chars().take(8).collect() }
}

impl Actor {
    pub(super) fn new(
        name: &'static str,
        scratch: &Path,
        program: PathBuf,
        generation: Generation,
    ) -> Result<Actor, CliError> {
        let source = scratch.join("chatter.js");
        std::fs::write(&source, CHATTER).map_err(|error| CliError::io(source.display(), error))?;
        let options = DaemonOptions {
            listen: vec!["/ip4/127.0.0.1/tcp/0".to_owned()],
            generation,
            ..DaemonOptions::new(Home::new(&scratch.join(name))?)
        };
        let (client, text) = (None, String::new);
        Ok(Actor { name, options, program, source, client, peer: text(), life: text(), root: text() })
    }

    /// Starts the daemon; it takes the port it had before.
    pub(super) async fn start(&mut self) -> Result<(), CliError> {
        let mut client = spawn::connect_or_start(&self.options, &self.program).await?;
        let status: Status = client.call_as("daemonStatus", json!([])).await?;
        (self.peer, self.life, self.client) = (status.peer_id, status.incarnation, Some(client));
        Ok(())
    }

    /// Stops the daemon where it stands: what is sent to it from now on is under way and not received.
    pub(super) fn freeze(&self) -> Result<(), CliError> {
        self.signal(Signal::STOP).map(drop)
    }

    /// Kills the daemon as a power failure would.
    pub(super) async fn kill(&mut self) -> Result<(), CliError> {
        self.client = None;
        let holder = self.signal(Signal::KILL)?;
        if holder.ends_within(KILL_LIMIT).await {
            return Ok(());
        }
        Err(CliError::internal(format!("{} could not be killed", self.name)))
    }

    fn signal(&self, signal: Signal) -> Result<Holder, CliError> {
        let home = &self.options.home;
        let held = home.holder().map_err(|error| CliError::io(home.dir().display(), error))?;
        let holder = held.ok_or_else(|| CliError::internal(format!("{} does not run", self.name)))?;
        let pid = i32::try_from(holder.pid).ok().and_then(Pid::from_raw);
        match pid.map(|pid| kill_process(pid, signal)) {
            Some(Ok(())) => Ok(holder),
            _ => Err(CliError::internal(format!("{} could not be signalled", self.name))),
        }
    }

    /// Deletes all state but the keys.
    pub(super) async fn wipe(&mut self) -> Result<(), CliError> {
        self.root.clear();
        control::purge(&self.options.home, true).await
    }

    pub(super) async fn stop(&mut self) -> Result<(), CliError> {
        self.client = None;
        control::stop(&self.options.home).await.map(drop)
    }

    async fn call(&mut self, method: &str, params: Json) -> Result<Json, CliError> {
        let name = self.name;
        let client =
            self.client.as_mut().ok_or_else(|| CliError::internal(format!("{name} does not run")))?;
        client.call(method, params).await
    }

    /// A connection of its own, for calls that are left waiting.
    pub(super) async fn line(&self) -> Result<Client, CliError> {
        let client = Client::connect(&self.options.home).await?;
        client.ok_or_else(|| CliError::internal(format!("{} does not run", self.name)))
    }

    pub(super) async fn launch_chatter(&mut self) -> Result<(), CliError> {
        let vat = json!({"sourceSpec": self.source.to_string_lossy(), "parameters": {"name": self.name}});
        let config = json!({"bootstrap": "chatter", "vats": {"chatter": vat}});
        let launched =
            self.call("launchSubcluster", json!({"config": config, "bootstrapOptional": true})).await?;
        self.root = launched.get("rootKref").and_then(Json::as_str).unwrap_or_default().to_owned();
        Ok(())
    }

    pub(super) async fn issue(&mut self) -> Result<String, CliError> {
        let url = self.call("issueOcapURL", json!({"kref": self.root})).await?;
        url.as_str().map(str::to_owned).ok_or_else(|| CliError::internal("no URL"))
    }

    pub(super) async fn redeem(&mut self, url: &str) -> Result<String, CliError> {
        let kref = self.call("redeemOcapURL", json!({"url": url})).await?;
        kref.as_str().map(str::to_owned).ok_or_else(|| CliError::internal("no kref"))
    }

    /// Calls any object.
    pub(super) async fn send(
        &mut self,
        target: &str,
        method: &str,
        arguments: Json,
    ) -> Result<Json, CliError> {
        let settled = self.call("queueMessage", json!([target, method, arguments])).await?;
        let value: CapData<KRef> =
            serde_json::from_value(settled).map_err(|error| CliError::internal(error.to_string()))?;
        Ok(value::value_json(&value))
    }

    /// Calls its own chatter.
    pub(super) async fn tell(&mut self, method: &str, arguments: Json) -> Result<Json, CliError> {
        let root = self.root.clone();
        self.send(&root, method, arguments).await
    }

    /// The lines that its chatter noted.
    pub(super) async fn notes(&mut self) -> Result<Vec<String>, CliError> {
        let log = self.tell("log", json!([])).await?;
        serde_json::from_value(log).map_err(|error| CliError::internal(error.to_string()))
    }

    /// What it knows of a peer.
    pub(super) async fn remote(&mut self, peer: &str) -> Result<Option<Remote>, CliError> {
        let remotes = self.call("listRemotes", json!([])).await?;
        let remotes: Vec<Remote> =
            serde_json::from_value(remotes).map_err(|error| CliError::internal(error.to_string()))?;
        Ok(remotes.into_iter().find(|remote| remote.peer_id == peer))
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        // One that does not run needs no end.
        let _ = self.signal(Signal::KILL);
    }
}
