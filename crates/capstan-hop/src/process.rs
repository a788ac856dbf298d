//! The process of the network: started, and started again when it dies.
//!
//! A process that dies costs time and nothing else: its channels are told closed, the kernel is told to order again what
//! is to hold, and the outbox is sent from where the peer says it is. The new process takes the ports of the old one.

use crate::fault::Fault;
use crate::kernel_end::{Kernel, KernelEnd};
use crate::message::Options;
use capstan_model::peer::{ChannelId, Hint};
use capstan_model::program::Program;
use capstan_wire::seam::{LinkEvent, LinkOrder};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// A process that takes longer to start its network is stuck.
const START_MAX: Duration = Duration::from_secs(10);
/// How often a process is asked whether it still answers.
const PING_EVERY: Duration = Duration::from_secs(3);
/// One that takes longer is stuck: it is killed like one that died, and another one started. Long, since a machine under
/// load must not take it for stuck.
const PING_MAX: Duration = Duration::from_secs(10);
/// Stopping takes no longer; the network itself gives up earlier (03 B-50).
const STOP_MAX: Duration = Duration::from_secs(3);
/// The pause before a process that died is started again, doubled each time up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(25);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A process that lived so long was sound: the next pause is a short one.
const SOUND: Duration = Duration::from_secs(10);

/// Why there is no network.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The process could not be started.
    #[error("cannot start {}", .program.display())]
    Spawn {
        /// Which program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The network in it could not be set up.
    #[error("{0}")]
    Refused(Fault),
    /// It did not answer.
    #[error("no answer within {} s", START_MAX.as_secs())]
    Late,
}

/// A network in a process of its own. Dropping it stops the process without waiting.
#[derive(Debug)]
pub struct NetworkProcess {
    current: Current,
    stop: watch::Sender<bool>,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

/// The hop to the process that runs now.
#[derive(Clone, Default)]
struct Current(Arc<Mutex<Option<KernelEnd>>>);

impl Current {
    fn lock(&self) -> MutexGuard<'_, Option<KernelEnd>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Current")
    }
}

impl NetworkProcess {
    /// Starts the process and waits until its network runs, which then is kept running. To be called on a tokio runtime.
    pub async fn start(
        program: Program,
        options: Options,
        kernel: Arc<dyn Kernel>,
    ) -> Result<NetworkProcess, StartError> {
        let (stop, stopped) = watch::channel(false);
        let ears = Arc::new(Ears { kernel, listening: Mutex::default() });
        let current = Current::default();
        let keeper = Keeper { program, options, ears, current: current.clone(), first_channel: 1 };
        let mut life = keeper.launch(keeper.options.clone(), false)?;
        life.initialized().await?;
        let keeper = Mutex::new(Some(tokio::spawn(keeper.keep(life, stopped))));
        Ok(NetworkProcess { current, stop, keeper })
    }

    /// Passes an order on; never blocks. While there is no process it is dropped: the next one is told all that holds.
    pub fn order(&self, order: LinkOrder) {
        if let Some(end) = &*self.current.lock() {
            end.order(order);
        }
    }

    /// Gives back the credit of one [`LinkEvent::FramesRead`] of this channel.
    pub fn consumed(&self, channel: ChannelId) {
        if let Some(end) = &*self.current.lock() {
            end.consumed(channel);
        }
    }

    /// Closes every channel cleanly and ends the process, within seconds; idempotent.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(keeper) = keeper {
            let _ = keeper.await;
        }
    }
}

/// Passes events on and remembers where the network listens.
struct Ears {
    kernel: Arc<dyn Kernel>,
    listening: Mutex<Vec<Hint>>,
}

impl Kernel for Ears {
    fn happened(&self, event: LinkEvent) {
        if let LinkEvent::Listening { addresses } = &event {
            *self.listening.lock().unwrap_or_else(PoisonError::into_inner) = addresses.clone();
        }
        self.kernel.happened(event);
    }

    fn compares(&self) -> bool {
        self.kernel.compares()
    }
}

struct Keeper {
    program: Program,
    options: Options,
    ears: Arc<Ears>,
    current: Current,
    first_channel: u64,
}

/// One process.
struct Life {
    child: Child,
    end: KernelEnd,
    drained: JoinHandle<io::Result<()>>,
    initialized: JoinHandle<Result<(), Fault>>,
    since: Instant,
}

impl Life {
    async fn initialized(&mut self) -> Result<(), StartError> {
        match tokio::time::timeout(START_MAX, &mut self.initialized).await {
            Ok(Ok(outcome)) => outcome.map_err(StartError::Refused),
            Ok(Err(error)) => Err(StartError::Refused(Fault::failed(error.to_string()))),
            Err(_) => Err(StartError::Late),
        }
    }
}

impl Keeper {
    fn launch(&self, options: Options, again: bool) -> Result<Life, StartError> {
        let failed = |source| StartError::Spawn { program: self.program.path.clone(), source };
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        let (reader, writer) = tokio::net::UnixStream::from_std(ours).map_err(failed)?.into_split();
        let mut command = Command::new(&self.program.path);
        command
            .args(&self.program.arguments)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // An interrupt typed at the terminal is for us: we stop it in order.
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(failed)?;
        // The command holds the other end: without this the end of a process that dies would not be seen.
        drop(command);
        if let Some(lines) = child.stderr.take() {
            tokio::spawn(relay(lines));
        }
        let (end, drained) = KernelEnd::new(reader, writer, self.ears.clone());
        // Nobody's order may come between: what the kernel orders on this event is for a started network, and the events
        // of that come after it.
        let mut current = self.current.lock();
        if again {
            self.ears.happened(LinkEvent::Restarted);
        }
        let initialized = tokio::spawn(end.initialize(options));
        *current = Some(end.clone());
        drop(current);
        Ok(Life { child, end, drained: tokio::spawn(drained), initialized, since: Instant::now() })
    }

    /// Keeps a process running until told to stop.
    async fn keep(mut self, mut life: Life, mut stopped: watch::Receiver<bool>) {
        let mut pause = PAUSE_MIN;
        let mut same_ports = true;
        loop {
            tokio::select! {
                outcome = &mut life.drained => tracing::warn!(?outcome, "the process of the network ended"),
                () = stuck(&life.end) => {
                    tracing::warn!("the process of the network has not answered for {} s: it is killed", PING_MAX.as_secs());
                }
                () = told(&mut stopped) => return self.stop(life).await,
            }
            *self.current.lock() = None;
            self.first_channel = self.first_channel.max(life.end.last_channel().saturating_add(1));
            let _ = life.child.kill().await;
            if life.since.elapsed() >= SOUND {
                pause = PAUSE_MIN;
            }
            life = loop {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = told(&mut stopped) => return,
                }
                pause = pause.saturating_mul(2).min(PAUSE_MAX);
                match self.launch_again(same_ports).await {
                    Ok(life) => break life,
                    Err(error) => tracing::warn!(%error, "the network could not be started again"),
                }
                // Somebody else may have taken a port meanwhile.
                same_ports = !same_ports;
            };
            same_ports = true;
            tracing::info!("the network runs again, in another process");
        }
    }

    async fn launch_again(&mut self, same_ports: bool) -> Result<Life, StartError> {
        let mut options = self.options.clone();
        options.first_channel = Some(self.first_channel);
        if same_ports {
            let listening = self.ears.listening.lock().unwrap_or_else(PoisonError::into_inner);
            let mut bound: Vec<String> = listening.iter().map(|hint| without_peer(hint).to_owned()).collect();
            for configured in [&mut options.reference_listen_addresses, &mut options.direct_listen_addresses]
            {
                configured.iter_mut().for_each(|address| *address = as_bound(address, &mut bound));
            }
        }
        let mut life = self.launch(options, true)?;
        let initialized = life.initialized().await;
        if initialized.is_err() {
            *self.current.lock() = None;
        }
        initialized.map(|()| life)
    }

    async fn stop(self, mut life: Life) {
        *self.current.lock() = None;
        let _ = tokio::time::timeout(STOP_MAX, life.end.stop()).await;
        // It has closed what was open, or hangs.
        let _ = life.child.kill().await;
        life.drained.abort();
    }
}

/// Waits until the network does not answer any more.
async fn stuck(end: &KernelEnd) {
    loop {
        tokio::time::sleep(PING_EVERY).await;
        let mut heard = std::pin::pin!(end.ping());
        // In two parts: where we were halted ourselves, the first one is over before its answer can be read.
        let half = PING_MAX / 2;
        let late = tokio::time::timeout(half, &mut heard).await.is_err();
        if late && tokio::time::timeout(half, &mut heard).await.is_err() {
            return;
        }
    }
}

/// Waits until we are told to stop, or nobody is left who could tell us.
async fn told(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}

fn without_peer(hint: &str) -> &str {
    hint.split("/p2p/").next().unwrap_or_default()
}

/// The address that was bound where a free port was asked for; taken out of `bound`.
fn as_bound(configured: &str, bound: &mut Vec<String>) -> String {
    for end in ["/tcp/0", "/udp/0/quic-v1"] {
        let Some(place) = configured.strip_suffix(end) else { continue };
        let Some((before, after)) = end.split_once('0') else { continue };
        let same = |address: &String| {
            let port =
                address.strip_prefix(place).and_then(|rest| rest.strip_prefix(before)?.strip_suffix(after));
            port.is_some_and(|port| port.parse::<u16>().is_ok())
        };
        if let Some(found) = bound.iter().position(same) {
            return bound.remove(found);
        }
    }
    configured.to_owned()
}

/// Passes on what the process logs.
async fn relay(lines: ChildStderr) {
    let mut lines = BufReader::new(lines).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        match line.split(' ').next() {
            Some("[error]") => tracing::error!(target: "net_worker", "{line}"),
            Some("[warn]") => tracing::warn!(target: "net_worker", "{line}"),
            _ => tracing::info!(target: "net_worker", "{line}"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    /// The other end reads and answers, or reads only.
    async fn peer(stream: tokio::io::DuplexStream, answers: usize) {
        let (reader, mut writer) = tokio::io::split(stream);
        let mut lines = BufReader::new(reader).lines();
        for _ in 0..answers {
            let Ok(Some(line)) = lines.next_line().await else { return };
            let asked: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(asked["method"], "ping");
            let answer = serde_json::json!({"jsonrpc": "2.0", "id": asked["id"], "result": null});
            writer.write_all(format!("{answer}\n").as_bytes()).await.unwrap();
        }
        std::future::pending::<()>().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_does_not_answer_is_found_and_no_other() {
        for answers in [0, 1, 7] {
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            let (reader, writer) = tokio::io::split(ours);
            let (end, drained) = KernelEnd::new(reader, writer, Arc::new(|_| {}));
            let tasks = [tokio::spawn(async { drop(drained.await) }), tokio::spawn(peer(theirs, answers))];
            let since = Instant::now();
            stuck(&end).await;
            let asked = u32::try_from(answers).unwrap() + 1;
            assert_eq!(since.elapsed(), PING_EVERY * asked + PING_MAX);
            tasks.iter().for_each(tokio::task::JoinHandle::abort);
        }
    }

    #[test]
    fn a_free_port_is_the_same_one_after_a_restart() {
        let mut bound: Vec<String> =
            ["/ip4/127.0.0.1/tcp/7001", "/ip4/127.0.0.1/tcp/7002", "/ip4/127.0.0.1/udp/7003/quic-v1"]
                .map(str::to_owned)
                .into();
        let mut again = |configured| as_bound(configured, &mut bound);
        assert_eq!(again("/ip4/127.0.0.1/tcp/0"), "/ip4/127.0.0.1/tcp/7001");
        assert_eq!(again("/ip4/127.0.0.1/tcp/0"), "/ip4/127.0.0.1/tcp/7002");
        assert_eq!(again("/ip4/127.0.0.1/tcp/0"), "/ip4/127.0.0.1/tcp/0");
        assert_eq!(again("/ip4/127.0.0.1/udp/0/quic-v1"), "/ip4/127.0.0.1/udp/7003/quic-v1");
        assert_eq!(again("/ip4/127.0.0.1/tcp/9"), "/ip4/127.0.0.1/tcp/9");
        assert_eq!(again("rubbish/tcp/0"), "rubbish/tcp/0");
    }
}
