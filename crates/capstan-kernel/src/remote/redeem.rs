//! Grants behind `ocap:` URLs, and their redemption in both directions (03 A.5, C.7).

use super::channels::Channels;
use super::receive::Fault;
use super::restart::error_value;
use super::{facts, outbox, relays, unconfirmed};
use crate::counts;
use crate::effect::Effect;
use crate::fault::Corrupt;
use crate::host_op::{Answer, GrantView, Refusal};
use crate::input::RequestId;
use crate::promise;
use crate::turn::Turn;
use capstan_model::capdata::CapData;
use capstan_model::error::IntentionalCloseError;
use capstan_model::id::{GrantId, KRef, ObjectId, PromiseId, RemoteId};
use capstan_model::peer::Millis;
use capstan_store::overlay::{Db, Tx};
use capstan_store::schema::{
    Decider, GrantRow, Grants, GrantsByHash, HoldKind, Objects, RedemptionRow, Redemptions, Remotes, Waiters,
};
use capstan_wire::frame::Frame;
use capstan_wire::url::{OcapUrl, secret_from_oid, secret_hash};
use std::sync::Arc;

/// How long a redemption may take: as long as a frame would be sent again (03 A-32).
pub(super) fn patience(config: &crate::kernel::KernelConfig) -> Millis {
    Millis(config.ack_timeout.0.saturating_mul(u64::from(config.ack_retries_max) + 1))
}

/// Issues a grant for the object; it is a root of it.
pub(crate) fn issue_url(
    turn: &mut Turn<'_>,
    object: ObjectId,
    secret: [u8; 32],
) -> Result<Result<GrantId, Refusal>, Corrupt> {
    if let Err(reason) = alive(&turn.tx, object) {
        return Ok(Err(Refusal::BadReference(reason)));
    }
    let grant = GrantId(turn.next_number("grant"));
    let secret_hash = secret_hash(&secret);
    let row = GrantRow {
        secret_hash,
        object,
        issued: turn.now,
        last_used: None,
        expires: None,
        uses_left: None,
        parent: None,
        revoked: false,
    };
    turn.tx.put::<Grants>(grant, row);
    turn.tx.put::<GrantsByHash>(secret_hash, grant);
    counts::hold(&mut turn.tx, KRef::Object(object))?;
    Ok(Ok(grant))
}

/// Ends a grant; once more changes nothing.
pub(crate) fn revoke_url(turn: &mut Turn<'_>, grant: GrantId) -> Result<Result<(), Refusal>, Corrupt> {
    let Some(row) = turn.tx.get::<Grants>(&grant).cloned() else {
        return Ok(Err(Refusal::UrlUnknown(format!("no grant {grant}"))));
    };
    if !row.revoked {
        let object = row.object;
        turn.tx.put::<Grants>(grant, GrantRow { revoked: true, ..row });
        unconfirmed::grant_ended(turn, object)?;
        counts::release(&mut turn.tx, KRef::Object(object))?;
    }
    Ok(Ok(()))
}

/// Lists the grants.
pub(crate) fn grants(db: &Db) -> Vec<GrantView> {
    let view = |(grant, row): (&GrantId, &GrantRow)| GrantView {
        grant: *grant,
        object: row.object,
        issued: row.issued,
        last_used: row.last_used,
        revoked: row.revoked,
    };
    db.iter::<Grants>().map(view).collect()
}

fn alive(tx: &Tx<'_>, object: ObjectId) -> Result<(), String> {
    match tx.get::<Objects>(&object) {
        None => Err(format!("no object {object}")),
        Some(row) if row.revoked => Err(format!("{object} has been revoked")),
        Some(row) if row.owner.is_none() => Err(format!("{object} has been deleted")),
        Some(_) => Ok(()),
    }
}

/// The object behind a URL of ours; uses up one use.
fn look_up(turn: &mut Turn<'_>, url: &str) -> Result<ObjectId, String> {
    let url: OcapUrl = url.parse().map_err(|error: capstan_wire::url::OcapUrlError| error.to_string())?;
    if url.host != turn.config.peer {
        return Err("ocapURL from a host that's not me".into());
    }
    let secret = secret_from_oid(&url.oid).ok_or("ocapURL has bad object reference")?;
    let grant = turn.tx.get::<GrantsByHash>(&secret_hash(&secret)).copied().ok_or("ocapURL is unknown")?;
    let row = turn.tx.get::<Grants>(&grant).cloned().ok_or("ocapURL is unknown")?;
    if row.revoked {
        return Err("ocapURL has been revoked".into());
    }
    if row.expires.is_some_and(|end| end <= turn.now) || row.uses_left == Some(0) {
        return Err("ocapURL has expired".into());
    }
    alive(&turn.tx, row.object)?;
    let uses_left = row.uses_left.map(|uses| uses.saturating_sub(1));
    turn.tx.put::<Grants>(grant, GrantRow { last_used: Some(turn.now), uses_left, ..row });
    Ok(row.object)
}

/// Redeems a URL for a request: answers at once for one of ours, else when the peer has answered.
pub(crate) fn redeem_url(
    turn: &mut Turn<'_>,
    _channels: &mut Channels,
    request: RequestId,
    url: &str,
    reply_key: &str,
) -> Result<(), Corrupt> {
    let parsed: OcapUrl = match url.parse() {
        Ok(parsed) => parsed,
        Err(error) => {
            let error: capstan_wire::url::OcapUrlError = error;
            answer(turn, request, Err(Refusal::BadUrl(error.to_string())));
            return Ok(());
        }
    };
    if parsed.host == turn.config.peer {
        let found = match look_up(turn, url) {
            Ok(object) => {
                promise::hand_out(&mut turn.tx, KRef::Object(object))?;
                Ok(Answer::Redeemed { object })
            }
            Err(reason) => Err(Refusal::UrlUnknown(reason)),
        };
        answer(turn, request, found);
        return Ok(());
    }
    relays::learn(turn, &parsed);
    let rid = facts::ensure_remote(turn, &parsed.host, &parsed.hints)?;
    if turn.tx.get::<Remotes>(&rid).is_some_and(|row| row.closed) {
        answer(turn, request, Err(Refusal::Redemption(IntentionalCloseError::MESSAGE.into())));
        return Ok(());
    }
    let frame = Frame::RedeemUrl { url: url.trim().to_owned(), reply_key: reply_key.to_owned() };
    if outbox::append(turn, rid, &frame, Vec::new())?.is_err() {
        answer(turn, request, Err(Refusal::BadUrl("the URL is too long for its host".into())));
        return Ok(());
    }
    let promise = promise::create(&mut turn.tx, Some(Decider::Kernel));
    promise::hold_for_control(&mut turn.tx, KRef::Promise(promise), HoldKind::Waiting)?;
    turn.tx.put::<Waiters>((promise, request.0), ());
    let deadline = turn.now.after(patience(turn.config));
    turn.tx.put::<Redemptions>(reply_key.into(), RedemptionRow { remote: rid, promise, deadline });
    Ok(())
}

fn answer(turn: &mut Turn<'_>, request: RequestId, answer: Result<Answer, Refusal>) {
    turn.effects.push(Effect::Answer { request, answer });
}

/// Ends a redemption: its promise settles, its row goes. Returns who waited; they are the caller's to answer.
pub(super) fn end_redemption(
    turn: &mut Turn<'_>,
    key: &Arc<str>,
    outcome: Result<KRef, String>,
) -> Result<Vec<RequestId>, Corrupt> {
    let Some(row) = turn.tx.delete::<Redemptions>(key) else { return Ok(Vec::new()) };
    let kp = row.promise;
    let waiting: Vec<u64> =
        turn.tx.range::<Waiters>((kp, 0)..=(kp, u64::MAX)).map(|((_, request), ())| *request).collect();
    for request in &waiting {
        turn.tx.delete::<Waiters>(&(kp, *request));
    }
    settle(turn, kp, outcome)?;
    for _ in &waiting {
        promise::release_for_control(&mut turn.tx, KRef::Promise(kp), HoldKind::Waiting)?;
    }
    Ok(waiting.into_iter().map(RequestId).collect())
}

fn settle(turn: &mut Turn<'_>, kp: PromiseId, outcome: Result<KRef, String>) -> Result<(), Corrupt> {
    let (rejected, value) = match outcome {
        Ok(kref) => (false, CapData { body: "#\"$0\"".into(), slots: vec![kref] }),
        Err(text) => (true, error_value(&text)),
    };
    if turn.tx.get::<capstan_store::schema::Promises>(&kp).is_none() || promise::is_settled(&turn.tx, kp)? {
        return Ok(());
    }
    match promise::settle(turn, kp, Some(Decider::Kernel), rejected, value) {
        Ok(()) => Ok(()),
        Err(promise::SettleError::Corrupt(corrupt)) => Err(corrupt),
        Err(promise::SettleError::AlreadySettled(_) | promise::SettleError::NotDecider(..)) => {
            Err(Corrupt::WrongState(kp))
        }
    }
}

/// A peer asks what is behind a URL of ours. The answer carries the acknowledgement of the question.
pub(super) fn serve(turn: &mut Turn<'_>, rid: RemoteId, url: &str, reply_key: String) -> Result<(), Fault> {
    let outcome = match look_up(turn, url) {
        Ok(object) => Ok(outbox::mention(turn, rid, KRef::Object(object))?),
        Err(reason) => Err(reason),
    };
    let frame = Frame::RedeemUrlReply { reply_key, outcome };
    match outbox::append(turn, rid, &frame, Vec::new())? {
        Ok(()) => Ok(()),
        Err(_) => Err(Fault::Poison("its reply key is too long to be answered".into())),
    }
}

/// The peer answers a redemption of ours; an unknown or late key is ignored.
pub(super) fn replied(
    turn: &mut Turn<'_>,
    rid: RemoteId,
    reply_key: &str,
    found: Result<KRef, String>,
) -> Result<(), Fault> {
    let key: Arc<str> = reply_key.into();
    if turn.tx.get::<Redemptions>(&key).is_none_or(|row| row.remote != rid) {
        let text = format!("unknown URL redemption reply key {}", key.chars().take(64).collect::<String>());
        turn.log(crate::effect::LogLevel::Debug, text);
        return Ok(());
    }
    let found = match found {
        Ok(KRef::Promise(_)) => return Err(Fault::Poison("a URL stands for an object".into())),
        Ok(KRef::Object(object)) => Ok(object),
        Err(text) => Err(text),
    };
    let waiting = end_redemption(turn, &key, found.clone().map(KRef::Object))?;
    for request in waiting {
        let told = match &found {
            Ok(object) => {
                promise::hand_out(&mut turn.tx, KRef::Object(*object))?;
                Ok(Answer::Redeemed { object: *object })
            }
            Err(text) => Err(Refusal::UrlUnknown(text.clone())),
        };
        answer(turn, request, told);
    }
    Ok(())
}

/// Refuses every redemption whose time is up.
pub(super) fn expire(turn: &mut Turn<'_>) -> Result<(), Corrupt> {
    let late: Vec<Arc<str>> = turn
        .tx
        .iter::<Redemptions>()
        .filter(|(_, row)| row.deadline <= turn.now)
        .map(|(key, _)| key.clone())
        .collect();
    let text = format!("URL redemption timed out after {}ms", patience(turn.config).0);
    for key in late {
        for request in end_redemption(turn, &key, Err(text.clone()))? {
            answer(turn, request, Err(Refusal::RedemptionTimeout(text.clone())));
        }
    }
    Ok(())
}

/// Ends the redemptions of a process that is gone, with their waiters.
pub(super) fn forget_all(turn: &mut Turn<'_>) -> Result<(), Corrupt> {
    let keys: Vec<Arc<str>> = turn.tx.iter::<Redemptions>().map(|(key, _)| key.clone()).collect();
    for key in keys {
        let _gone = end_redemption(turn, &key, Err("the process that asked is gone".into()))?;
    }
    Ok(())
}

/// Gives up waiting for a redemption. The waiter is a row, which the caller removes with all others of the request;
/// the redemption itself runs on to its answer or deadline.
pub(crate) fn redemption_abandoned(_channels: &mut Channels, _request: RequestId) {}
