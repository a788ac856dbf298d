//! What a handshake leads to: decided from what was said and what holds now, committed, then bound (03 G.3, D.2, D.6).

use super::channels::{Bound, Channel, Channels, SessionName};
use super::quota;
use super::restart::{
    Ending, RestartOutcome, clear_sequence, end_session, finalize_peer_restart, persist_peer_restart,
};
use super::{facts, fork};
use crate::effect::{Effect, LogLevel, Step};
use crate::fault::Corrupt;
use crate::kernel::KernelConfig;
use crate::turn::{Turn, transact};
use capstan_model::id::RemoteId;
use capstan_model::peer::{ChannelId, Epoch, Incarnation, Millis, PeerId, Seq};
use capstan_store::overlay::{Db, Tx};
use capstan_store::schema::{Meta, Sessions};
use capstan_wire::decide::{
    Decision, KernelVerdict, NewVerdict, Standing, awaits_confirm, decide, restart_verdict, stale_classic,
    stale_new, stale_resume,
};
use capstan_wire::facts::Facts;
use capstan_wire::seam::{LinkOrder, Verdict};

/// Which other channels end with a conclusion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    None,
    /// The peer's channel in use, which this one replaces.
    Replaced,
    /// All of this peer.
    OfPeer,
    /// All.
    Every,
}

/// What is to be done once the rows are written.
#[derive(Debug)]
struct Conclusion {
    verdict: Verdict,
    bound: Option<Bound>,
    ends: Ends,
    outcomes: Vec<RestartOutcome>,
    alarm: Option<String>,
}

impl Conclusion {
    fn only(verdict: Verdict) -> Self {
        Conclusion { verdict, bound: None, ends: Ends::None, outcomes: Vec::new(), alarm: None }
    }
    fn refuse(reason: impl Into<String>) -> Self {
        Self::only(Verdict::Refuse(reason.into()))
    }
    fn bind(bound: Bound, ends: Ends) -> Self {
        Conclusion { bound: Some(bound), ends, ..Self::only(Verdict::Register) }
    }
}

/// One exchange, complete.
struct Exchange<'e> {
    channel: &'e Channel,
    peer: &'e PeerId,
    theirs: &'e Facts,
    /// The dialler's confirm has been read, or we are the dialler.
    may_commit: bool,
}

/// A channel wants our facts.
pub(super) fn facts_wanted(
    db: &mut Db,
    channels: &mut Channels,
    config: &KernelConfig,
    channel: ChannelId,
    peer: PeerId,
    dialed: bool,
    step: &mut Step,
) {
    if !quota::may_shake_hands(channels, &peer) {
        let reason = format!("more than {} handshakes in flight", quota::HANDSHAKES_MAX);
        step.effects.push(Effect::Link(LinkOrder::CloseChannel { channel, reason }));
        return;
    }
    let tx = db.begin();
    let said = facts::facts(&tx, config, &channels.listen, &peer);
    let session = Some(facts::session_facts(&tx, config, &[], &peer));
    let rows = Facts { incarnation: said.incarnation.clone(), session };
    step.effects.push(Effect::Link(LinkOrder::Greet { channel, facts: said.clone() }));
    channels
        .open
        .insert(channel, Channel { peer, dialed, said, rows, theirs: None, confirmed: false, bound: None });
}

/// Both frames have crossed, or the dialler has confirmed: concludes, commits, answers.
pub(super) fn conclude(
    db: &mut Db,
    channels: &mut Channels,
    config: &KernelConfig,
    now: Millis,
    channel: ChannelId,
    fresh: Incarnation,
    step: &mut Step,
) {
    let Some(open) = channels.open.get(&channel) else { return };
    let Some(theirs) = &open.theirs else { return };
    let peer = open.peer.clone();
    let exchange = Exchange { channel: open, peer: &peer, theirs, may_commit: open.confirmed || open.dialed };
    let item = || format!("handshake with {peer}");
    // On a fault the old incarnation is still on file: the next handshake compares again (03 S7, S8).
    let conclusion = transact(db, config, now, step, item, |turn| write(turn, &exchange, fresh))
        .unwrap_or_else(|reason| Conclusion::refuse(format!("handshake failed: {reason}")));
    apply(channels, channel, &peer, conclusion, step);
}

fn apply(
    channels: &mut Channels,
    channel: ChannelId,
    peer: &PeerId,
    conclusion: Conclusion,
    step: &mut Step,
) {
    let Conclusion { verdict, bound, ends, outcomes, alarm } = conclusion;
    if let Some(text) = alarm {
        channels.raise(text, step);
    }
    match ends {
        Ends::None => {}
        Ends::Replaced => {
            if let Some(older) = channels.bound_to(peer).filter(|older| *older != channel) {
                channels.open.remove(&older);
                let reason = "replaced by a newer channel".into();
                step.effects.push(Effect::Link(LinkOrder::CloseChannel { channel: older, reason }));
            }
        }
        Ends::OfPeer => channels.close_others(peer, channel, "it belongs to another session", step),
        Ends::Every => channels.close_all_but(channel, "this kernel became another incarnation", step),
    }
    step.effects.extend(outcomes.into_iter().flat_map(finalize_peer_restart));
    match (bound, channels.open.get_mut(&channel)) {
        (Some(bound), Some(open)) => {
            open.bound = Some(bound);
            channels.asked.remove(peer);
        }
        (None, Some(_)) if verdict != Verdict::AwaitConfirm => {
            channels.open.remove(&channel);
        }
        (Some(_) | None, _) => {}
    }
    step.effects.push(Effect::Link(LinkOrder::Answer { channel, verdict }));
}

/// Decides and writes the consequence.
fn write(turn: &mut Turn<'_>, exchange: &Exchange<'_>, fresh: Incarnation) -> Result<Conclusion, Corrupt> {
    let Exchange { channel, peer, theirs, may_commit } = *exchange;
    let rid = facts::remote_of(&turn.tx, peer);
    let row = facts::session(&turn.tx, peer);
    let decision = {
        let tx = &turn.tx;
        let digest_at = |n: Seq| facts::digest_at(tx, rid, &row, n);
        let standing = Standing { sent: row.sent, recv: row.recv, digest_at: &digest_at };
        decide(&channel.said, theirs, &standing, *peer == turn.config.peer)
    };
    let now = rows(turn, peer);
    let observed = &theirs.incarnation;
    let conclusion = match decision {
        Decision::Clone => {
            let text =
                "our own peer id is at the other end of a channel: a second kernel runs on this identity";
            Conclusion { alarm: Some(text.into()), ..Conclusion::refuse("own peer id at the other end") }
        }
        Decision::Close(reason) => Conclusion::refuse(reason),
        Decision::Classic => classic(turn, exchange, rid, &now)?,
        Decision::IRegressed { epoch } => regressed(turn, peer, epoch, fresh)?,
        Decision::Resume { epoch } => {
            if stale_resume(&channel.said, &now) {
                return Ok(Conclusion::refuse("stale: the session has moved on since the handshake"));
            }
            resume(turn, peer, rid, epoch, theirs)?
        }
        Decision::New { epoch, reset } => match stale_new(&channel.said, &now, observed, epoch) {
            NewVerdict::Close => Conclusion::refuse("stale: another handshake won"),
            NewVerdict::Bind => bind(turn, peer, theirs, Ends::Replaced)?,
            NewVerdict::Commit if !may_commit && awaits_confirm(&decision, &now, observed) => {
                return Ok(Conclusion::only(Verdict::AwaitConfirm));
            }
            NewVerdict::Commit => {
                let outcome = new_session(turn, peer, rid, epoch, reset, observed)?;
                Conclusion {
                    outcomes: outcome.into_iter().collect(),
                    ..bind(turn, peer, theirs, Ends::OfPeer)?
                }
            }
        },
    };
    Ok(conclusion)
}

/// Our rows as facts, whatever generation is spoken.
fn rows(turn: &Turn<'_>, peer: &PeerId) -> Facts {
    let session = Some(facts::session_facts(&turn.tx, turn.config, &[], peer));
    Facts { incarnation: facts::own_life(&turn.tx, peer), session }
}

/// Binds the channel to the session in the rows.
fn bind(turn: &mut Turn<'_>, peer: &PeerId, theirs: &Facts, ends: Ends) -> Result<Conclusion, Corrupt> {
    let classic = theirs.session.is_none() || turn.config.generation == crate::kernel::Generation::Classic;
    if let Some(rid) = facts::remote_of(&turn.tx, peer) {
        note_peer(turn, peer, rid, theirs);
    }
    let name = facts::session_name(&turn.tx, peer).ok_or(Corrupt::Impossible("a session without a peer"))?;
    let row = facts::session(&turn.tx, peer);
    // A handshake acknowledges, but not behind rows that are still to be written: until something does, the peer keeps
    // the names of what it told us is settled (03 E-10, see `outbox`).
    let behind_all = !classic && row.sent < row.una;
    let told = if behind_all { row.recv } else { Seq(0) };
    let mut bound = Bound::new(name, classic, row.una, told);
    if !classic {
        if !behind_all {
            bound.ack_due = Some(turn.now.after(turn.config.ack_delay));
        }
        let wait = Millis(turn.config.ack_delay.0.saturating_mul(4));
        bound.helping_until = Some(turn.now.after(wait));
    }
    Ok(Conclusion::bind(bound, ends))
}

/// Keeps what a peer said about reaching and filling it.
pub(super) fn note_peer(turn: &mut Turn<'_>, peer: &PeerId, rid: RemoteId, theirs: &Facts) {
    let session = theirs.session.as_ref();
    let limit = session.map_or(facts::CLASSIC_FRAME_BYTES_MAX, |session| session.frame_bytes_max);
    facts::record_frame_limit(turn, peer, limit);
    facts::record_credit(turn, peer, session.map(|session| session.credit));
    if let Some(session) = session {
        facts::learn(turn, rid, &session.listen);
    }
}

fn resume(
    turn: &mut Turn<'_>,
    peer: &PeerId,
    rid: Option<RemoteId>,
    epoch: Epoch,
    theirs: &Facts,
) -> Result<Conclusion, Corrupt> {
    let Some(said) = &theirs.session else { return Ok(Conclusion::refuse("no session facts")) };
    let recv = facts::session(&turn.tx, peer).recv;
    // What the peer had not sent yet could still name what it was told is settled.
    let nothing_on_its_way = said.sent <= recv;
    super::outbox::acknowledge(turn, rid, peer, said.recv, nothing_on_its_way)?;
    let row = facts::session(&turn.tx, peer);
    if row.epoch != epoch || row.classic_born != (row.classic_born || said.classic_born) {
        let classic_born = row.classic_born || said.classic_born;
        let changed = capstan_store::schema::SessionRow { epoch, classic_born, ..row };
        turn.tx.put::<Sessions>(peer.clone(), changed);
        return bind(turn, peer, theirs, Ends::OfPeer);
    }
    bind(turn, peer, theirs, Ends::Replaced)
}

fn new_session(
    turn: &mut Turn<'_>,
    peer: &PeerId,
    rid: Option<RemoteId>,
    epoch: Epoch,
    reset: bool,
    observed: &Incarnation,
) -> Result<Option<RestartOutcome>, Corrupt> {
    let believed = facts::believes(&turn.tx, peer);
    let another = believed.as_ref().is_some_and(|life| life != observed);
    let outcome = if reset { reset_toward(turn, peer, rid, another)? } else { None };
    let mut row = facts::session(&turn.tx, peer);
    if reset || believed.is_none() {
        row.base = epoch;
    }
    row.epoch = epoch;
    row.classic_born = false;
    turn.tx.put::<Sessions>(peer.clone(), row);
    facts::record_life(turn, peer, Some(observed.clone()));
    Ok(outcome)
}

/// Ends our side of the old session (03 D.3).
pub(super) fn reset_toward(
    turn: &mut Turn<'_>,
    peer: &PeerId,
    rid: Option<RemoteId>,
    another_life: bool,
) -> Result<Option<RestartOutcome>, Corrupt> {
    match rid {
        Some(rid) if another_life => persist_peer_restart(turn, rid).map(Some),
        Some(rid) => end_session(turn, rid, &Ending::restarted()).map(Some),
        None => {
            clear_sequence(turn, None, peer);
            Ok(None)
        }
    }
}

/// We are a restored backup: we return as a new incarnation that believes nothing of any peer (03 G.4).
fn regressed(
    turn: &mut Turn<'_>,
    peer: &PeerId,
    epoch: Epoch,
    fresh: Incarnation,
) -> Result<Conclusion, Corrupt> {
    let outcomes = fork::leave_everyone(turn)?;
    turn.tx.update::<Sessions, _>(peer, |row| {
        row.epoch = epoch;
        row.base = epoch;
    });
    turn.tx.put::<Meta>("incarnation".into(), fresh.as_str().into());
    let text = format!(
        "peer {} knows more of us than we do: this state is an older backup; we go on as incarnation {}",
        peer.short(),
        fresh.short()
    );
    let refusal = Conclusion::refuse("this kernel was restored from an older backup");
    Ok(Conclusion { ends: Ends::Every, outcomes, alarm: Some(text), ..refusal })
}

/// The life of the peer that the classic comparison is made with: the one on file (03 S2).
fn on_file(tx: &Tx<'_>, peer: &PeerId) -> Option<Incarnation> {
    facts::believes(tx, peer)
}

/// The classic generation: compare, record, refuse once (03 D.2, K1 to K4).
fn classic(
    turn: &mut Turn<'_>,
    exchange: &Exchange<'_>,
    rid: Option<RemoteId>,
    now: &Facts,
) -> Result<Conclusion, Corrupt> {
    let Exchange { channel, peer, theirs, .. } = *exchange;
    let observed = &theirs.incarnation;
    if stale_classic(&channel.rows, now, observed) {
        return Ok(Conclusion::refuse("stale: another handshake won"));
    }
    match restart_verdict(on_file(&turn.tx, peer).as_ref(), observed) {
        KernelVerdict::Same => bind(turn, peer, theirs, Ends::Replaced),
        KernelVerdict::FirstContact => {
            record_classic(turn, peer, observed);
            bind(turn, peer, theirs, Ends::OfPeer)
        }
        KernelVerdict::Restarted => {
            let before = facts::believes(&turn.tx, peer);
            let outcome = reset_toward(turn, peer, rid, true)?;
            record_classic(turn, peer, observed);
            if rid.is_none() {
                let text =
                    "restart detected but no remote for this peer; incarnation advanced without clean-up";
                turn.log(LogLevel::Warn, text);
            }
            let (old, new) = (before.as_ref().map_or("", Incarnation::short), observed.short());
            turn.log(LogLevel::Info, format!("peer {} restarted: {old} is now {new}", peer.short()));
            let outcomes = outcome.into_iter().collect();
            Ok(Conclusion { ends: Ends::OfPeer, outcomes, ..Conclusion::only(Verdict::Restarted) })
        }
    }
}

/// Starts a session that only a classic exchange vouches for.
fn record_classic(turn: &mut Turn<'_>, peer: &PeerId, observed: &Incarnation) {
    let mut row = facts::session(&turn.tx, peer);
    row.epoch = Epoch(row.epoch.0.saturating_add(1));
    row.base = row.epoch;
    row.classic_born = true;
    turn.tx.put::<Sessions>(peer.clone(), row);
    facts::record_life(turn, peer, Some(observed.clone()));
}

/// The current session's name, if the channel is bound to it.
pub(super) fn current(tx: &Tx<'_>, peer: &PeerId, name: &SessionName) -> bool {
    facts::session_name(tx, peer).as_ref() == Some(name)
}
