//! Remote communications inside the core: sessions as rows, outbox, receive, the handshake's consequence,
//! redemption, restart (03 A, C, D). The pure rules are in `capstan-wire`; here they meet transactions.
//!
//! **Invariant:** nothing here knows a socket or a multiaddr; a channel is a number, a hint an opaque text.

use crate::effect::Step;
use crate::fault::Corrupt;
use crate::host_op::{GrantView, Refusal, RemoteView};
use crate::input::RequestId;
use crate::kernel::KernelConfig;
use crate::turn::Turn;
use capstan_model::id::{GrantId, ObjectId, PromiseId, RemoteId};
use capstan_model::peer::{Hint, Incarnation, Millis, PeerId};
use capstan_store::overlay::Db;
use capstan_store::schema::SendItem;
use capstan_wire::seam::LinkEvent;

/// What is known of open channels: dies with the process, rebuilt from nothing.
#[derive(Debug, Default)]
pub(crate) struct Channels {}

/// One delivery to a peer, in kernel terms.
#[derive(Clone, Debug)]
pub(crate) enum RemoteDelivery {
    /// A message; its result's decider is the remote already.
    Message(SendItem),
    /// These settled promises, as one batch (02 §4.2).
    Notify(Vec<PromiseId>),
    /// We no longer reach these objects of the peer's.
    DropExports(Vec<ObjectId>),
    /// We no longer recognise these objects of the peer's.
    RetireExports(Vec<ObjectId>),
    /// These objects, which the peer imports, are gone.
    RetireImports(Vec<ObjectId>),
    /// Collect your garbage toward us.
    BringOutYourDead,
}

/// What became of a delivery to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Delivered {
    /// It is in the outbox.
    Queued,
    /// It cannot be said to this peer, with the reason: its result is rejected `DELIVERY_FAILED`.
    Refused(String),
}

/// Translates a delivery and appends it to the outbox. Never waits for the network.
pub(crate) fn deliver(
    turn: &mut Turn<'_>,
    rid: RemoteId,
    delivery: RemoteDelivery,
) -> Result<Delivered, Corrupt> {
    let _ = (turn, rid, delivery);
    Ok(Delivered::Refused("not connected".into()))
}

/// Handles one fact from the links, each frame in a transaction of its own.
pub(crate) fn link_event(
    db: &mut Db,
    channels: &mut Channels,
    config: &KernelConfig,
    now: Millis,
    event: LinkEvent,
    fresh: Incarnation,
    step: &mut Step,
) {
    let _ = (db, channels, config, now, event, fresh, step);
}

/// Does what is due: acknowledgements, retransmissions to classic peers, redemption deadlines.
pub(crate) fn time_came(
    db: &mut Db,
    channels: &mut Channels,
    config: &KernelConfig,
    now: Millis,
    step: &mut Step,
) {
    let _ = (db, channels, config, now, step);
}

/// Returns when [`time_came`] next has something to do.
pub(crate) fn next_deadline(db: &Db, channels: &Channels) -> Option<Millis> {
    let _ = (db, channels);
    None
}

/// At the start of a life: forgets redemptions of dead waiters, asks for every wanted link.
pub(crate) fn boot(
    db: &mut Db,
    channels: &mut Channels,
    config: &KernelConfig,
    now: Millis,
    step: &mut Step,
) {
    let _ = (db, channels, config, now, step);
}

/// At the end of every step: hands newly written outbox rows to registered channels, asks for links that are wanted.
pub(crate) fn transmit(
    db: &mut Db,
    channels: &mut Channels,
    config: &KernelConfig,
    now: Millis,
    step: &mut Step,
) {
    let _ = (db, channels, config, now, step);
}

/// Issues a grant for the object (03 A.5); counts as a root of it.
pub(crate) fn issue_url(
    turn: &mut Turn<'_>,
    object: ObjectId,
    secret: [u8; 32],
) -> Result<Result<GrantId, Refusal>, Corrupt> {
    let _ = (turn, object, secret);
    Ok(Err(Refusal::UrlUnknown("no grants".into())))
}

/// Ends a grant.
pub(crate) fn revoke_url(turn: &mut Turn<'_>, grant: GrantId) -> Result<Result<(), Refusal>, Corrupt> {
    let _ = (turn, grant);
    Ok(Err(Refusal::UrlUnknown("no grants".into())))
}

/// Lists the grants.
pub(crate) fn grants(db: &Db) -> Vec<GrantView> {
    let _ = db;
    Vec::new()
}

/// Redeems a URL for a request: answers at once for one of ours, else when the peer has answered. The answer, an
/// `Answer::Redeemed` or a refusal, is pushed to the turn's effects.
pub(crate) fn redeem_url(
    turn: &mut Turn<'_>,
    channels: &mut Channels,
    request: RequestId,
    url: &str,
    reply_key: &str,
) -> Result<(), Corrupt> {
    let _ = (turn, channels, request, url, reply_key);
    Ok(())
}

/// Gives up waiting for a redemption.
pub(crate) fn redemption_abandoned(channels: &mut Channels, request: RequestId) {
    let _ = (channels, request);
}

/// Remembers where a peer can be dialled; makes a remote for it if there is none.
pub(crate) fn peer_hint(
    turn: &mut Turn<'_>,
    peer: &PeerId,
    hints: Vec<Hint>,
) -> Result<Result<(), Refusal>, Corrupt> {
    let _ = (turn, peer, hints);
    Ok(Ok(()))
}

/// Intentionally closes a peer (03 B-48, C-24a).
pub(crate) fn peer_close(
    turn: &mut Turn<'_>,
    channels: &mut Channels,
    peer: &PeerId,
) -> Result<Result<(), Refusal>, Corrupt> {
    let _ = (turn, channels, peer);
    Ok(Ok(()))
}

/// Undoes a close (03 B-49).
pub(crate) fn peer_reconnect(
    turn: &mut Turn<'_>,
    peer: &PeerId,
    hints: Vec<Hint>,
) -> Result<Result<(), Refusal>, Corrupt> {
    let _ = (turn, peer, hints);
    Ok(Ok(()))
}

/// Deletes a remote and all that is kept about it (03 C-42, S14).
pub(crate) fn peer_forget(
    turn: &mut Turn<'_>,
    channels: &mut Channels,
    peer: &PeerId,
) -> Result<Result<(), Refusal>, Corrupt> {
    let _ = (turn, channels, peer);
    Ok(Ok(()))
}

/// Lists the remotes.
pub(crate) fn remotes(db: &Db, channels: &Channels) -> Vec<RemoteView> {
    let _ = (db, channels);
    Vec::new()
}

/// Returns our own confirmed listen addresses.
pub(crate) fn listening(channels: &Channels) -> Vec<Hint> {
    let _ = channels;
    Vec::new()
}
