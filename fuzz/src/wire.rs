//! Every decoder of `capstan-wire` and `capstan-model` that reads what a peer wrote: none panics, limits hold, and what
//! is decoded means the same after it was encoded again.

use capstan_model::capdata::{CapData, Message, Resolution};
use capstan_model::id::KRef;
use capstan_model::peer::Seq;
use capstan_model::refs::{RRef, Side};
use capstan_model::smallcaps;
use capstan_wire::decide::{Decision, Standing, decide};
use capstan_wire::facts::Facts;
use capstan_wire::frame::{Frame, FrameLimits, Incoming, decode, encode_ack, encode_numbered};
use capstan_wire::handshake::{HANDSHAKE_BYTES_MAX, decode_handshake, encode_handshake, is_confirm};
use capstan_wire::url::{OcapUrl, oid_from_secret, reference_oid, secret_from_oid};

/// Small, so that inputs of a few hundred bytes reach them.
const LIMITS: FrameLimits =
    FrameLimits { frame_bytes_max: 4096, refs_max: 8, resolutions_max: 4, text_bytes_max: 128 };

/// The other end's name for the same thing: the sender's terms for a frame that was read in the receiver's.
fn across(rref: &RRef) -> RRef {
    let side = match rref.side {
        Side::Export => Side::Import,
        Side::Import => Side::Export,
    };
    RRef { side, ..*rref }
}

/// Returns a frame as its sender holds it, given how its receiver reads it.
pub fn as_sent(frame: &Frame) -> Frame {
    let list = |refs: &[RRef]| refs.iter().map(across).collect();
    match frame {
        Frame::Message { target, message } => Frame::Message {
            target: across(target),
            message: Message {
                methargs: message.methargs.map(across),
                result: message.result.as_ref().map(across),
            },
        },
        Frame::Notify(all) => Frame::Notify(
            all.iter()
                .map(|r| Resolution {
                    promise: across(&r.promise),
                    rejected: r.rejected,
                    value: r.value.map(across),
                })
                .collect(),
        ),
        Frame::DropExports(refs) => Frame::DropExports(list(refs)),
        Frame::RetireExports(refs) => Frame::RetireExports(list(refs)),
        Frame::RetireImports(refs) => Frame::RetireImports(list(refs)),
        Frame::BringOutYourDead => Frame::BringOutYourDead,
        Frame::RedeemUrl { .. } => frame.clone(),
        Frame::RedeemUrlReply { reply_key, outcome } => Frame::RedeemUrlReply {
            reply_key: reply_key.clone(),
            outcome: outcome.as_ref().map(across).map_err(Clone::clone),
        },
    }
}

/// How much of everything that is limited is in a frame: references of one list, settlements, bytes of a text.
fn extent(frame: &Frame) -> (usize, usize, usize) {
    match frame {
        Frame::Message { message, .. } => (message.methargs.slots.len(), 0, 0),
        Frame::Notify(all) => (all.iter().map(|r| r.value.slots.len()).max().unwrap_or(0), all.len(), 0),
        Frame::DropExports(refs) | Frame::RetireExports(refs) | Frame::RetireImports(refs) => {
            (refs.len(), 0, 0)
        }
        Frame::BringOutYourDead => (0, 0, 0),
        Frame::RedeemUrl { url, reply_key } => (0, 0, url.len().max(reply_key.len())),
        Frame::RedeemUrlReply { reply_key, outcome } => {
            (0, 0, reply_key.len().max(outcome.as_ref().err().map_or(0, String::len)))
        }
    }
}

/// An application frame.
pub fn frame(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(incoming) = decode(text, &LIMITS) else { return };
    assert!(text.len() <= LIMITS.frame_bytes_max);
    assert_eq!(incoming.seq.is_none(), incoming.body.is_none());
    assert!(incoming.seq != Some(Seq(0)) && incoming.ack != Some(Seq(0)));
    let wide = FrameLimits::default();
    match (&incoming.body, incoming.seq, incoming.ack) {
        (Some(Ok(frame)), Some(seq), ack) => {
            let (refs, resolutions, text_bytes) = extent(frame);
            assert!(refs <= LIMITS.refs_max && resolutions <= LIMITS.resolutions_max);
            assert!(text_bytes <= LIMITS.text_bytes_max);
            let again = encode_numbered(seq, ack, &as_sent(frame));
            assert_eq!(decode(&again, &wide).as_ref(), Ok(&incoming), "{again}");
        }
        (None, None, Some(ack)) => {
            let expected = Incoming { seq: None, ack: Some(ack), body: None };
            assert_eq!(decode(&encode_ack(ack), &wide), Ok(expected));
        }
        // A poison frame: only its number counts.
        (Some(Err(_)), Some(_), _) => {}
        other => panic!("neither numbered nor an acknowledgement: {other:?}"),
    }
}

/// One handshake frame, or two lines that are one each: then also what both sides conclude from them.
pub fn handshake(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let facts: Vec<Facts> = text.splitn(2, '\n').filter_map(one_handshake).collect();
    if let [ours, theirs] = facts.as_slice() {
        conclude(ours, theirs);
    }
}

fn one_handshake(text: &str) -> Option<Facts> {
    let read = decode_handshake(text);
    assert!(!is_confirm(text) || read.is_err(), "confirm and handshake at once");
    let (kind, facts) = read.ok()?;
    assert!(text.len() <= HANDSHAKE_BYTES_MAX);
    let again = encode_handshake(kind, &facts);
    // What was left out of the frame is written now.
    if again.len() <= HANDSHAKE_BYTES_MAX {
        assert_eq!(decode_handshake(&again), Ok((kind, facts.clone())), "{again}");
    }
    Some(facts)
}

/// The decision is total, and mirrored wherever neither side judges itself.
fn conclude(ours: &Facts, theirs: &Facts) {
    let as_said = |me: &Facts, th: &Facts| {
        let (sent, recv) = me.session.as_ref().map_or((Seq(0), Seq(0)), |s| (s.sent, s.recv));
        let digest = th.session.as_ref().map(|s| s.digest);
        decide(me, th, &Standing { sent, recv, digest_at: &|_| digest }, false)
    };
    match (as_said(ours, theirs), as_said(theirs, ours)) {
        (Decision::New { epoch, .. }, Decision::New { epoch: other, .. })
        | (Decision::Resume { epoch }, Decision::Resume { epoch: other }) => assert_eq!(epoch, other),
        (Decision::New { .. }, Decision::Resume { .. }) | (Decision::Resume { .. }, Decision::New { .. }) => {
            panic!("one resumes what the other leaves")
        }
        (Decision::Clone, _) | (_, Decision::Clone) => panic!("the peer is not us"),
        (Decision::Classic, other) | (other, Decision::Classic) => assert_eq!(other, Decision::Classic),
        (Decision::IRegressed { .. } | Decision::Close(_), _)
        | (_, Decision::IRegressed { .. } | Decision::Close(_)) => {}
    }
}

/// An `ocap:` URL.
pub fn url(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(url) = text.parse::<OcapUrl>() else { return };
    assert!(!url.oid.is_empty() && !url.host.as_str().is_empty());
    let again = url.to_string();
    assert_eq!(again.parse().as_ref(), Ok(&url), "{again}");
}

/// A value in smallcaps; two objects and a promise may be named in it.
pub fn smallcaps(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let named = ["ko1", "kp2", "ko3"].into_iter().filter_map(|text| text.parse().ok());
    let value: CapData<KRef> = CapData { body: text.into(), slots: named.collect() };
    assert_eq!(value.slots.len(), 3);
    let _ = (smallcaps::render(&value), smallcaps::single_reference(&value));
    let Ok(read) = smallcaps::decode(&value) else { return };
    let again = smallcaps::encode(&read);
    // Not the values: NaN is no number's equal.
    let read_again = smallcaps::decode(&again).map(|read| smallcaps::encode(&read));
    assert_eq!(read_again.as_ref(), Ok(&again));
}

/// A question and an answer of a redemption: an object id, then whatever goes with it after a line's end.
pub fn redemption(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (oid, key) = text.split_once('\n').unwrap_or((text, ""));
    if let Some(secret) = secret_from_oid(oid) {
        assert_eq!(oid_from_secret(&secret), oid);
    }
    // Under no key that anybody has.
    assert!(reference_oid::open(&[7; 32], oid).is_err());
    let question = Frame::RedeemUrl { url: oid.to_owned(), reply_key: key.to_owned() };
    let failed = Frame::RedeemUrlReply { reply_key: key.to_owned(), outcome: Err(oid.to_owned()) };
    let found: Result<RRef, _> = oid.parse();
    let answer =
        found.ok().map(|name| Frame::RedeemUrlReply { reply_key: key.to_owned(), outcome: Ok(name) });
    for frame in [Some(question), Some(failed), answer].into_iter().flatten() {
        let written = encode_numbered(Seq(1), None, &frame);
        let read = decode(&written, &FrameLimits::default());
        let (_, _, text_bytes) = extent(&frame);
        let expected = Incoming { seq: Some(Seq(1)), ack: None, body: Some(Ok(as_sent(&frame))) };
        if text_bytes <= FrameLimits::default().text_bytes_max {
            assert_eq!(read, Ok(expected), "{written}");
        } else {
            assert!(matches!(read, Ok(Incoming { body: Some(Err(_)), .. })), "{written}");
        }
    }
}
