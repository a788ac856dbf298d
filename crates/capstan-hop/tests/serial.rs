//! What keeps its order, and what must not wait (03 D-21, D-23), and errors by name (D-19).

use crate::ends::{ANN, Told, below, classic, greeted, hop, registered, within};
use capstan_hop::rpc::{self, Caller, Desk, Responder};
use capstan_model::error::{
    IntentionalCloseError, NetworkStoppedError, PeerRestartedError, is_terminal_send_error,
};
use capstan_model::peer::{ChannelId, PeerId, Seq};
use capstan_wire::seam::{LinkEvent, LinkOrder, OutFrame, SendFault, Verdict};
use serde_json::{Value, json};
use tokio::io::{duplex, split};

fn frame(seq: u64, text: &str) -> OutFrame {
    OutFrame { seq: Some(Seq(seq)), text: text.into() }
}

#[tokio::test]
async fn r141_a_send_whose_handshake_asks_back_is_answered() {
    let (mut above, mut below) = hop().await;
    let channel = registered(&mut above, &mut below, 1).await;
    above.end.order(LinkOrder::Send { channel, frames: vec![frame(4, "hello")], awaited: true });
    assert!(matches!(below.order().await, LinkOrder::Send { .. }));
    // While the write is under way another handshake needs the kernel.
    let other = greeted(&mut above, &mut below, 2).await;
    below.report(LinkEvent::HandshakeRead { channel: other, theirs: classic("A"), note_changed: false });
    assert!(matches!(above.next().await, LinkEvent::HandshakeRead { .. }));
    above.end.order(LinkOrder::Answer { channel: other, verdict: Verdict::Register });
    assert_eq!(below.verdict().await, Verdict::Register);
    below.report(LinkEvent::Sent { channel, seq: Some(Seq(1)), outcome: Ok(()) });
    assert_eq!(above.next().await, LinkEvent::Sent { channel, seq: Some(Seq(4)), outcome: Ok(()) });
}

#[tokio::test]
async fn r141_a_delivery_whose_handler_registers_hints_is_answered() {
    let (mut above, mut below) = hop().await;
    let channel = registered(&mut above, &mut below, 1).await;
    below.report(LinkEvent::FramesRead { channel, frames: vec!["one".into()] });
    assert_eq!(above.next().await, LinkEvent::FramesRead { channel, frames: vec!["one".into()] });
    let (peer, hints) = (PeerId::new("bob"), vec!["/ip4/127.0.0.1/tcp/1".into()]);
    above.end.order(LinkOrder::Want { peer: peer.clone(), hints: hints.clone(), for_send: true });
    assert_eq!(below.order().await, LinkOrder::Want { peer, hints, for_send: true });
    above.end.consumed(channel);
    assert_eq!(below.next().await, Told::Consumed(channel));
}

/// Asks back before it answers.
struct Echo(Caller);

impl Desk for Echo {
    fn begin(&mut self, method: &str, params: Value, responder: Responder) {
        if method == "answer" {
            return responder.answer(Ok(params));
        }
        self.0.call(&json!({"method": "answer", "params": params}), |answer| responder.answer(answer));
    }
}

#[tokio::test]
async fn r141_both_ends_ask_back_in_the_middle_of_a_request() {
    let (ours, theirs) = duplex(1 << 10);
    let mut callers = Vec::new();
    for (prefix, stream) in [("m", ours), ("vws:", theirs)] {
        let (reader, writer) = split(stream);
        let caller = rpc::caller(prefix, writer);
        callers.push(caller.clone());
        tokio::spawn(async move { rpc::drain(reader, &caller, &mut Echo(caller.clone())).await });
    }
    for caller in &callers {
        let call = json!({"method": "ask", "params": ["x"]});
        assert_eq!(within(caller.ask(&call)).await, Ok(json!(["x"])));
    }
    let all = (0..500).map(|number| {
        let caller = callers[number % 2].clone();
        tokio::spawn(async move { caller.ask(&json!({"method": "ask", "params": [number]})).await })
    });
    for (number, asked) in all.collect::<Vec<_>>().into_iter().enumerate() {
        assert_eq!(within(asked).await.unwrap(), Ok(json!([number])));
    }
}

#[tokio::test]
async fn r141_sends_to_a_peer_keep_the_order_of_the_calls() {
    let (mut above, mut below) = hop().await;
    let channel = registered(&mut above, &mut below, 1).await;
    for number in 1..=100 {
        let frames = vec![frame(number, &number.to_string())];
        above.end.order(LinkOrder::Send { channel, frames, awaited: number % 3 == 0 });
    }
    for number in 1..=100 {
        match below.order().await {
            LinkOrder::Send { frames, awaited, .. } => {
                assert_eq!((&*frames[0].text, awaited), (number.to_string().as_str(), number % 3 == 0));
            }
            other => panic!("{other:?}"),
        }
    }
    // An answer keeps its place among the orders.
    let other = greeted(&mut above, &mut below, 2).await;
    below.report(LinkEvent::HandshakeRead { channel: other, theirs: classic("A"), note_changed: false });
    above.next().await;
    above.end.order(LinkOrder::Answer { channel: other, verdict: Verdict::Register });
    above.end.order(LinkOrder::Send { channel: other, frames: vec![frame(1, "x")], awaited: false });
    assert_eq!(below.verdict().await, Verdict::Register);
    assert!(matches!(below.order().await, LinkOrder::Send { .. }));
}

#[tokio::test]
async fn r141_a_classic_channel_tells_one_message_at_a_time() {
    let (mut raw, mut below) = below().await;
    let channel = ChannelId(3);
    below.report(LinkEvent::FactsWanted { channel, peer: PeerId::new(ANN), dialed: false });
    raw.line().await;
    below.report(LinkEvent::HandshakeRead { channel, theirs: classic("A"), note_changed: false });
    raw.line().await;
    below.report(LinkEvent::FramesRead { channel, frames: vec!["one".into(), "two".into()] });
    below.report(LinkEvent::FramesRead { channel, frames: vec!["three".into()] });
    below.report(LinkEvent::ChannelClosed { channel, reason: "end of stream".into() });
    for text in ["one", "two", "three"] {
        let told = raw.json().await;
        assert_eq!(told["method"], json!("remoteDeliver"));
        assert_eq!(told["params"], json!({"from": ANN, "channel": 3, "message": text}));
        // Nothing follows before the answer: what is asked meanwhile comes first.
        below.report(LinkEvent::GaveUp { peer: PeerId::new("bob") });
        assert_eq!(raw.json().await["method"], json!("remoteGiveUp"));
        below.is_quiet();
        raw.say(json!({"jsonrpc": "2.0", "id": told["id"], "result": null})).await;
        if text != "one" {
            assert_eq!(below.next().await, Told::Consumed(channel));
        }
    }
    assert_eq!(raw.json().await["method"], json!("remoteChannelClosed"));
}

#[tokio::test]
async fn r144_terminal_errors_are_known_by_name_on_the_other_side_of_the_hop() {
    let (mut above, mut below) = hop().await;
    let channel = registered(&mut above, &mut below, 1).await;
    let names = [PeerRestartedError::NAME, IntentionalCloseError::NAME, NetworkStoppedError::NAME];
    let faults = names.map(|name| SendFault::Terminal(name.into())).into_iter();
    for (number, fault) in (1..).zip(faults.chain([SendFault::Transient("broken pipe".into())])) {
        above.end.order(LinkOrder::Send { channel, frames: vec![frame(number, "x")], awaited: true });
        below.order().await;
        let seq = Some(Seq(number));
        below.report(LinkEvent::Sent { channel, seq, outcome: Err(fault.clone()) });
        assert_eq!(above.next().await, LinkEvent::Sent { channel, seq, outcome: Err(fault.clone()) });
        let failed = LinkEvent::SendFailed { peer: PeerId::new(ANN), fault: fault.clone() };
        below.report(failed.clone());
        let told = above.next().await;
        assert_eq!(told, failed);
        let LinkEvent::SendFailed { fault: SendFault::Terminal(name) | SendFault::Transient(name), .. } =
            told
        else {
            panic!("{told:?}")
        };
        assert_eq!(is_terminal_send_error(&name), matches!(fault, SendFault::Terminal(_)));
    }
}

#[tokio::test]
async fn r144_an_error_crosses_in_the_marshalled_form() {
    let (mut raw, mut below) = below().await;
    let channel = ChannelId(3);
    below.report(LinkEvent::FactsWanted { channel, peer: PeerId::new(ANN), dialed: false });
    raw.line().await;
    raw.say(
        r#"{"jsonrpc":"2.0","id":"m2","method":"sendRemoteMessage","params":{"to":"ann","channel":3,"message":"x"}}"#,
    )
    .await;
    below.order().await;
    let fault = SendFault::Terminal(PeerRestartedError::NAME.into());
    below.report(LinkEvent::Sent { channel, seq: Some(Seq(1)), outcome: Err(fault) });
    let message = PeerRestartedError::MESSAGE;
    let data = json!({"@@MARSHALED_ERROR": true, "message": message, "code": "PEER_RESTARTED_ERROR"});
    assert_eq!(raw.json().await["error"], json!({"code": -32000, "message": message, "data": data}));
}
