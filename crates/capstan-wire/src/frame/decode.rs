//! Frames as they come in, checked to the last reference before anything else sees them (03 C-5).

use super::{Frame, FrameError, FrameLimits, Incoming};
use capstan_model::capdata::{CapData, Message, Resolution};
use capstan_model::peer::Seq;
use capstan_model::refs::{RRef, RefKind, Side, WireRef};
use serde_json::{Map, Value};

type Checked<T> = Result<T, FrameError>;

/// Reads one application frame. An error means that not even its number is known; a frame with a number but a bad
/// body is an [`Incoming`] whose body is the error.
pub fn decode(text: &str, limits: &FrameLimits) -> Checked<Incoming> {
    if text.len() > limits.frame_bytes_max {
        return Err(FrameError::TooLong { got: text.len(), limit: limits.frame_bytes_max });
    }
    let Ok(Value::Object(mut object)) = serde_json::from_str(text) else {
        return Err(FrameError::NotAnObject);
    };
    let seq = number(&object, "seq").map_err(FrameError::BadSeq)?;
    let ack = number(&object, "ack").map_err(FrameError::BadAck);
    if seq.is_none() {
        let ack = Some(ack?.ok_or(FrameError::Empty)?);
        return Ok(Incoming { seq, ack, body: None });
    }
    Ok(match ack {
        Ok(ack) => Incoming { seq, ack, body: Some(body(&mut object, limits)) },
        Err(error) => Incoming { seq, ack: None, body: Some(Err(error)) },
    })
}

/// Reads an integer from 1, if the key is there; fails with the offending text.
fn number(object: &Map<String, Value>, key: &str) -> Result<Option<Seq>, String> {
    match object.get(key) {
        None => Ok(None),
        Some(value) => match value.as_u64() {
            Some(n) if n > 0 => Ok(Some(Seq(n))),
            Some(_) | None => Err(cut(&value.to_string())),
        },
    }
}

fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}

fn body(object: &mut Map<String, Value>, limits: &FrameLimits) -> Checked<Frame> {
    let method = match object.remove("method") {
        Some(Value::String(method)) => method,
        Some(other) => return Err(FrameError::UnknownMethod(cut(&other.to_string()))),
        None => return Err(FrameError::UnknownMethod("undefined".into())),
    };
    let params = list(object.remove("params"), "params")?;
    match method.as_str() {
        "deliver" => delivery(params, limits),
        "redeemURL" => {
            let [url, key] = exactly(params, "redeemURL")?;
            Ok(Frame::RedeemUrl { url: short(url, limits)?, reply_key: short(key, limits)? })
        }
        "redeemURLReply" => {
            let [ok, key, outcome] = exactly(params, "redeemURLReply")?;
            let reply_key = short(key, limits)?;
            let found = ok.as_bool().ok_or(FrameError::Malformed("redeemURLReply"))?;
            let outcome = if found { Ok(reference(outcome)?) } else { Err(short(outcome, limits)?) };
            Ok(Frame::RedeemUrlReply { reply_key, outcome })
        }
        _ => Err(FrameError::UnknownMethod(cut(&method))),
    }
}

fn delivery(mut params: Vec<Value>, limits: &FrameLimits) -> Checked<Frame> {
    let kind = match params.first() {
        Some(Value::String(kind)) => kind.clone(),
        Some(other) => return Err(FrameError::UnknownDelivery(cut(&other.to_string()))),
        None => return Err(FrameError::UnknownDelivery("undefined".into())),
    };
    params.remove(0);
    match kind.as_str() {
        "message" => {
            let [target, message] = exactly(params, "message")?;
            let Value::Object(mut message) = message else {
                return Err(FrameError::Malformed("message"));
            };
            let result = match message.remove("result") {
                None | Some(Value::Null) => None,
                Some(Value::String(text)) => Some(promise(Value::String(text))?),
                Some(_) => return Err(FrameError::BadResult),
            };
            let methargs = capdata(message.remove("methargs"), limits)?;
            Ok(Frame::Message { target: reference(target)?, message: Message { methargs, result } })
        }
        "notify" => {
            let [resolutions] = exactly(params, "notify")?;
            let resolutions = list(Some(resolutions), "notify")?;
            bounded("settlements", resolutions.len(), limits.resolutions_max)?;
            let resolutions = resolutions.into_iter().map(|item| resolution(item, limits));
            Ok(Frame::Notify(resolutions.collect::<Checked<_>>()?))
        }
        // In our terms: exports of ours have our sign, imports from the peer have the peer's.
        "dropExports" => Ok(Frame::DropExports(objects(without_promises(params), Side::Import, limits)?)),
        "retireExports" => Ok(Frame::RetireExports(objects(params, Side::Import, limits)?)),
        "retireImports" => Ok(Frame::RetireImports(objects(params, Side::Export, limits)?)),
        "bringOutYourDead" => {
            let [] = exactly(params, "bringOutYourDead")?;
            Ok(Frame::BringOutYourDead)
        }
        _ => Err(FrameError::UnknownDelivery(cut(&kind))),
    }
}

fn resolution(item: Value, limits: &FrameLimits) -> Checked<Resolution<RRef>> {
    let [kp, rejected, value] = exactly(list(Some(item), "settlement")?, "settlement")?;
    let rejected = rejected.as_bool().ok_or(FrameError::Malformed("settlement"))?;
    Ok(Resolution { promise: promise(kp)?, rejected, value: capdata(Some(value), limits)? })
}

fn capdata(value: Option<Value>, limits: &FrameLimits) -> Checked<CapData<RRef>> {
    let Some(Value::Object(mut object)) = value else {
        return Err(FrameError::Malformed("capdata"));
    };
    let Some(Value::String(body)) = object.remove("body") else {
        return Err(FrameError::Malformed("capdata body"));
    };
    let slots = list(object.remove("slots"), "capdata slots")?;
    bounded("slots", slots.len(), limits.refs_max)?;
    let slots = slots.into_iter().map(reference).collect::<Checked<_>>()?;
    Ok(CapData { body: body.into(), slots })
}

/// A promise among the objects dropped is no error and means nothing (03 E-2).
fn without_promises(mut params: Vec<Value>) -> Vec<Value> {
    if let Some(Value::Array(refs)) = params.first_mut() {
        refs.retain(|value| promise(value.clone()).is_err());
    }
    params
}

fn objects(params: Vec<Value>, side: Side, limits: &FrameLimits) -> Checked<Vec<RRef>> {
    let [refs] = exactly(params, "list of objects")?;
    let refs = list(Some(refs), "list of objects")?;
    bounded("references", refs.len(), limits.refs_max)?;
    let expected = match side {
        Side::Import => "an object that the receiver exported",
        Side::Export => "an object that the sender exported",
    };
    let object = |value| {
        let rref = reference(value)?;
        let fits = rref.kind == RefKind::Object && rref.side == side;
        if fits { Ok(rref) } else { Err(FrameError::BadRef { text: rref.to_string(), expected }) }
    };
    refs.into_iter().map(object).collect()
}

fn promise(value: Value) -> Checked<RRef> {
    let rref = reference(value)?;
    match rref.kind {
        RefKind::Promise => Ok(rref),
        RefKind::Object => Err(FrameError::BadRef { text: rref.to_string(), expected: "a promise" }),
    }
}

/// The only place where a reference from the wire becomes one of ours.
fn reference(value: Value) -> Checked<RRef> {
    let expected = "a remote reference";
    let Value::String(text) = value else {
        return Err(FrameError::BadRef { text: cut(&value.to_string()), expected });
    };
    let wire: Result<WireRef, _> = text.parse();
    wire.map(WireRef::received).map_err(|_| FrameError::BadRef { text: cut(&text), expected })
}

fn short(value: Value, limits: &FrameLimits) -> Checked<String> {
    let Value::String(text) = value else {
        return Err(FrameError::Malformed("text"));
    };
    bounded("bytes of text", text.len(), limits.text_bytes_max)?;
    Ok(text)
}

fn list(value: Option<Value>, what: &'static str) -> Checked<Vec<Value>> {
    match value {
        Some(Value::Array(items)) => Ok(items),
        Some(_) | None => Err(FrameError::Malformed(what)),
    }
}

fn exactly<const N: usize>(items: Vec<Value>, what: &'static str) -> Checked<[Value; N]> {
    items.try_into().map_err(|_| FrameError::Malformed(what))
}

fn bounded(what: &'static str, got: usize, limit: usize) -> Checked<()> {
    if got > limit { Err(FrameError::TooMany { what, got, limit }) } else { Ok(()) }
}
