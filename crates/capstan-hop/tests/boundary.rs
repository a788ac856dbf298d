//! The verdict at the boundary: what crosses, and what is answered where nothing did (03 D.9).

use crate::ends::{ANN, above, below, classic, greeted, hop, within};
use capstan_hop::VERDICT_MAX;
use capstan_model::peer::{ChannelId, Digest, Epoch, Incarnation, PeerId, Seq};
use capstan_wire::facts::{Facts, Left, SessionFacts};
use capstan_wire::seam::{LinkEvent, LinkOrder, Verdict};
use serde_json::{Value, json};

const QUESTION: &str = r#"{"jsonrpc":"2.0","id":"vws:1","method":"remoteIncarnationChange","params":{"peerId":"ann","channel":3,"observedIncarnation":"B"}}"#;

#[tokio::test]
async fn r139_the_peer_and_its_life_cross_and_the_verdict_comes_back() {
    for (verdict, number) in [(Verdict::Register, 1), (Verdict::Restarted, 2)] {
        let (mut above, mut below) = hop().await;
        let channel = greeted(&mut above, &mut below, number).await;
        let read = LinkEvent::HandshakeRead { channel, theirs: classic("B"), note_changed: false };
        below.report(read.clone());
        assert_eq!(above.next().await, read);
        above.end.order(LinkOrder::Answer { channel, verdict: verdict.clone() });
        assert_eq!(below.verdict().await, verdict);
        below.is_quiet();
    }
}

#[tokio::test]
async fn r139_as_it_is_written() {
    let (mut raw, mut above) = above(true, false);
    raw.say(QUESTION).await;
    let (channel, theirs) = (ChannelId(3), classic("B"));
    assert_eq!(above.next().await, LinkEvent::HandshakeRead { channel, theirs, note_changed: false });
    above.end.order(LinkOrder::Answer { channel, verdict: Verdict::Restarted });
    assert_eq!(raw.line().await, r#"{"jsonrpc":"2.0","id":"vws:1","result":true}"#);
    raw.say(QUESTION).await;
    above.next().await;
    above.end.order(LinkOrder::Answer { channel, verdict: Verdict::Register });
    assert_eq!(raw.line().await, r#"{"jsonrpc":"2.0","id":"vws:1","result":false}"#);
}

/// What the network's process makes of the answer to its question.
async fn verdict_on(answer: Value) -> Verdict {
    let (mut raw, mut below) = below().await;
    let channel = ChannelId(3);
    below.report(LinkEvent::FactsWanted { channel, peer: PeerId::new(ANN), dialed: true });
    raw.line().await;
    below.report(LinkEvent::HandshakeRead { channel, theirs: classic("B"), note_changed: false });
    let mut question = raw.json().await;
    assert_eq!(
        question,
        json!({"jsonrpc": "2.0", "id": "vws:2", "method": "remoteIncarnationChange",
               "params": {"peerId": ANN, "channel": 3, "observedIncarnation": "B"}})
    );
    let mut response = json!({"jsonrpc": "2.0", "id": question["id"].take()});
    response.as_object_mut().unwrap().extend(answer.as_object().unwrap().clone());
    raw.say(response).await;
    below.verdict().await
}

fn is_unknown(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Refuse(reason) if reason.starts_with("verdict unknown: "))
}

#[tokio::test]
async fn r140_the_network_uses_no_channel_without_a_verdict() {
    assert_eq!(verdict_on(json!({"result": false})).await, Verdict::Register);
    assert_eq!(verdict_on(json!({"result": true})).await, Verdict::Restarted);
    for answer in [
        json!({"error": {"code": -32603, "message": "the kernel is away"}}),
        json!({"error": "rubbish"}),
        json!({"result": null}),
        json!({"result": "false"}),
        json!({"result": 0}),
        json!({}),
    ] {
        let verdict = verdict_on(answer.clone()).await;
        assert!(is_unknown(&verdict), "{answer}: {verdict:?}");
    }
}

/// A session peer's facts.
fn session(life: &str) -> Facts {
    let session = SessionFacts {
        believes: Some(Incarnation::new("ours")),
        epoch: Epoch(3),
        base: Epoch(2),
        una: Seq(4),
        sent: Seq(5),
        recv: Seq(6),
        digest: Digest([7; 16]),
        left: Some(Left { life: Incarnation::new("B"), epoch: Epoch(1) }),
        classic_born: false,
        frame_bytes_max: 8,
        credit: 9,
        words: vec!["pipeline".into()],
        listen: vec!["/ip4/127.0.0.1/tcp/1".into()],
    };
    Facts { incarnation: Incarnation::new(life), session: Some(session) }
}

#[tokio::test]
async fn r139_a_session_is_judged_in_full_and_asked_about_again_when_it_is_confirmed() {
    let (mut above, mut below) = hop().await;
    let channel = greeted(&mut above, &mut below, 1).await;
    let read = LinkEvent::HandshakeRead { channel, theirs: session("B"), note_changed: true };
    below.report(read.clone());
    assert_eq!(above.next().await, read);
    above.end.order(LinkOrder::Answer { channel, verdict: Verdict::AwaitConfirm });
    assert_eq!(below.verdict().await, Verdict::AwaitConfirm);
    below.report(LinkEvent::Confirmed { channel });
    assert_eq!(above.next().await, LinkEvent::Confirmed { channel });
    let verdict = Verdict::Refuse("stale".into());
    above.end.order(LinkOrder::Answer { channel, verdict: verdict.clone() });
    assert_eq!(below.verdict().await, verdict);
}

#[tokio::test]
async fn r140_no_session_is_used_without_a_verdict() {
    for answer in [
        json!({"error": {"code": -32603, "message": "the kernel is away"}}),
        json!({"result": null}),
        json!({"result": false}),
        json!({"result": "register"}),
    ] {
        let (mut raw, mut below) = below().await;
        let channel = ChannelId(3);
        below.report(LinkEvent::FactsWanted { channel, peer: PeerId::new(ANN), dialed: true });
        raw.line().await;
        below.report(LinkEvent::HandshakeRead { channel, theirs: session("B"), note_changed: false });
        let question = raw.json().await;
        assert_eq!(question["method"], json!("remoteHandshake"));
        let mut response = json!({"jsonrpc": "2.0", "id": question["id"]});
        response.as_object_mut().unwrap().extend(answer.as_object().unwrap().clone());
        raw.say(response).await;
        let verdict = below.verdict().await;
        assert!(is_unknown(&verdict), "{answer}: {verdict:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn r140_an_answer_that_does_not_come_is_none() {
    let (mut raw, mut below) = below().await;
    let channel = ChannelId(3);
    below.report(LinkEvent::FactsWanted { channel, peer: PeerId::new(ANN), dialed: true });
    below.report(LinkEvent::HandshakeRead { channel, theirs: classic("B"), note_changed: false });
    raw.line().await;
    raw.line().await;
    tokio::time::sleep(VERDICT_MAX).await;
    assert!(matches!(below.order().await, LinkOrder::CloseChannel { .. }), "it was not greeted either");
    assert!(is_unknown(&below.verdict().await));
    // The late answer is nobody's.
    raw.say(r#"{"jsonrpc":"2.0","id":"vws:2","result":false}"#).await;
    raw.say(r#"{"jsonrpc":"2.0","id":"m2","method":"resetAllBackoffs","params":[]}"#).await;
    assert_eq!(below.order().await, LinkOrder::Woke);
}

/// What the kernel's process answers where its kernel has `verdict` to give.
async fn answer_of(verdict: Verdict) -> (Option<String>, Value) {
    let (mut raw, mut above) = above(true, false);
    raw.say(QUESTION).await;
    above.next().await;
    above.end.order(LinkOrder::Answer { channel: ChannelId(3), verdict });
    let first = raw.json().await;
    if first.get("method").is_none() {
        return (None, first["result"].clone());
    }
    assert_eq!((&first["method"], &first["params"]["channel"]), (&json!("closeChannel"), &json!(3)));
    let reason = first["params"]["reason"].as_str().map(str::to_owned);
    (reason, raw.json().await["result"].clone())
}

#[tokio::test]
async fn r140_the_kernel_answers_true_to_what_it_has_not_judged() {
    assert_eq!(answer_of(Verdict::Register).await, (None, json!(false)));
    assert_eq!(answer_of(Verdict::Restarted).await, (None, json!(true)));
    // Not a restart: the channel is closed first, so that the network takes `true` for nothing more.
    let (reason, answer) = answer_of(Verdict::Refuse("stale: another handshake won".into())).await;
    assert_eq!(reason.as_deref(), Some("verdict unknown: stale: another handshake won"));
    assert_eq!(answer, json!(true));
    let (reason, answer) = answer_of(Verdict::AwaitConfirm).await;
    assert!(reason.unwrap().contains("AwaitConfirm"));
    assert_eq!(answer, json!(true));
}

#[tokio::test]
async fn r140_a_kernel_that_throws_says_true_and_one_that_does_not_compare_says_false() {
    let (mut raw, throwing) = above(true, true);
    raw.say(QUESTION).await;
    assert_eq!(raw.json().await["method"], json!("closeChannel"));
    assert_eq!(raw.line().await, r#"{"jsonrpc":"2.0","id":"vws:1","result":true}"#);
    drop(throwing);
    let (mut raw, _above) = above(false, false);
    raw.say(QUESTION).await;
    assert_eq!(raw.line().await, r#"{"jsonrpc":"2.0","id":"vws:1","result":false}"#);
}

#[tokio::test]
async fn r140_r154_the_network_closes_what_the_kernel_has_not_judged_as_a_failed_attempt() {
    let (mut above, mut below) = hop().await;
    let channel = greeted(&mut above, &mut below, 1).await;
    below.report(LinkEvent::HandshakeRead { channel, theirs: classic("B"), note_changed: false });
    above.next().await;
    above.end.order(LinkOrder::Answer { channel, verdict: Verdict::Refuse("stale".into()) });
    let reason = "verdict unknown: stale".to_owned();
    assert_eq!(below.order().await, LinkOrder::CloseChannel { channel, reason: reason.clone() });
    // By now the links have forgotten the channel: this is for nobody.
    assert_eq!(below.verdict().await, Verdict::Restarted);
    below.report(LinkEvent::ChannelClosed { channel, reason: reason.clone() });
    assert_eq!(above.next().await, LinkEvent::ChannelClosed { channel, reason });
}

#[tokio::test]
async fn r154_a_dead_network_closes_its_channels_and_says_nothing_else() {
    let (mut raw, mut above) = above(true, false);
    for channel in [1, 2] {
        raw.say(json!({"jsonrpc": "2.0", "id": "vws:1", "method": "remoteGreeting",
                       "params": {"channel": channel, "peerId": ANN, "dialed": true}}))
            .await;
        above.next().await;
    }
    raw.say(QUESTION.replace(r#""channel":3"#, r#""channel":2"#)).await;
    above.next().await;
    drop(raw);
    for channel in [1, 2].map(ChannelId) {
        assert!(
            matches!(above.next().await, LinkEvent::ChannelClosed { channel: gone, .. } if gone == channel)
        );
    }
    // The verdict comes too late for anybody.
    above.end.order(LinkOrder::Answer { channel: ChannelId(2), verdict: Verdict::Register });
    above.end.order(LinkOrder::Want { peer: PeerId::new(ANN), hints: vec![], for_send: true });
    within(above.drained).await.unwrap().unwrap();
    assert!(above.events.try_recv().is_err());
    assert_eq!(above.end.last_channel(), 2);
}
