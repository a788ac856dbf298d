//! What may be chosen about one host.

use crate::loader::Loader;
use crate::services::StartService;
use capstan_kernel::host_op::LaunchConfig;
use capstan_kernel::kernel::Generation;
use capstan_model::peer::Millis;
use capstan_model::program::Program;
use capstan_store::sqlite::Sync;
use capstan_wire::link::LinkOptions;
use capstan_wire::relay_pool::RelayLimits;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

/// Everything a host is told at its start.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// The directory under which everything is kept; made with mode 0700 if it is not there.
    pub home: PathBuf,
    /// Multiaddrs to listen on: TCP, or QUIC (`/udp/…/quic-v1`).
    pub listen: Vec<String>,
    /// Circuit relays to be reachable through, each ending in `/p2p/…`.
    pub relays: Vec<String>,
    /// Hosts that may be dialled by WebSocket without TLS; near ones and the given relays always may.
    pub allowed_ws_hosts: Vec<String>,
    /// How many relays are remembered, given and learned, and how many places a URL names.
    pub relay_limits: RelayLimits,
    /// TCP multiaddrs to listen on for kernels of the reference, which speak by another protocol name.
    pub listen_reference: Vec<String>,
    /// Whether there is a network at all. Without it links are wanted in vain and outboxes stay.
    pub network: bool,
    /// What to run as the process of the network; `None`: the network is in this process.
    pub network_program: Option<Program>,
    /// Which handshake to speak.
    pub generation: Generation,
    /// What a commit waits for.
    pub sync: Sync,
    /// Threads that carry vats; 0: one per core.
    pub workers: usize,
    /// Where vats run.
    pub isolation: Isolation,
    /// The seed of the network identity, used only where none is stored yet (03 A-3).
    pub seed: Option<SeedSource>,
    /// How long the peer may take for its part of a handshake.
    pub handshake_timeout: Millis,
    /// The back-off before the first retry of a dial is below this.
    pub retry_base: Millis,
    /// No back-off is longer.
    pub retry_cap: Millis,
    /// 0: a link is never given up (03 B-44). Otherwise after so many dials in vain the session ends.
    pub max_retry_attempts: u32,
    /// Peers talked to at once. Beyond it a dial waits for room, and an inbound connection is refused.
    pub connections_max: usize,
    /// Dials of one peer in any minute; one more waits.
    pub dials_per_minute: NonZeroU32,
    /// Frames written to one peer in any second; one more waits. `None`: as many as the peer takes.
    pub messages_per_second: Option<NonZeroU32>,
    /// A connection that shows no sign of life for so long is lost; never below five seconds.
    pub inactivity_timeout: Millis,
    /// What is only in memory about a peer that nobody needed for so long is forgotten.
    pub stale_peer_timeout: Millis,
    /// A peer that takes nothing that is written to it for so long is lost.
    pub write_timeout: Millis,
    /// How long a stand-alone acknowledgement waits for company.
    pub ack_delay: Millis,
    /// Toward classic peers: when unacknowledged frames are sent again. The deadline of a redemption follows from it (03 A-32).
    pub ack_timeout: Millis,
    /// Toward classic peers: unanswered retransmissions before giving up.
    pub ack_retries_max: u32,
    /// The longest frame accepted, bytes.
    pub frame_bytes_max: u64,
    /// System subclusters. Those that are not restored are launched, in this order, before the start is complete; a
    /// stored one that is missing here is removed (02 §10.4).
    pub system: Vec<SystemSubcluster>,
    /// Wipe the store before anything starts. The identity stays, unless a mnemonic is given as its source; the life
    /// is new in any case (02 §14).
    pub reset_storage: bool,
    /// The globals that vats may ask for; `None`: all of them (04 §2).
    pub allowed_globals: Option<Vec<String>>,
    /// Kernel services besides the built-in ones; more may be registered later.
    pub services: Vec<StartService>,
    /// How the kernel facet makes of a configuration what can be launched; without it, it launches nothing.
    pub loader: Option<Loader>,
    /// Recount everything after every transaction: slow, for tests.
    pub audit_every_transaction: bool,
}

impl HostConfig {
    /// The defaults for the kernel kept under `home`: a free TCP and a free QUIC port of the loopback, no relay, full
    /// durability.
    pub fn new(home: impl Into<PathBuf>) -> Self {
        HostConfig {
            home: home.into(),
            listen: ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"].map(str::to_owned).into(),
            relays: Vec::new(),
            allowed_ws_hosts: Vec::new(),
            relay_limits: RelayLimits::DEFAULT,
            listen_reference: Vec::new(),
            network: true,
            network_program: None,
            generation: Generation::Session,
            sync: Sync::Full,
            workers: 0,
            isolation: Isolation::Threads,
            seed: None,
            handshake_timeout: Millis(10_000),
            retry_base: Millis(25),
            retry_cap: Millis(2_000),
            max_retry_attempts: 0,
            connections_max: LinkOptions::DEFAULT.connections_max,
            dials_per_minute: LinkOptions::DEFAULT.dials_per_minute,
            messages_per_second: None,
            inactivity_timeout: LinkOptions::DEFAULT.inactivity_timeout,
            stale_peer_timeout: LinkOptions::DEFAULT.stale_timeout,
            write_timeout: Millis(10_000),
            ack_delay: Millis(50),
            ack_timeout: Millis(10_000),
            ack_retries_max: 3,
            frame_bytes_max: 16 << 20,
            system: Vec::new(),
            reset_storage: false,
            allowed_globals: None,
            services: Vec::new(),
            loader: None,
            audit_every_transaction: false,
        }
    }
}

/// Where vats run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// On threads of this process, as many as [`HostConfig::workers`] says.
    Threads,
    /// Each in a process that runs this program, which must call [`capstan_jail::serve`] on its standard input and
    /// output.
    Processes(Program),
}

/// A subcluster that the host keeps under a name.
#[derive(Clone)]
pub struct SystemSubcluster {
    pub(crate) name: Arc<str>,
    pub(crate) text: Arc<str>,
    pub(crate) load: Arc<LoadOne>,
}

type LoadOne = dyn Fn() -> Result<LaunchConfig, String> + Send + std::marker::Sync;

impl SystemSubcluster {
    /// A system subcluster called `name`.
    pub fn new(name: impl Into<Arc<str>>, config: LaunchConfig) -> Self {
        let text = config.text.clone();
        Self::loaded_by(name, text, move || Ok(config.clone()))
    }

    /// The same where code is read only if a launch is due. `text`: the configuration, as the launch will record it.
    /// `load` may block.
    pub fn loaded_by(
        name: impl Into<Arc<str>>,
        text: impl Into<Arc<str>>,
        load: impl Fn() -> Result<LaunchConfig, String> + Send + std::marker::Sync + 'static,
    ) -> Self {
        SystemSubcluster { name: name.into(), text: text.into(), load: Arc::new(load) }
    }
}

impl std::fmt::Debug for SystemSubcluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SystemSubcluster").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Where a new identity comes from, if it is not random.
#[derive(Clone)]
pub enum SeedSource {
    /// The seed itself. Ignored where an identity is stored (03 A-4).
    Seed(capstan_wire::identity::KeySeed),
    /// A BIP39 mnemonic. Refused where an identity is stored (03 A-5).
    Mnemonic(String),
}

/// Never shows the secret.
impl std::fmt::Debug for SeedSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            SeedSource::Seed(_) => "Seed(…)",
            SeedSource::Mnemonic(_) => "Mnemonic(…)",
        })
    }
}
