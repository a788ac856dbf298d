//! The end of the kernel's process: orders become requests and answers, requests become events.

use crate::fault::Fault;
use crate::message::{KernelCall, NetworkCall, Options};
use crate::rpc::{self, Caller, Desk, Responder};
use capstan_model::peer::{ChannelId, PeerId};
use capstan_wire::facts::Facts;
use capstan_wire::seam::{LinkEvent, LinkOrder, OutFrame, Verdict};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::{AsyncRead, AsyncWrite};

/// The kernel, as its end of the hop sees it.
pub trait Kernel: Send + Sync + 'static {
    /// Takes an event, in order. Must not block.
    fn happened(&self, event: LinkEvent);

    /// Whether anybody compares incarnations; if not, every life is accepted (03 D.9, "no handler registered").
    fn compares(&self) -> bool {
        true
    }
}

impl<F: Fn(LinkEvent) + Send + Sync + 'static> Kernel for F {
    fn happened(&self, event: LinkEvent) {
        self(event);
    }
}

/// A hop, from the kernel's side. Nothing here blocks; what cannot be told any more is dropped.
#[derive(Clone)]
pub struct KernelEnd {
    caller: Caller,
    owed: Arc<Mutex<Owed>>,
    kernel: Arc<dyn Kernel>,
}

/// What the network waits for, and which channels it has told of.
#[derive(Default)]
struct Owed {
    channels: BTreeMap<ChannelId, PeerId>,
    facts: BTreeMap<ChannelId, Responder>,
    verdicts: BTreeMap<ChannelId, Due>,
    /// Batches of frames that the kernel has not dealt with.
    unread: BTreeMap<ChannelId, VecDeque<Responder>>,
    last_channel: u64,
}

impl KernelEnd {
    /// Takes over a stream. The future reads it to its end, which closes every channel, and has to be run. To be called
    /// on a tokio runtime.
    pub fn new(
        reader: impl AsyncRead + Send + Unpin + 'static,
        writer: impl AsyncWrite + Send + Unpin + 'static,
        kernel: Arc<dyn Kernel>,
    ) -> (KernelEnd, impl Future<Output = io::Result<()>> + Send + 'static) {
        let end = KernelEnd { caller: rpc::caller("m", writer), owed: Arc::default(), kernel };
        let mut desk = end.clone();
        let drained = async move {
            let caller = desk.caller.clone();
            let outcome = rpc::drain(reader, &caller, &mut desk).await;
            desk.ended();
            outcome
        };
        (end, drained)
    }

    /// Starts the network. Orders given afterwards find it started.
    pub fn initialize(&self, options: Options) -> impl Future<Output = Result<(), Fault>> + Send + 'static {
        let (told, answer) = tokio::sync::oneshot::channel();
        self.caller.call(&NetworkCall::InitializeRemoteComms(options.into()), move |outcome| {
            drop(told.send(outcome))
        });
        async move {
            let outcome = answer.await.unwrap_or_else(|_| Err(Fault::failed("the network ended")));
            outcome.map(drop)
        }
    }

    /// Waits until the network has taken what it was told before. A network that is gone has.
    pub async fn ping(&self) {
        if let Err(fault) = self.caller.ask(&NetworkCall::Ping()).await {
            tracing::debug!(%fault, "the network refuses to be asked whether it lives");
        }
    }

    /// Closes everything cleanly.
    pub async fn stop(&self) -> Result<(), Fault> {
        self.caller.ask(&NetworkCall::StopRemoteComms()).await.map(drop)
    }

    /// The highest number that a channel had.
    pub fn last_channel(&self) -> u64 {
        self.owed().last_channel
    }

    /// Passes an order on.
    pub fn order(&self, order: LinkOrder) {
        let tell = |call: NetworkCall| self.caller.tell(&call);
        match order {
            LinkOrder::Want { peer, hints, for_send } => {
                if !hints.is_empty() {
                    tell(NetworkCall::RegisterLocationHints { peer_id: peer.clone(), hints });
                }
                tell(NetworkCall::WantLink { peer_id: peer, for_send });
            }
            LinkOrder::Knock { peer, hints } => tell(NetworkCall::KnockLink { peer_id: peer, hints }),
            LinkOrder::UseRelays { relays } => tell(NetworkCall::UseRelays { relays }),
            LinkOrder::Unwant { peer } => tell(NetworkCall::UnwantLink { peer_id: peer }),
            LinkOrder::Greet { channel, facts } => {
                if let Some(responder) = self.owed().facts.remove(&channel) {
                    responder.answer(Ok(json!(facts)));
                }
            }
            LinkOrder::Answer { channel, verdict } => {
                if let Some(due) = self.owed().verdicts.remove(&channel) {
                    due.answer(verdict);
                }
            }
            LinkOrder::Send { channel, frames, awaited } => self.send(channel, frames, awaited),
            LinkOrder::CloseChannel { channel, reason } => {
                tell(NetworkCall::CloseChannel { channel, reason });
            }
            LinkOrder::ClosePeer { peer } => tell(NetworkCall::CloseConnection { peer_id: peer }),
            LinkOrder::Reopen { peer, hints } => tell(NetworkCall::ReconnectPeer { peer_id: peer, hints }),
            LinkOrder::ForgetPeer { peer } => tell(NetworkCall::ForgetPeer { peer_id: peer }),
            LinkOrder::ResetNote { peer } => tell(NetworkCall::ForgetIncarnation { peer_id: peer }),
            LinkOrder::Woke => tell(NetworkCall::ResetAllBackoffs()),
        }
    }

    /// The kernel has dealt with the oldest batch of frames of a channel.
    pub fn consumed(&self, channel: ChannelId) {
        let responder = self.owed().unread.get_mut(&channel).and_then(VecDeque::pop_front);
        if let Some(responder) = responder {
            responder.answer(Ok(Value::Null));
        }
    }

    /// Of what is awaited the last frame is: its write ends the others'.
    fn send(&self, channel: ChannelId, mut frames: Vec<OutFrame>, awaited: bool) {
        let last = if awaited { frames.pop() } else { None };
        if !frames.is_empty() {
            let frames = frames.into_iter().map(|frame| frame.text).collect();
            self.caller.tell(&NetworkCall::SendFrames { channel, frames });
        }
        let Some(OutFrame { seq, text: message }) = last else { return };
        let Some(to) = self.owed().channels.get(&channel).cloned() else { return };
        let kernel = self.kernel.clone();
        self.caller.call(&NetworkCall::SendRemoteMessage { to, channel, message }, move |outcome| {
            let outcome = outcome.map(drop).map_err(Into::into);
            kernel.happened(LinkEvent::Sent { channel, seq, outcome });
        });
    }

    fn owed(&self) -> MutexGuard<'_, Owed> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the kernel for a verdict, which it gives by an order. A kernel that panics has given none.
    fn judge(&self, channel: ChannelId, due: Due, event: LinkEvent) {
        self.owed().verdicts.insert(channel, due);
        let asked = catch_unwind(AssertUnwindSafe(|| self.kernel.happened(event)));
        if asked.is_err() {
            let unanswered = self.owed().verdicts.remove(&channel);
            drop(unanswered);
        }
    }

    /// Every channel went with the network.
    fn ended(&self) {
        let mut owed = std::mem::take(&mut *self.owed());
        self.owed().last_channel = owed.last_channel;
        std::mem::take(&mut owed.verdicts).into_values().for_each(Due::forget);
        for channel in owed.channels.into_keys() {
            let reason = "the process of the network ended".to_owned();
            self.kernel.happened(LinkEvent::ChannelClosed { channel, reason });
        }
    }

    fn tell(&self, responder: Responder, event: LinkEvent) {
        self.kernel.happened(event);
        responder.answer(Ok(Value::Null));
    }
}

/// A verdict that the network waits for.
enum Due {
    Session(Responder),
    Classic(ClassicDue),
}

impl Due {
    fn answer(self, verdict: Verdict) {
        match self {
            Due::Session(responder) => responder.answer(Ok(json!(verdict))),
            Due::Classic(due) => due.answer(verdict),
        }
    }

    /// The channel is gone: nobody needs the verdict.
    fn forget(self) {
        if let Due::Classic(mut due) = self {
            due.responder = None;
        }
    }
}

/// A verdict that crosses as a boolean. Dropped without one, it says not to use the channel.
struct ClassicDue {
    responder: Option<Responder>,
    channel: ChannelId,
    caller: Caller,
}

impl ClassicDue {
    fn answer(mut self, verdict: Verdict) {
        match verdict {
            Verdict::Register => self.say(false),
            Verdict::Restarted => self.say(true),
            Verdict::Refuse(reason) => self.refuse(&reason),
            Verdict::AwaitConfirm => self.refuse("the kernel answered AwaitConfirm, which is no boolean"),
        }
    }

    /// True only says not to use the channel. Closing it first tells the network that this is a failed attempt and no
    /// restart: nothing is given up, and the next dial comes under back-off (03 D-20).
    fn refuse(&mut self, reason: &str) {
        tracing::warn!(channel = %self.channel, reason, "verdict unknown: the channel is not used");
        let reason = format!("verdict unknown: {reason}");
        self.caller.tell(&NetworkCall::CloseChannel { channel: self.channel, reason });
        self.say(true);
    }

    fn say(&mut self, refused: bool) {
        if let Some(responder) = self.responder.take() {
            responder.answer(Ok(json!(refused)));
        }
    }
}

impl Drop for ClassicDue {
    fn drop(&mut self) {
        if self.responder.is_some() {
            self.refuse("the kernel failed to judge");
        }
    }
}

impl Desk for KernelEnd {
    fn begin(&mut self, method: &str, params: Value, responder: Responder) {
        let call = match KernelCall::parse(method, params) {
            Ok(call) => call,
            Err(fault) => return responder.answer(Err(fault)),
        };
        match call {
            KernelCall::RemoteGreeting { channel, peer_id: peer, dialed } => {
                let mut owed = self.owed();
                owed.channels.insert(channel, peer.clone());
                owed.facts.insert(channel, responder);
                owed.last_channel = owed.last_channel.max(channel.0);
                drop(owed);
                self.kernel.happened(LinkEvent::FactsWanted { channel, peer, dialed });
            }
            KernelCall::RemoteIncarnationChange { channel, observed_incarnation, .. } => {
                if !self.kernel.compares() {
                    return responder.answer(Ok(json!(false)));
                }
                let theirs = Facts { incarnation: observed_incarnation, session: None };
                let due = ClassicDue { responder: Some(responder), channel, caller: self.caller.clone() };
                let event = LinkEvent::HandshakeRead { channel, theirs, note_changed: false };
                self.judge(channel, Due::Classic(due), event);
            }
            KernelCall::RemoteHandshake { channel, theirs, note_changed } => {
                let event = LinkEvent::HandshakeRead { channel, theirs, note_changed };
                self.judge(channel, Due::Session(responder), event);
            }
            KernelCall::RemoteConfirmed { channel } => {
                self.judge(channel, Due::Session(responder), LinkEvent::Confirmed { channel });
            }
            KernelCall::RemoteFrames { channel, frames } => {
                self.owed().unread.entry(channel).or_default().push_back(responder);
                self.kernel.happened(LinkEvent::FramesRead { channel, frames });
            }
            KernelCall::RemoteDeliver { channel, message, .. } => {
                self.owed().unread.entry(channel).or_default().push_back(responder);
                self.kernel.happened(LinkEvent::FramesRead { channel, frames: vec![message] });
            }
            KernelCall::RemoteSendFailed { peer_id: peer, error } => {
                let fault = Fault::unmarshal(&error).into();
                self.tell(responder, LinkEvent::SendFailed { peer, fault });
            }
            KernelCall::RemoteChannelClosed { channel, reason } => {
                let mut owed = self.owed();
                owed.channels.remove(&channel);
                owed.facts.remove(&channel);
                let unjudged = owed.verdicts.remove(&channel);
                let unread = owed.unread.remove(&channel);
                drop(owed);
                unjudged.into_iter().for_each(Due::forget);
                drop(unread);
                self.tell(responder, LinkEvent::ChannelClosed { channel, reason });
            }
            KernelCall::RemoteGiveUp { peer_id: peer } => self.tell(responder, LinkEvent::GaveUp { peer }),
            KernelCall::RemoteDeclined { peer_id: peer } => {
                self.tell(responder, LinkEvent::Declined { peer });
            }
            KernelCall::RemoteLocationHints { peer_id: peer, hints } => {
                self.tell(responder, LinkEvent::HintsLearned { peer, hints });
            }
            KernelCall::ListenAddresses { addresses } => {
                self.tell(responder, LinkEvent::Listening { addresses });
            }
        }
    }
}
