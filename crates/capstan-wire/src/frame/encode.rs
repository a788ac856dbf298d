//! Frames on their way out: our c-list's references, flipped into the receiver's terms.

use super::Frame;
use capstan_model::capdata::CapData;
use capstan_model::peer::Seq;
use capstan_model::refs::{RRef, WireRef};
use serde::Serialize;

#[derive(Serialize)]
struct Numbered<'f, P> {
    seq: Seq,
    #[serde(skip_serializing_if = "Option::is_none")]
    ack: Option<Seq>,
    method: &'f str,
    params: P,
}

#[derive(Serialize)]
struct WireMessage {
    methargs: CapData<WireRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<WireRef>,
}

fn value(value: &CapData<RRef>) -> CapData<WireRef> {
    value.map(|rref| rref.to_wire())
}

/// Returns the exact text of a numbered frame; the same text is sent again if need be (03 C-8).
pub fn encode_numbered(seq: Seq, ack: Option<Seq>, frame: &Frame) -> String {
    let deliver = "deliver";
    let refs = |verb: &str, refs: &[RRef]| {
        let refs: Vec<WireRef> = refs.iter().map(|rref| rref.to_wire()).collect();
        json(&Numbered { seq, ack, method: deliver, params: (verb, refs) })
    };
    match frame {
        Frame::Message { target, message } => {
            let result = message.result.map(RRef::to_wire);
            let wire = WireMessage { methargs: value(&message.methargs), result };
            json(&Numbered { seq, ack, method: deliver, params: ("message", target.to_wire(), wire) })
        }
        Frame::Notify(resolutions) => {
            let wire = resolutions.iter().map(|r| (r.promise.to_wire(), r.rejected, value(&r.value)));
            json(&Numbered { seq, ack, method: deliver, params: ("notify", wire.collect::<Vec<_>>()) })
        }
        Frame::DropExports(list) => refs("dropExports", list),
        Frame::RetireExports(list) => refs("retireExports", list),
        Frame::RetireImports(list) => refs("retireImports", list),
        Frame::BringOutYourDead => {
            json(&Numbered { seq, ack, method: deliver, params: ["bringOutYourDead"] })
        }
        Frame::RedeemUrl { url, reply_key } => {
            json(&Numbered { seq, ack, method: "redeemURL", params: [url, reply_key] })
        }
        Frame::RedeemUrlReply { reply_key, outcome } => {
            let method = "redeemURLReply";
            match outcome {
                Ok(rref) => json(&Numbered { seq, ack, method, params: (true, reply_key, rref.to_wire()) }),
                Err(text) => json(&Numbered { seq, ack, method, params: (false, reply_key, text) }),
            }
        }
    }
}

/// Returns the text of an acknowledgement only.
pub fn encode_ack(ack: Seq) -> String {
    format!(r#"{{"ack":{ack}}}"#)
}

/// Texts, numbers and lists always have a JSON form, so the fallback is never taken.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
