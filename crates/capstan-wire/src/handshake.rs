//! Handshake frames: the reference's two words, with more in the same `params` (03 B.3, G.3).

use crate::facts::{Facts, Left, SessionFacts};
use capstan_model::peer::{Digest, Epoch, Hint, Incarnation, Seq};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The generation that says [`SessionFacts`]. The reference says no `v`, or 1 with nothing else.
const SESSION_VERSION: u64 = 2;
/// The longest handshake frame, bytes: room for every list at its limit.
pub const HANDSHAKE_BYTES_MAX: usize = 64 << 10;
/// The longest incarnation, bytes: a UUID has 36.
const INCARNATION_BYTES_MAX: usize = 256;
/// The most addresses or capability words.
const LIST_MAX: usize = 64;

/// Which of the two frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeKind {
    /// The dialler's.
    Handshake,
    /// The answer.
    HandshakeAck,
}

impl HandshakeKind {
    /// The word on the wire.
    pub fn method(self) -> &'static str {
        match self {
            HandshakeKind::Handshake => "handshake",
            HandshakeKind::HandshakeAck => "handshakeAck",
        }
    }
}

/// Why a frame is not an acceptable handshake.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// Some other frame, or no JSON at all; names its method.
    #[error("not a handshake: {0}")]
    NotHandshake(String),
    /// The session generation, but malformed.
    #[error("malformed handshake facts")]
    BadFacts,
    /// Longer than [`HANDSHAKE_BYTES_MAX`], or a part beyond its limit.
    #[error("handshake too long")]
    TooLong,
}

#[derive(Serialize)]
struct Greeting<'f> {
    method: &'f str,
    params: Params<'f>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Params<'f> {
    incarnation_id: &'f Incarnation,
    #[serde(flatten)]
    session: Option<Session>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Session {
    v: u64,
    epoch: Epoch,
    base: Epoch,
    una: Seq,
    sent: Seq,
    recv: Seq,
    digest: Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    believes: Option<Incarnation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left: Option<LeftOnWire>,
    classic_born: bool,
    frame_bytes_max: u64,
    credit: u64,
    words: Vec<String>,
    listen: Vec<Hint>,
}

#[derive(Serialize, Deserialize)]
struct LeftOnWire {
    life: Incarnation,
    epoch: Epoch,
}

/// Returns the exact text; for classic facts, the reference's bytes.
pub fn encode_handshake(kind: HandshakeKind, facts: &Facts) -> String {
    let session = facts.session.as_ref().map(|s| Session {
        v: SESSION_VERSION,
        epoch: s.epoch,
        base: s.base,
        una: s.una,
        sent: s.sent,
        recv: s.recv,
        digest: s.digest,
        believes: s.believes.clone(),
        left: s.left.as_ref().map(|left| LeftOnWire { life: left.life.clone(), epoch: left.epoch }),
        classic_born: s.classic_born,
        frame_bytes_max: s.frame_bytes_max,
        credit: s.credit,
        words: s.words.clone(),
        listen: s.listen.clone(),
    });
    let params = Params { incarnation_id: &facts.incarnation, session };
    // Texts, numbers and lists always have a JSON form, so the fallback is never taken.
    serde_json::to_string(&Greeting { method: kind.method(), params }).unwrap_or_default()
}

/// Reads a handshake frame. Unknown keys are ignored; without `v` the sender is classic.
pub fn decode_handshake(text: &str) -> Result<(HandshakeKind, Facts), HandshakeError> {
    if text.len() > HANDSHAKE_BYTES_MAX {
        return Err(HandshakeError::TooLong);
    }
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    let method = value.get("method").and_then(Value::as_str).unwrap_or("unknown");
    let other = || HandshakeError::NotHandshake(method.chars().take(64).collect());
    let kind = match method {
        "handshake" => HandshakeKind::Handshake,
        "handshakeAck" => HandshakeKind::HandshakeAck,
        _ => return Err(other()),
    };
    let params = value.get("params").ok_or_else(other)?;
    let incarnation = params.get("incarnationId").and_then(Value::as_str).ok_or_else(other)?;
    if incarnation.len() > INCARNATION_BYTES_MAX {
        return Err(HandshakeError::TooLong);
    }
    let session = match params.get("v") {
        None => None,
        Some(v) if v.as_u64() == Some(1) => None,
        Some(_) => Some(session(params)?),
    };
    Ok((kind, Facts { incarnation: Incarnation::new(incarnation), session }))
}

fn session(params: &Value) -> Result<SessionFacts, HandshakeError> {
    let wire = Session::deserialize(params).map_err(|_| HandshakeError::BadFacts)?;
    let coherent = wire.v >= SESSION_VERSION
        && wire.una >= Seq(1)
        && wire.una.0.saturating_sub(1) <= wire.sent.0
        && wire.base <= wire.epoch
        && wire.frame_bytes_max > 0;
    if !coherent {
        return Err(HandshakeError::BadFacts);
    }
    let long = |life: &Incarnation| life.as_str().len() > INCARNATION_BYTES_MAX;
    let lives = wire.believes.iter().chain(wire.left.iter().map(|left| &left.life));
    if wire.words.len() > LIST_MAX || wire.listen.len() > LIST_MAX || lives.into_iter().any(long) {
        return Err(HandshakeError::TooLong);
    }
    Ok(SessionFacts {
        believes: wire.believes,
        epoch: wire.epoch,
        base: wire.base,
        una: wire.una,
        sent: wire.sent,
        recv: wire.recv,
        digest: wire.digest,
        left: wire.left.map(|left| Left { life: left.life, epoch: left.epoch }),
        classic_born: wire.classic_born,
        frame_bytes_max: wire.frame_bytes_max,
        credit: wire.credit,
        words: wire.words,
        listen: wire.listen,
    })
}

/// The dialler's first frame after the handshake on a session channel: it has committed.
pub const CONFIRM: &str = r#"{"method":"handshakeConfirm"}"#;

/// Whether a frame is [`CONFIRM`]; unknown keys are ignored.
pub fn is_confirm(text: &str) -> bool {
    text == CONFIRM
        || (text.len() <= HANDSHAKE_BYTES_MAX
            && serde_json::from_str::<Value>(text)
                .is_ok_and(|value| value.get("method").and_then(Value::as_str) == Some("handshakeConfirm")))
}

/// The last frame to a peer that is closed by intent, or the answer to its dial: it need not dial again until it is
/// told to, or dialled (03 B-48).
pub const CLOSED: &str = r#"{"method":"peerClosed"}"#;

/// Whether a frame is [`CLOSED`], in exactly these bytes.
pub fn is_closed(text: &str) -> bool {
    text == CLOSED
}
