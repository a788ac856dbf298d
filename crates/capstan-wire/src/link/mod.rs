//! The link machine: who dials, which channel to a peer counts, when to try again (03 B, D.6).
//!
//! One [`Links`] serves all peers of a kernel. It takes the kernel's orders and facts about sockets and answers
//! with [`Action`]s; whoever drives it carries them out in order. Everything here is volatile: it is rebuilt from
//! nothing at every start, and the last-incarnation note is the one deliberate second witness (03 D.6).
//!
//! **Double dials.** Per peer, handshakes between the two sides are taken one after the other, so that both ends
//! register the same channel. The side with the smaller peer id (as text) lets its own dial go first: the other's
//! waits, unread, until that one is registered (then it is closed) or lost (then it goes on). The other side always
//! answers what it is dialled with, and drops its own dial once that one is registered. A lone channel is always kept.

mod dialling;
mod fault;
mod handshake;
mod pacing;
mod policy;
mod rate;

pub use fault::{DialFault, FaultCode};
pub use policy::{LinkOptions, delay};
pub use rate::{RateLimiter, TooFast};

use crate::facts::Facts;
use crate::seam::{LinkEvent, LinkOrder, SendFault};
use capstan_model::peer::{ChannelId, Hint, Incarnation, Millis, PeerId, Seq};
use rate::TokenBucket;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// What happened to sockets. Made by whoever drives the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkFact {
    /// A raw stream to a peer is open; a dialled one answers [`Action::Dial`].
    ChannelUp {
        /// A fresh number, larger than any before.
        channel: ChannelId,
        /// The authenticated other end.
        peer: PeerId,
        /// Whether we dialled it.
        dialed: bool,
        /// Whether it was negotiated by the name that kernels of the reference know.
        reference: bool,
    },
    /// One frame arrived.
    TextRead {
        /// Where.
        channel: ChannelId,
        /// Its text.
        text: Arc<str>,
    },
    /// Several frames arrived, in order.
    TextsRead {
        /// Where.
        channel: ChannelId,
        /// Their texts.
        texts: Vec<Arc<str>>,
    },
    /// An [`Action::Write`] with a token ended.
    Written {
        /// Where.
        channel: ChannelId,
        /// Its token.
        token: WriteToken,
        /// How.
        outcome: Result<(), String>,
    },
    /// The stream is gone.
    ChannelDown {
        /// Which.
        channel: ChannelId,
        /// For the log.
        reason: String,
    },
    /// An [`Action::Dial`] came to nothing.
    DialFailed {
        /// Whom.
        peer: PeerId,
        /// Why.
        error: DialFault,
    },
    /// The connection beneath a peer's channels has shown that it lives, though they are silent.
    Alive {
        /// Whose.
        peer: PeerId,
    },
    /// A peer showed where it can be dialled.
    HintsSeen {
        /// Whom.
        peer: PeerId,
        /// Where.
        hints: Vec<Hint>,
    },
    /// A deadline may have passed.
    Tick,
}

/// Names an awaited write: the number of its last frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteToken(pub Option<Seq>);

/// What the machine wants done, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open a stream to this peer; answered by one [`LinkFact::ChannelUp`] or [`LinkFact::DialFailed`].
    Dial {
        /// Whom.
        peer: PeerId,
        /// Where it might be.
        hints: Vec<Hint>,
    },
    /// Write these frames, together if possible.
    Write {
        /// Where.
        channel: ChannelId,
        /// What.
        texts: Vec<Arc<str>>,
        /// Whether to answer with [`LinkFact::Written`].
        token: Option<WriteToken>,
    },
    /// End a channel; nothing about it is to be told any more. `graceful`: write what is queued, then end the stream.
    Close {
        /// Which.
        channel: ChannelId,
        /// See above.
        graceful: bool,
    },
    /// Tell the kernel.
    Report(LinkEvent),
}

/// All links of one kernel.
#[derive(Debug)]
pub struct Links {
    own: PeerId,
    options: LinkOptions,
    peers: BTreeMap<PeerId, Peer>,
    channels: BTreeMap<ChannelId, Channel>,
    /// Peers whose dial waits until another channel is gone, in the order asked.
    room: VecDeque<PeerId>,
    actions: Vec<Action>,
    stopped: bool,
}

/// What is remembered of one peer while the process lives.
#[derive(Debug, Default)]
struct Peer {
    hints: Vec<Hint>,
    /// The incarnation last seen in a handshake (03 D.6).
    last_incarnation: Option<Incarnation>,
    wanted: bool,
    /// Closed by intent (03 B-48).
    closed: bool,
    /// The peer has closed us by intent: it is dialled seldom, in case it has forgotten that with its store.
    declined: bool,
    /// A dial for a send met a restarted peer: no dial by itself until the next want (03 S5).
    held: bool,
    gave_up: bool,
    attempt: u32,
    /// The last failure of a dial, and how many of its kind came in a row.
    fault: Option<FaultCode>,
    faults: u32,
    retry_at: Option<Millis>,
    /// Its dial waits for room, and what it is for.
    queued: Option<Purpose>,
    dials: Option<RateLimiter>,
    messages: Option<RateLimiter>,
    /// What a peer of the reference may be sent.
    classic: Option<TokenBucket>,
    last_active: Millis,
    /// A dial is in flight, and whether it is for a send.
    dialing: Option<Purpose>,
    registered: Option<ChannelId>,
}

/// Why a dial was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Send,
    Reconnect,
}

#[derive(Debug)]
struct Channel {
    peer: PeerId,
    /// Why we dialled it; `None`: the peer did.
    dialed: Option<Purpose>,
    reference: bool,
    stage: Stage,
    /// The kernel has been told of it.
    announced: bool,
    ours_session: bool,
    /// The peer's handshake, from its reading to the verdict.
    theirs: Option<Facts>,
    note_changed: bool,
    /// The dialler's `confirm` is still to be read.
    confirm_due: bool,
    /// Frames that came before they may be used.
    kept: VecDeque<Arc<str>>,
    kept_bytes: usize,
    deadline: Option<Millis>,
    registered_at: Millis,
    last_active: Millis,
    awaited: VecDeque<WriteToken>,
    /// Frames that wait for a rate limit, with the token of the order that ends there.
    paced: VecDeque<(Arc<str>, Option<WriteToken>)>,
}

/// How far a channel is. Parked stages hold the machine's whole attention back, not the peer's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Ours, waiting for the peer's to be done.
    Parked,
    /// The peer's; its `handshake` is to be read.
    AwaitHello,
    /// The kernel is asked what to say.
    AwaitFacts,
    /// Ours; the peer's `handshakeAck` is to be read.
    AwaitAck,
    /// The kernel is asked for its verdict.
    AwaitVerdict,
    /// The dialler's `confirm` is to be read.
    AwaitConfirm,
    Registered,
}

impl Links {
    /// Starts with no peers. `own` is this kernel's own peer id.
    pub fn new(own: PeerId, options: LinkOptions) -> Self {
        let (peers, channels) = (BTreeMap::new(), BTreeMap::new());
        Links { own, options, peers, channels, room: VecDeque::new(), actions: Vec::new(), stopped: false }
    }

    /// Takes one order of the kernel. `chance` is any random number; it only spreads retries.
    pub fn order(&mut self, now: Millis, chance: u64, order: LinkOrder) -> Vec<Action> {
        if self.stopped {
            self.order_stopped(order);
            return std::mem::take(&mut self.actions);
        }
        match order {
            LinkOrder::Want { peer, hints, for_send } => self.want(now, peer, hints, for_send),
            LinkOrder::Knock { peer, hints } => self.knock(now, peer, hints),
            LinkOrder::Unwant { peer } => self.unwant(&peer),
            LinkOrder::Greet { channel, facts } => self.greet(now, channel, &facts),
            LinkOrder::Answer { channel, verdict } => self.answer(now, chance, channel, verdict),
            LinkOrder::Send { channel, frames, awaited } => {
                let seq = frames.last().and_then(|frame| frame.seq);
                let texts = frames.into_iter().map(|frame| frame.text).collect();
                self.send(now, channel, texts, awaited.then_some(WriteToken(seq)));
            }
            LinkOrder::CloseChannel { channel, reason } => {
                self.close(channel, &reason, true);
                self.settle(now, chance);
            }
            LinkOrder::ClosePeer { peer } => self.close_peer(now, peer),
            LinkOrder::Reopen { peer, hints } => self.reopen(now, peer, hints),
            LinkOrder::ForgetPeer { peer } => self.forget(&peer),
            LinkOrder::Woke => self.woke(now),
            LinkOrder::UseRelays { .. } => {}
            LinkOrder::ResetNote { peer } => {
                if let Some(known) = self.peers.get_mut(&peer) {
                    known.last_incarnation = None;
                    known.attempt = 0;
                }
            }
        }
        self.settle(now, chance);
        std::mem::take(&mut self.actions)
    }

    /// Takes one fact about sockets. `chance` is any random number; it only spreads retries.
    pub fn observe(&mut self, now: Millis, chance: u64, fact: LinkFact) -> Vec<Action> {
        match fact {
            LinkFact::ChannelUp { channel, peer, dialed, reference } => {
                self.channel_up(now, channel, peer, dialed, reference);
            }
            LinkFact::TextRead { channel, text } => self.texts_read(now, channel, vec![text]),
            LinkFact::TextsRead { channel, texts } => self.texts_read(now, channel, texts),
            LinkFact::Written { channel, token, outcome } => self.written(channel, token, outcome),
            LinkFact::ChannelDown { channel, reason } => self.lost(channel, &reason),
            LinkFact::DialFailed { peer, error } => self.dial_failed(&peer, &error),
            LinkFact::Alive { peer } => self.alive(now, &peer),
            LinkFact::HintsSeen { peer, hints } => self.hints_seen(now, peer, hints),
            LinkFact::Tick => self.expire(now),
        }
        self.settle(now, chance);
        std::mem::take(&mut self.actions)
    }

    /// Ends everything; idempotent. Later orders fail with `NetworkStoppedError` (03 B-50).
    pub fn stop(&mut self) -> Vec<Action> {
        self.stopped = true;
        let all: Vec<ChannelId> = self.channels.keys().copied().collect();
        for channel in all {
            self.close(channel, "network stopped", true);
        }
        self.peers.clear();
        self.room.clear();
        std::mem::take(&mut self.actions)
    }

    /// When [`LinkFact::Tick`] is due at the latest; `None`: not until something else happens. What ends silence and
    /// forgets peers is not waited for to the moment: a tick every few seconds does that.
    pub fn next_deadline(&self) -> Option<Millis> {
        let of_peers = self.peers.values().filter_map(|peer| peer.retry_at);
        let of_channels = self.channels.values().filter_map(|channel| self.channel_deadline(channel));
        of_peers.chain(of_channels).min()
    }

    /// The channel in use to this peer.
    pub fn registered(&self, peer: &PeerId) -> Option<ChannelId> {
        self.peers.get(peer)?.registered
    }

    fn order_stopped(&mut self, order: LinkOrder) {
        if let LinkOrder::Want { peer, for_send: true, .. } | LinkOrder::Reopen { peer, .. } = order {
            self.report(LinkEvent::SendFailed { peer, fault: terminal("NetworkStoppedError") });
        } else if let LinkOrder::Send { channel, frames, awaited: true } = order {
            let seq = frames.last().and_then(|frame| frame.seq);
            self.report(LinkEvent::Sent { channel, seq, outcome: Err(terminal("NetworkStoppedError")) });
        }
    }

    fn written(&mut self, channel: ChannelId, token: WriteToken, outcome: Result<(), String>) {
        let Some(open) = self.channels.get_mut(&channel) else { return };
        let Some(at) = open.awaited.iter().position(|waiting| *waiting == token) else { return };
        open.awaited.remove(at);
        match outcome {
            Ok(()) => self.report(LinkEvent::Sent { channel, seq: token.0, outcome: Ok(()) }),
            Err(text) => {
                let outcome = Err(SendFault::Transient(text.clone()));
                self.report(LinkEvent::Sent { channel, seq: token.0, outcome });
                self.close(channel, &text, false);
            }
        }
    }

    /// Closes a channel from our side.
    fn close(&mut self, channel: ChannelId, reason: &str, graceful: bool) {
        if self.channels.contains_key(&channel) {
            self.actions.push(Action::Close { channel, graceful });
            self.lost(channel, reason);
        }
    }

    /// Removes a channel that is gone. Re-dialling is left to [`Links::settle`].
    fn lost(&mut self, channel: ChannelId, reason: &str) {
        let Some(gone) = self.channels.remove(&channel) else { return };
        for token in gone.awaited {
            let outcome = Err(SendFault::Transient(reason.to_owned()));
            self.report(LinkEvent::Sent { channel, seq: token.0, outcome });
        }
        if let Some(peer) = self.peers.get_mut(&gone.peer) {
            peer.last_active = peer.last_active.max(gone.last_active);
            peer.registered = peer.registered.filter(|registered| *registered != channel);
        }
        self.forget_blank(&gone.peer);
        if gone.announced {
            self.report(LinkEvent::ChannelClosed { channel, reason: reason.to_owned() });
        }
    }

    /// Forgets a peer of whom nothing is to be remembered; never one that has a channel, which may come into use yet.
    fn forget_blank(&mut self, peer: &PeerId) {
        let blank = self.peers.get(peer).is_some_and(Peer::is_blank);
        if blank && self.channels.values().all(|open| &open.peer != peer) {
            self.peers.remove(peer);
        }
    }

    fn report(&mut self, event: LinkEvent) {
        self.actions.push(Action::Report(event));
    }
}

fn terminal(name: &str) -> SendFault {
    SendFault::Terminal(name.to_owned())
}
