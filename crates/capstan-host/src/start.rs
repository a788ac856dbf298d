//! Puts a host together: home, store, identity, vats, network, and the thread that owns the kernel.

use crate::batch::Batches;
use crate::chance::Clocks;
use crate::config::{HostConfig, SeedSource, SystemSubcluster};
use crate::driver::{Driver, Post, Reports};
use crate::errands::Errands;
use crate::error::{HostError, HostFault};
use crate::home::{self, Opened};
use crate::host::{Inner, REQUESTS_QUEUED_MAX};
use crate::identity::{self, Identity};
use crate::log;
use crate::network::Network;
use crate::release::Outlets;
use crate::services::{self, Desk, Registry};
use crate::vats::VatPool;
use capstan_js::VatEvent;
use capstan_kernel::kernel::{Kernel, KernelConfig};
use capstan_model::peer::{Hint, Millis};
use capstan_model::vat::GLOBALS;
use capstan_store::home::HomeLock;
use capstan_store::overlay::Db;
use capstan_store::writer::Writer;
use capstan_wire::relay_pool::is_relayed;
use capstan_wire::seam::LinkEvent;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{self, Sender};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{OnceCell, Semaphore, watch};

/// Bound sockets are confirmed at once; a swarm that takes longer is stuck.
const LISTEN_MAX: Duration = Duration::from_secs(10);

/// Where the loop stands.
#[derive(Clone, Debug)]
pub(crate) enum Phase {
    Running,
    /// Everything was made durable, and the home is unlocked.
    Stopped,
    Failed(HostFault),
}

/// Runs something that waits for a disk.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, HostError> + Send + 'static,
) -> Result<T, HostError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| HostError::System(format!("a thread: {error}")))?
}

/// Starts everything but the services, whose calls wait until they are opened with the finished host.
pub(crate) async fn start(config: HostConfig) -> Result<(Inner, Vec<Desk>), HostError> {
    let kernel_system = system_texts(&config.system)?;
    let allowed_globals = allowed_globals(&config)?;
    let (services, desks, names) = services(&config)?;
    let (path, sync, source) = (config.home.clone(), config.sync, config.seed.clone());
    let reset = config.reset_storage;
    let open = move || {
        let lock = HomeLock::acquire(&path)?;
        if reset {
            home::wipe(&path, !matches!(source, Some(SeedSource::Mnemonic(_))))?;
        }
        home::open(lock, &path, sync, source.as_ref())
    };
    let Opened { lock, store, tables, identity } = blocking(open).await?;
    let kernel_config =
        KernelConfig { system: kernel_system, services: names, ..kernel_config(&config, &identity) };
    let kernel = Kernel::new(Db::load(tables), kernel_config);
    kernel.check_system()?;
    let (inbox, posts) = mpsc::channel();
    let (hints, listen) = watch::channel(Vec::new());
    let network =
        if config.network { Some(Arc::new(network(&config, &identity, &inbox, hints).await?)) } else { None };
    let (life, lives) = watch::channel(identity.life.clone());
    let (reported, reports) = mpsc::channel();
    let reported = Reports { reports: reported, inbox: inbox.clone() };
    let writer = Writer::spawn(store, move |report| reported.send(report)).map_err(no_thread)?;
    let sink = inbox.clone();
    let driver = Driver {
        kernel,
        vats: VatPool::new(config.isolation.clone(), config.workers, allowed_globals, move |event| {
            match event {
                // Written where it was said: a talkative vat waits for the log and fills no queue.
                VatEvent::Log { vat, level, console, text } => log::vat(vat, &level, console, &text),
                event => drop(sink.send(Post::Vat(event))),
            }
        }),
        writer,
        inbox: posts,
        reports,
        batches: Batches::new(),
        errands: Errands::new(inbox.clone()),
        outlets: Outlets {
            network: network.clone(),
            waiters: BTreeMap::new(),
            life,
            services: services.clone(),
            inbox: inbox.clone(),
        },
        life: (identity::life_key(), identity.life.clone()),
        told: Millis(0),
        clocks: Clocks::now(),
    };
    let phase = spawn_loop(driver, lock, network.clone())?;
    let inner = Inner {
        home: config.home,
        peer: identity.peer,
        inbox,
        network,
        life: lives,
        listen,
        phase,
        services,
        next_request: AtomicU64::new(1),
        queue: Arc::new(Semaphore::new(REQUESTS_QUEUED_MAX)),
        stopped: OnceCell::new(),
    };
    if inner.network.is_some() {
        confirmed(inner.listen.clone(), config.listen.len() + config.listen_reference.len()).await?;
    }
    tracing::info!(peer = %inner.peer, life = %identity.life, home = %inner.home.display(), "started");
    Ok((inner, desks))
}

type Served = (Registry, Vec<Desk>, Vec<(Arc<str>, bool)>);

/// The services the host has from its start.
fn services(config: &HostConfig) -> Result<Served, HostError> {
    let registry = Registry::default();
    let (mut desks, mut names) = (Vec::new(), Vec::new());
    for service in services::built_in(config.loader.as_ref()).iter().chain(&config.services) {
        let desk = registry.add(&service.name, service.server.clone());
        desks.push(desk.ok_or_else(|| HostError::ServiceTwice(service.name.clone()))?);
        names.push((service.name.clone(), service.system_only));
    }
    Ok((registry, desks, names))
}

/// Names with their configurations; one that comes twice is refused.
fn system_texts(system: &[SystemSubcluster]) -> Result<BTreeMap<Arc<str>, Arc<str>>, HostError> {
    let mut texts = BTreeMap::new();
    for SystemSubcluster { name, text, .. } in system {
        if texts.insert(name.clone(), text.clone()).is_some() {
            let reason = "is configured twice".to_owned();
            return Err(HostError::SystemSubcluster { name: name.clone(), reason });
        }
    }
    Ok(texts)
}

fn allowed_globals(config: &HostConfig) -> Result<Option<Vec<Arc<str>>>, HostError> {
    let Some(names) = &config.allowed_globals else { return Ok(None) };
    match names.iter().find(|name| !GLOBALS.contains(&name.as_str())) {
        Some(unknown) => Err(HostError::UnknownGlobal(unknown.clone())),
        None => Ok(Some(names.iter().map(|name| name.as_str().into()).collect())),
    }
}

fn kernel_config(config: &HostConfig, identity: &Identity) -> KernelConfig {
    KernelConfig {
        generation: config.generation,
        ack_delay: config.ack_delay,
        ack_timeout: config.ack_timeout,
        ack_retries_max: config.ack_retries_max,
        max_retry_attempts: config.max_retry_attempts,
        frame_bytes_max: config.frame_bytes_max,
        relays: config.relays.iter().map(|relay| relay.as_str().into()).collect(),
        relay_limits: config.relay_limits,
        audit_every_transaction: config.audit_every_transaction,
        ..KernelConfig::new(identity.peer.clone())
    }
}

async fn network(
    config: &HostConfig,
    identity: &Identity,
    inbox: &Sender<Post>,
    hints: watch::Sender<Vec<Hint>>,
) -> Result<Network, HostError> {
    let inbox = inbox.clone();
    Network::start(config, identity.seed_bytes()?, move |event| {
        if let LinkEvent::Listening { addresses } = &event {
            hints.send_replace(addresses.clone());
        }
        let _ = inbox.send(Post::Link(event));
    })
    .await
}

/// Waits until every listener has an address; one on all interfaces may have several, and relays come when they come.
async fn confirmed(mut listen: watch::Receiver<Vec<Hint>>, listeners: usize) -> Result<(), HostError> {
    let is_own = |address: &&Hint| !is_relayed(address);
    let all = listen.wait_for(|addresses| addresses.iter().filter(is_own).count() >= listeners);
    match tokio::time::timeout(LISTEN_MAX, all).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(HostError::Listen(LISTEN_MAX.as_secs())),
    }
}

/// Starts the thread that owns the kernel. It gives the lock up before it says that it has ended.
fn spawn_loop(
    driver: Driver,
    lock: HomeLock,
    network: Option<Arc<Network>>,
) -> Result<watch::Receiver<Phase>, HostError> {
    let (phase, phases) = watch::channel(Phase::Running);
    let runtime = Handle::current();
    let run = move || {
        let outcome = catch_unwind(AssertUnwindSafe(|| driver.run()));
        drop(lock);
        let fault = match outcome {
            Ok(Ok(())) => None,
            Ok(Err(fault)) => Some(fault),
            Err(panic) => Some(HostFault::Loop(panic_text(panic.as_ref()))),
        };
        if let Some(fault) = &fault {
            tracing::error!(%fault, "the host has failed");
            if let Some(network) = network {
                runtime.spawn(async move { network.stop().await });
            }
        }
        phase.send_replace(fault.map_or(Phase::Stopped, Phase::Failed));
    };
    let spawned = std::thread::Builder::new().name("kernel".to_owned()).spawn(run);
    spawned.map_err(no_thread)?;
    Ok(phases)
}

fn no_thread(error: std::io::Error) -> HostError {
    HostError::System(format!("a thread: {error}"))
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
}
