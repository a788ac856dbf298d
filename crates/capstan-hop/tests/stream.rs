//! Requests and responses that nobody knows, and what is no message at all.

use crate::ends::{ANN, above, below, hop};
use capstan_hop::Fault;
use capstan_model::peer::{Hint, PeerId};
use capstan_wire::seam::{LinkEvent, LinkOrder};
use serde_json::json;

#[tokio::test]
async fn r171_an_unknown_method_is_answered_with_an_error_by_both_ends() {
    let unknown = r#"{"jsonrpc":"2.0","id":"x","method":"surprise","params":{}}"#;
    let (mut raw, _below) = below().await;
    raw.say(unknown).await;
    let answer = raw.json().await;
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!("x"), &json!(Fault::UNKNOWN_METHOD)));
    // A method of the other direction is as unknown.
    raw.say(r#"{"jsonrpc":"2.0","id":7,"method":"remoteGiveUp","params":{"peerId":"ann"}}"#).await;
    let answer = raw.json().await;
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(7), &json!(Fault::UNKNOWN_METHOD)));
    let (mut raw, mut above) = above(true, false);
    raw.say(unknown).await;
    assert_eq!(raw.json().await["error"]["code"], json!(Fault::UNKNOWN_METHOD));
    raw.say(r#"{"jsonrpc":"2.0","id":"vws:1","method":"remoteGiveUp","params":{"peer":"ann"}}"#).await;
    assert_eq!(raw.json().await["error"]["code"], json!(Fault::INVALID_PARAMS));
    raw.say(r#"{"jsonrpc":"2.0","id":"vws:2","method":"remoteGiveUp","params":{"peerId":"ann"}}"#).await;
    assert_eq!(raw.line().await, r#"{"jsonrpc":"2.0","id":"vws:2","result":null}"#);
    assert_eq!(above.next().await, LinkEvent::GaveUp { peer: PeerId::new(ANN) });
}

#[tokio::test]
async fn r171_responses_that_nobody_waits_for_are_ignored() {
    let (mut raw, mut below) = below().await;
    for line in [
        r#"{"jsonrpc":"2.0","id":"vws:99","result":true}"#,
        r#"{"jsonrpc":"2.0","id":"m1","result":true}"#,
        r#"{"jsonrpc":"2.0","id":"vws:-1","error":{"code":1,"message":"x"}}"#,
        r#"{"jsonrpc":"2.0","id":null,"result":1}"#,
        r#"{"jsonrpc":"2.0"}"#,
    ] {
        raw.say(line).await;
    }
    raw.say(r#"{"jsonrpc":"2.0","id":"m2","method":"resetAllBackoffs","params":[]}"#).await;
    assert_eq!(raw.line().await, r#"{"jsonrpc":"2.0","id":"m2","result":null}"#, "nothing else is answered");
    assert_eq!(below.order().await, LinkOrder::Woke);
}

#[tokio::test]
async fn r171_what_is_no_message_is_refused_and_the_stream_goes_on() {
    let (mut raw, mut below) = below().await;
    for (line, code) in [
        ("rubbish", Fault::PARSE_ERROR),
        ("[]", Fault::INVALID_REQUEST),
        (r#"{"id":"m2","method":"resetAllBackoffs"}"#, Fault::INVALID_REQUEST),
        (r#"{"jsonrpc":"2.0","method":"resetAllBackoffs"}"#, Fault::INVALID_REQUEST),
        (r#"{"jsonrpc":"2.0","id":"m2","method":3}"#, Fault::INVALID_REQUEST),
        (r#"{"jsonrpc":"2.0","id":"m2","method":"closeChannel"}"#, Fault::INVALID_PARAMS),
        (r#"{"jsonrpc":"2.0","id":"m2","method":"closeChannel","params":[]}"#, Fault::INVALID_PARAMS),
    ] {
        raw.say(line).await;
        assert_eq!(raw.json().await["error"]["code"], json!(code), "{line}");
    }
    raw.say(r#"{"jsonrpc":"2.0","id":"m3","method":"resetAllBackoffs"}"#).await;
    assert_eq!(below.order().await, LinkOrder::Woke);
}

#[tokio::test]
async fn every_other_order_and_event_crosses_as_it_is() {
    let (mut above, mut below) = hop().await;
    let peer = || PeerId::new(ANN);
    let hints: Vec<Hint> = vec!["/ip4/127.0.0.1/tcp/1".into()];
    for order in [
        LinkOrder::Want { peer: peer(), hints: vec![], for_send: false },
        LinkOrder::Unwant { peer: peer() },
        LinkOrder::ClosePeer { peer: peer() },
        LinkOrder::Reopen { peer: peer(), hints: hints.clone() },
        LinkOrder::ForgetPeer { peer: peer() },
        LinkOrder::ResetNote { peer: peer() },
        LinkOrder::Woke,
    ] {
        above.end.order(order.clone());
        assert_eq!(below.order().await, order);
    }
    for event in [
        LinkEvent::GaveUp { peer: peer() },
        LinkEvent::Declined { peer: peer() },
        LinkEvent::HintsLearned { peer: peer(), hints: hints.clone() },
        LinkEvent::Listening { addresses: hints },
    ] {
        below.report(event.clone());
        assert_eq!(above.next().await, event);
    }
}
