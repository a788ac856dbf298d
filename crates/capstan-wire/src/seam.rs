//! The seam between the kernel and whatever moves frames: orders down, facts up, nothing else.
//!
//! The link machine ([`crate::link`]) is driven by these orders and reports these facts; the network crate
//! carries out what the machine wants done with sockets, the simulator does the same with queues.
//! Between the two lies the *verdict*: after every successful handshake, in either direction, the link asks
//! ([`LinkEvent::HandshakeRead`]) and waits until the kernel has answered ([`LinkOrder::Answer`]).

use crate::facts::Facts;
use capstan_model::peer::{ChannelId, Hint, PeerId, Seq};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// One application frame on its way out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutFrame {
    /// Its number; `None`: an acknowledgement only.
    pub seq: Option<Seq>,
    /// The exact text to write.
    pub text: Arc<str>,
}

/// What the kernel orders. Effects: executed only after the batch that caused them is durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkOrder {
    /// Keep a link to this peer from now on, dialling if there is none. `for_send`: there is something to send
    /// now, so an outbound handshake that finds the peer restarted is reported as [`LinkEvent::SendFailed`] (03 B-29, S5).
    Want {
        /// Whom.
        peer: PeerId,
        /// Where it might be found; merged with what is known.
        hints: Vec<Hint>,
        /// Whether something waits to be sent.
        for_send: bool,
    },
    /// Dial once, though we need no link: the peer may wait for us to be there again.
    Knock {
        /// Whom.
        peer: PeerId,
        /// Where it might be found; merged with what is known.
        hints: Vec<Hint>,
    },
    /// Be reachable through these relays too. Carried out by whoever has sockets: the link machine knows no relay.
    UseRelays {
        /// Their addresses, each ending in `/p2p/…`.
        relays: Vec<Hint>,
    },
    /// No link is needed; an open channel may stay until it ends by itself.
    Unwant {
        /// Whom.
        peer: PeerId,
    },
    /// Answers [`LinkEvent::FactsWanted`].
    Greet {
        /// Which channel.
        channel: ChannelId,
        /// What to say on it.
        facts: Facts,
    },
    /// Answers [`LinkEvent::HandshakeRead`] and [`LinkEvent::Confirmed`].
    Answer {
        /// Which channel.
        channel: ChannelId,
        /// What to do with it.
        verdict: Verdict,
    },
    /// Write these frames, in order, on a registered channel; ignored if that channel is gone.
    Send {
        /// Which channel.
        channel: ChannelId,
        /// What to write, together if possible.
        frames: Vec<OutFrame>,
        /// Report the end of the write of the last frame as [`LinkEvent::Sent`] (one at a time, 03 C-20).
        awaited: bool,
    },
    /// Close one channel: it belongs to another session or broke the rules.
    CloseChannel {
        /// Which.
        channel: ChannelId,
        /// For the log.
        reason: String,
    },
    /// Close all channels to this peer and refuse it until [`LinkOrder::Reopen`] (03 B-48).
    ClosePeer {
        /// Whom.
        peer: PeerId,
    },
    /// Undo [`LinkOrder::ClosePeer`], reset back-off, merge the hints, dial (03 B-49).
    Reopen {
        /// Whom.
        peer: PeerId,
        /// Where it might be found.
        hints: Vec<Hint>,
    },
    /// Drop all memory of this peer: note, hints, back-off, intentional close.
    ForgetPeer {
        /// Whom.
        peer: PeerId,
    },
    /// Forget the note of the peer's last incarnation and its back-off; hints stay (finalising a restart, 03 S9).
    ResetNote {
        /// Whom.
        peer: PeerId,
    },
    /// The machine or the kernel was away for long: forget every back-off and every surrender, and try again now
    /// (03 B-45).
    Woke,
}

/// What happened below. Inputs of the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkEvent {
    /// A channel needs our handshake facts: we dialled it, or the peer did and its handshake has been read.
    FactsWanted {
        /// Which channel; new.
        channel: ChannelId,
        /// Whose.
        peer: PeerId,
        /// Whether we dialled it.
        dialed: bool,
    },
    /// Both handshake frames have crossed; the channel waits for the verdict (03 S3).
    HandshakeRead {
        /// Which channel.
        channel: ChannelId,
        /// What the peer said.
        theirs: Facts,
        /// The link's own note held another incarnation than the one just observed (03 D.6). The link ORs it
        /// into a classic verdict by itself; the kernel sees it only for the log.
        note_changed: bool,
    },
    /// The dialler's `confirm` was read on a channel whose verdict was [`Verdict::AwaitConfirm`].
    Confirmed {
        /// Which channel.
        channel: ChannelId,
    },
    /// Application frames arrived on a registered channel, in order.
    FramesRead {
        /// Which channel.
        channel: ChannelId,
        /// Their texts.
        frames: Vec<Arc<str>>,
    },
    /// An awaited [`LinkOrder::Send`] ended.
    Sent {
        /// Which channel.
        channel: ChannelId,
        /// The number of its last frame.
        seq: Option<Seq>,
        /// How.
        outcome: Result<(), SendFault>,
    },
    /// Sending to this peer failed without a channel to blame: the dial met a restarted peer, the peer is
    /// closed, the network stops, or the link gave up.
    SendFailed {
        /// Whom.
        peer: PeerId,
        /// Why.
        fault: SendFault,
    },
    /// A channel is gone, registered or not; nothing more comes from it.
    ChannelClosed {
        /// Which.
        channel: ChannelId,
        /// For the log.
        reason: String,
    },
    /// `maxRetryAttempts` is set and used up for this peer (03 B-38).
    GaveUp {
        /// Whom.
        peer: PeerId,
    },
    /// The peer has closed us by intent: until it dials or we are told to, it is dialled seldom (03 B-48).
    Declined {
        /// Who.
        peer: PeerId,
    },
    /// The peer said or showed where it can be dialled.
    HintsLearned {
        /// Whom.
        peer: PeerId,
        /// Where.
        hints: Vec<Hint>,
    },
    /// Our own confirmed listen addresses, most useful first; replaces what was told before.
    Listening {
        /// The addresses, each ending in `/p2p/…`.
        addresses: Vec<Hint>,
    },
    /// The links begin anew, since the process that had them died: no channel is open, nobody is wanted or closed, every
    /// note and back-off is forgotten. The kernel orders again what is to hold.
    Restarted,
}

/// What becomes of a channel whose handshake is complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Use it. The dialler of a session channel writes `confirm` first.
    Register,
    /// We did not dial, and our session would change: ask again when the dialler's `confirm` has been read.
    AwaitConfirm,
    /// The peer restarted (classic generation): close it; a dial made for a send fails with
    /// `PeerRestartedError`; the next handshake is accepted (03 S5, S6).
    Restarted,
    /// Close it, log why, and try again under back-off: a failed handshake (03 S7), stale facts, a clone.
    Refuse(String),
}

/// Why a send did not happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SendFault {
    /// One of the three terminal errors, by name (03 D.8): see `capstan_model::error::is_terminal_send_error`.
    Terminal(String),
    /// Anything else, with its text: will be tried again.
    Transient(String),
}
