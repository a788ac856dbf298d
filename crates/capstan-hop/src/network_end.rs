//! The end of the network's process: requests become orders, events become requests.

use crate::fault::Fault;
use crate::message::{KernelCall, NetworkCall, Options};
use crate::rpc::{self, Caller, Desk, Responder};
use capstan_model::peer::{ChannelId, Hint, Incarnation, PeerId, Seq};
use capstan_wire::facts::Facts;
use capstan_wire::seam::{LinkEvent, LinkOrder, OutFrame, SendFault, Verdict};
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// How long a verdict may take: longer than any commit, shorter than a peer's patience with a channel that says nothing.
pub const VERDICT_MAX: Duration = Duration::from_secs(30);

/// A network without its kernel: what a node offers in the same process.
pub trait Network: Send + Sync + 'static {
    /// Takes an order, in order. Must not block.
    fn order(&self, order: LinkOrder);
    /// One [`LinkEvent::FramesRead`] of this channel has been dealt with.
    fn consumed(&self, channel: ChannelId);
    /// Comes to an end when the network has taken what it was told before.
    fn ping(&self) -> Pin<Box<dyn Future<Output = ()> + Send>>;
    /// Closes every channel cleanly.
    fn stop(&self) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// Where a network reports. Does not block.
pub type Sink = Arc<dyn Fn(LinkEvent) + Send + Sync>;

/// Serves a kernel over a stream until the kernel is gone; then what is open is closed. `start` starts a network. To be
/// called on a tokio runtime.
pub async fn serve<N: Network>(
    reader: impl AsyncRead + Send + Unpin + 'static,
    writer: impl AsyncWrite + Send + Unpin + 'static,
    start: impl FnMut(Options, Sink) -> Result<N, String> + Send,
) -> io::Result<()> {
    let caller = rpc::caller("vws:", writer);
    let mut desk = NetworkDesk { start, up: None, caller: caller.clone() };
    let outcome = rpc::drain(reader, &caller, &mut desk).await;
    if let Some(stopped) = desk.up.take().and_then(|up| Some(up.network.get()?.stop())) {
        stopped.await;
    }
    outcome
}

struct NetworkDesk<N, S> {
    start: S,
    /// There is one from the start to the stop.
    up: Option<Arc<Up<N>>>,
    caller: Caller,
}

impl<N: Network, S: FnMut(Options, Sink) -> Result<N, String> + Send> NetworkDesk<N, S> {
    fn initialize(&mut self, options: Options) -> Result<Value, Fault> {
        if self.up.is_some() {
            return Err(Fault::failed("remote comms already initialized"));
        }
        let state = Mutex::default();
        let up = Arc::new(Up { network: OnceLock::new(), caller: self.caller.clone(), state });
        let reported = up.clone();
        let network = (self.start)(options, Arc::new(move |event| reported.happened(event)));
        // What it reports meanwhile is answered later: answers are read by the loop that is here now.
        let _ = up.network.set(network.map_err(Fault::failed)?);
        self.up = Some(up);
        Ok(Value::Null)
    }
}

impl<N: Network, S: FnMut(Options, Sink) -> Result<N, String> + Send> Desk for NetworkDesk<N, S> {
    fn begin(&mut self, method: &str, params: Value, responder: Responder) {
        let call = match NetworkCall::parse(method, params) {
            Ok(call) => call,
            Err(fault) => return responder.answer(Err(fault)),
        };
        match (call, &self.up) {
            (NetworkCall::InitializeRemoteComms(options), _) => responder.answer(self.initialize(*options)),
            (NetworkCall::StopRemoteComms(), _) => {
                let stopped = self.up.take().and_then(|up| Some(up.network.get()?.stop()));
                tokio::spawn(async move {
                    if let Some(stopped) = stopped {
                        stopped.await;
                    }
                    responder.answer(Ok(Value::Null));
                });
            }
            (NetworkCall::Ping(), up) => {
                let heard = up.as_ref().and_then(|up| Some(up.network.get()?.ping()));
                tokio::spawn(async move {
                    if let Some(heard) = heard {
                        heard.await;
                    }
                    responder.answer(Ok(Value::Null));
                });
            }
            (NetworkCall::ResetAllBackoffs(), None) => responder.answer(Ok(Value::Null)),
            (_, None) => responder.answer(Err(Fault::failed("remote comms not initialized"))),
            (call, Some(up)) => up.asked(call, responder),
        }
    }
}

/// A running network and what it and the kernel wait for.
struct Up<N> {
    network: OnceLock<N>,
    caller: Caller,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    channels: BTreeMap<ChannelId, Told>,
    /// Hints for the next dial of a peer.
    hints: BTreeMap<PeerId, Vec<Hint>>,
    /// Numbers awaited writes.
    writes: u64,
}

/// A channel the kernel has been told of.
struct Told {
    peer: PeerId,
    /// Awaited writes, by the number they were given.
    writing: BTreeMap<u64, Responder>,
    classic: Option<Serial>,
}

/// What a classic channel brings, told one by one (03 D-23).
#[derive(Default)]
struct Serial {
    queue: VecDeque<Item>,
    telling: bool,
}

enum Item {
    Message(Arc<str>),
    /// The end of a batch that the network has counted.
    Consumed,
    Closed(String),
}

impl<N: Network> Up<N> {
    /// A request of the kernel.
    fn asked(&self, call: NetworkCall, responder: Responder) {
        let order = match call {
            NetworkCall::SendRemoteMessage { channel, message, .. } => {
                return self.send(channel, message, responder);
            }
            NetworkCall::RegisterLocationHints { peer_id, mut hints } => {
                self.state().hints.entry(peer_id).or_default().append(&mut hints);
                return responder.answer(Ok(Value::Null));
            }
            NetworkCall::WantLink { peer_id: peer, for_send } => {
                let hints = self.state().hints.remove(&peer).unwrap_or_default();
                LinkOrder::Want { peer, hints, for_send }
            }
            NetworkCall::KnockLink { peer_id: peer, hints } => LinkOrder::Knock { peer, hints },
            NetworkCall::UseRelays { relays } => LinkOrder::UseRelays { relays },
            NetworkCall::UnwantLink { peer_id: peer } => LinkOrder::Unwant { peer },
            NetworkCall::CloseConnection { peer_id: peer } => LinkOrder::ClosePeer { peer },
            NetworkCall::ReconnectPeer { peer_id: peer, hints } => LinkOrder::Reopen { peer, hints },
            NetworkCall::ForgetPeer { peer_id: peer } => {
                self.state().hints.remove(&peer);
                LinkOrder::ForgetPeer { peer }
            }
            NetworkCall::ForgetIncarnation { peer_id: peer } => LinkOrder::ResetNote { peer },
            NetworkCall::CloseChannel { channel, reason } => LinkOrder::CloseChannel { channel, reason },
            NetworkCall::ResetAllBackoffs() => LinkOrder::Woke,
            NetworkCall::SendFrames { channel, frames } => {
                let frames = frames.into_iter().map(|text| OutFrame { seq: None, text }).collect();
                LinkOrder::Send { channel, frames, awaited: false }
            }
            // The desk has dealt with these.
            NetworkCall::InitializeRemoteComms(_) | NetworkCall::Ping() | NetworkCall::StopRemoteComms() => {
                return;
            }
        };
        self.order(order);
        responder.answer(Ok(Value::Null));
    }

    fn send(&self, channel: ChannelId, message: Arc<str>, responder: Responder) {
        let mut state = self.state();
        state.writes += 1;
        let number = state.writes;
        let Some(told) = state.channels.get_mut(&channel) else {
            drop(state);
            return responder.answer(Err(Fault::failed(format!("there is no channel {channel}"))));
        };
        told.writing.insert(number, responder);
        drop(state);
        let frames = vec![OutFrame { seq: Some(Seq(number)), text: message }];
        self.order(LinkOrder::Send { channel, frames, awaited: true });
    }

    fn order(&self, order: LinkOrder) {
        if let Some(network) = self.network.get() {
            network.order(order);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An event of the network.
    fn happened(self: &Arc<Self>, event: LinkEvent) {
        let call = match event {
            LinkEvent::FactsWanted { channel, peer, dialed } => return self.greet(channel, peer, dialed),
            LinkEvent::HandshakeRead { channel, theirs, note_changed } => {
                return match theirs.session {
                    None => self.ask_boolean(channel, theirs.incarnation),
                    Some(_) => {
                        self.ask_verdict(
                            channel,
                            &KernelCall::RemoteHandshake { channel, theirs, note_changed },
                        );
                    }
                };
            }
            LinkEvent::Confirmed { channel } => {
                return self.ask_verdict(channel, &KernelCall::RemoteConfirmed { channel });
            }
            LinkEvent::FramesRead { channel, frames } => return self.frames(channel, frames),
            LinkEvent::Sent { channel, seq, outcome } => return self.written(channel, seq, outcome),
            LinkEvent::ChannelClosed { channel, reason } => return self.closed(channel, reason),
            LinkEvent::SendFailed { peer: peer_id, fault } => {
                KernelCall::RemoteSendFailed { peer_id, error: Fault::from(fault).marshal() }
            }
            LinkEvent::GaveUp { peer: peer_id } => KernelCall::RemoteGiveUp { peer_id },
            LinkEvent::Declined { peer: peer_id } => KernelCall::RemoteDeclined { peer_id },
            LinkEvent::HintsLearned { peer: peer_id, hints } => {
                KernelCall::RemoteLocationHints { peer_id, hints }
            }
            LinkEvent::Listening { addresses } => KernelCall::ListenAddresses { addresses },
            // Told by whoever starts this process, not by the network in it.
            LinkEvent::Restarted => return,
        };
        self.caller.tell(&call);
    }

    fn greet(self: &Arc<Self>, channel: ChannelId, peer: PeerId, dialed: bool) {
        let told = Told { peer: peer.clone(), writing: BTreeMap::new(), classic: None };
        self.state().channels.insert(channel, told);
        let up = self.clone();
        let call = KernelCall::RemoteGreeting { channel, peer_id: peer, dialed };
        let asked = self.caller.call(&call, move |answer| {
            let facts = answer.and_then(|facts| {
                serde_json::from_value::<Facts>(facts).map_err(|error| Fault::failed(error.to_string()))
            });
            match facts {
                Ok(facts) => up.order(LinkOrder::Greet { channel, facts }),
                Err(fault) => up.close(channel, &format!("no greeting: {fault}")),
            }
        });
        self.caller.limit(asked, VERDICT_MAX);
    }

    /// Asks for the verdict of the session generation.
    fn ask_verdict(self: &Arc<Self>, channel: ChannelId, call: &KernelCall) {
        let up = self.clone();
        let asked = self.caller.call(call, move |answer| {
            let verdict = answer.and_then(|verdict| {
                serde_json::from_value(verdict).map_err(|error| Fault::failed(error.to_string()))
            });
            let verdict = verdict.unwrap_or_else(|fault| unknown(channel, &fault.message));
            up.order(LinkOrder::Answer { channel, verdict });
        });
        self.caller.limit(asked, VERDICT_MAX);
    }

    /// Asks whether a classic peer has restarted (03 D.9).
    fn ask_boolean(self: &Arc<Self>, channel: ChannelId, observed_incarnation: Incarnation) {
        let mut state = self.state();
        let Some(told) = state.channels.get_mut(&channel) else { return };
        told.classic = Some(Serial::default());
        let peer_id = told.peer.clone();
        drop(state);
        let up = self.clone();
        let call = KernelCall::RemoteIncarnationChange { peer_id, channel, observed_incarnation };
        let asked = self.caller.call(&call, move |answer| {
            let verdict = match answer {
                Ok(Value::Bool(false)) => Verdict::Register,
                Ok(Value::Bool(true)) => Verdict::Restarted,
                Ok(other) => unknown(channel, &format!("{other} is no boolean")),
                Err(fault) => unknown(channel, &fault.message),
            };
            up.order(LinkOrder::Answer { channel, verdict });
        });
        self.caller.limit(asked, VERDICT_MAX);
    }

    fn frames(self: &Arc<Self>, channel: ChannelId, frames: Vec<Arc<str>>) {
        let mut state = self.state();
        let told = state.channels.get_mut(&channel);
        if let Some(serial) = told.and_then(|told| told.classic.as_mut()) {
            serial.queue.extend(frames.into_iter().map(Item::Message).chain([Item::Consumed]));
            drop(state);
            return self.tell_next(channel);
        }
        drop(state);
        let up = self.clone();
        self.caller.call(&KernelCall::RemoteFrames { channel, frames }, move |answer| match answer {
            Ok(_) => up.consumed(channel),
            Err(fault) => up.close(channel, &format!("not delivered: {fault}")),
        });
    }

    /// Tells what a classic channel has brought, unless the last of it is still unanswered.
    fn tell_next(self: &Arc<Self>, channel: ChannelId) {
        loop {
            let mut state = self.state();
            let Some(told) = state.channels.get_mut(&channel) else { return };
            let Some(serial) = told.classic.as_mut().filter(|serial| !serial.telling) else { return };
            let Some(item) = serial.queue.pop_front() else { return };
            serial.telling = matches!(item, Item::Message(_));
            let from = told.peer.clone();
            drop(state);
            match item {
                Item::Message(message) => {
                    let up = self.clone();
                    let call = KernelCall::RemoteDeliver { from, channel, message };
                    self.caller.call(&call, move |answer| up.delivered(channel, answer));
                }
                Item::Consumed => self.consumed(channel),
                Item::Closed(reason) => self.tell_closed(channel, reason),
            }
        }
    }

    /// A message has been acted on. Replies are messages of their own, so the answer says nothing more.
    fn delivered(self: &Arc<Self>, channel: ChannelId, answer: Result<Value, Fault>) {
        if let Err(fault) = answer {
            self.close(channel, &format!("not delivered: {fault}"));
        }
        let mut state = self.state();
        if let Some(serial) = state.channels.get_mut(&channel).and_then(|told| told.classic.as_mut()) {
            serial.telling = false;
        }
        drop(state);
        self.tell_next(channel);
    }

    fn written(&self, channel: ChannelId, seq: Option<Seq>, outcome: Result<(), SendFault>) {
        let mut state = self.state();
        let told = state.channels.get_mut(&channel);
        let responder = told.zip(seq).and_then(|(told, seq)| told.writing.remove(&seq.0));
        drop(state);
        if let Some(responder) = responder {
            responder.answer(outcome.map(|()| Value::Null).map_err(Fault::from));
        }
    }

    fn closed(self: &Arc<Self>, channel: ChannelId, reason: String) {
        let mut state = self.state();
        let serial = state.channels.get_mut(&channel).and_then(|told| told.classic.as_mut());
        if let Some(serial) = serial {
            serial.queue.push_back(Item::Closed(reason));
            drop(state);
            return self.tell_next(channel);
        }
        drop(state);
        self.tell_closed(channel, reason);
    }

    fn tell_closed(&self, channel: ChannelId, reason: String) {
        let told = self.state().channels.remove(&channel);
        for responder in told.into_iter().flat_map(|told| told.writing.into_values()) {
            responder.answer(Err(Fault::failed(reason.clone())));
        }
        self.caller.tell(&KernelCall::RemoteChannelClosed { channel, reason });
    }

    fn consumed(&self, channel: ChannelId) {
        if let Some(network) = self.network.get() {
            network.consumed(channel);
        }
    }

    fn close(&self, channel: ChannelId, reason: &str) {
        self.order(LinkOrder::CloseChannel { channel, reason: reason.to_owned() });
    }
}

/// The verdict where there is none: do not use the channel, conclude nothing, try again under back-off (03 D-20).
fn unknown(channel: ChannelId, why: &str) -> Verdict {
    tracing::error!(%channel, why, "verdict unknown: treating as restart to avoid stale delivery");
    Verdict::Refuse(format!("verdict unknown: {why}"))
}
