//! Options, start and stop at the boundary.

use crate::ends::{Below, Raw, Told, hop, options, within};
use capstan_hop::message::{KeySeed, NetworkCall, Options};
use capstan_hop::{Fault, KernelEnd};
use serde_json::{Value, json};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use tokio::io::duplex;

fn call(id: u64, method: &str, params: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": format!("m{id}"), "method": method, "params": params})
}

#[tokio::test]
async fn r169_undefined_options_are_not_sent_and_unknown_ones_are_refused() {
    let seed = "07".repeat(32);
    let written = json!(NetworkCall::InitializeRemoteComms(options().into()));
    assert_eq!(written, json!({"method": "initializeRemoteComms", "params": {"keySeed": seed}}));
    let all = Options {
        direct_listen_addresses: vec!["/ip4/127.0.0.1/tcp/0".into()],
        relays: vec!["/ip4/127.0.0.1/tcp/1/p2p/x".into()],
        allowed_ws_hosts: vec!["relay.example".into()],
        reference_listen_addresses: vec!["/ip4/127.0.0.1/tcp/2".into()],
        max_retry_attempts: Some(3),
        reconnection_base_delay_ms: Some(1),
        reconnection_max_delay_ms: Some(2),
        handshake_timeout_ms: Some(3),
        max_message_size_bytes: Some(4),
        write_timeout_ms: Some(5),
        max_concurrent_connections: Some(6),
        max_connection_attempts_per_minute: NonZeroU32::new(7),
        max_messages_per_second: NonZeroU32::new(8),
        stream_inactivity_timeout_ms: Some(9),
        stale_peer_timeout_ms: Some(10),
        first_channel: Some(11),
        key_seed: KeySeed([9; 32]),
    };
    let (ours, theirs) = duplex(1 << 16);
    let (mut raw, below) = (Raw::new(ours), Below::new(theirs));
    let mut params = json!(all);
    raw.say(call(1, "initializeRemoteComms", &params)).await;
    assert_eq!(raw.json().await["result"], Value::Null);
    assert_eq!(*below.started.lock().unwrap(), [all]);

    let (ours, theirs) = duplex(1 << 16);
    let (mut raw, below) = (Raw::new(ours), Below::new(theirs));
    params["mnemonic"] = json!("abandon abandon");
    raw.say(call(1, "initializeRemoteComms", &params)).await;
    let error = raw.json().await["error"].clone();
    assert_eq!(error["code"], json!(Fault::INVALID_PARAMS));
    assert!(error["message"].as_str().unwrap().contains("unknown field `mnemonic`"), "{error}");
    raw.say(call(2, "initializeRemoteComms", &json!({}))).await;
    assert_eq!(raw.json().await["error"]["code"], json!(Fault::INVALID_PARAMS));
    raw.say(call(3, "wantLink", &json!({"peerId": "ann", "forSend": true, "mnemonic": 1}))).await;
    assert_eq!(raw.json().await["error"]["code"], json!(Fault::INVALID_PARAMS));
    assert!(below.started.lock().unwrap().is_empty());
}

/// Everything that is logged, at every level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn r169_the_key_seed_crosses_and_is_shown_nowhere() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let seed = "c0ffee11".repeat(8);
    let (ours, theirs) = duplex(1 << 16);
    let (mut raw, below) = (Raw::new(ours), Below::new(theirs));
    let mut shown = String::new();
    for (id, params) in [
        json!({"keySeed": seed, "surprise": 1}),
        json!({"keySeed": format!("{seed}00")}),
        json!({"keySeed": [seed]}),
        json!({"keySeed": seed.replace('c', "x")}),
        json!([seed]),
        json!([seed, seed]),
        json!(seed),
        json!({"keySeed": "07".repeat(32), "relays": seed}),
        json!({"keySeed": seed}),
        json!({"keySeed": seed}),
    ]
    .iter()
    .enumerate()
    {
        raw.say(call(id.try_into().unwrap(), "initializeRemoteComms", params)).await;
        shown.push_str(&raw.line().await);
    }
    raw.say(format_args!(r#"{{"jsonrpc":"2.0","id":"m99","result":{{"keySeed":"{seed}"}}}}"#)).await;
    raw.say(format_args!(r#"{{"keySeed":"{seed}""#)).await;
    shown.push_str(&raw.line().await);
    let started = below.started.lock().unwrap().pop().unwrap();
    assert_eq!(json!(started.key_seed), json!(seed), "it has crossed");
    shown.push_str(&format!("{started:?} {:?}", NetworkCall::InitializeRemoteComms(started.clone().into())));
    drop(guard);
    shown.push_str(&String::from_utf8_lossy(&log.0.lock().unwrap()));
    assert!(!shown.contains("c0ffee11") && !shown.contains("xoffee11"), "{shown}");
    assert!(shown.contains("m99"), "nothing was logged at all: {shown}");
}

#[tokio::test]
async fn r170_start_and_stop_in_any_order() {
    let (ours, theirs) = duplex(1 << 16);
    let (mut raw, mut below) = (Raw::new(ours), Below::new(theirs));
    let start = json!(options());
    let want = json!({"peerId": "ann", "forSend": false});
    let not_yet = json!("remote comms not initialized");
    for (id, (method, params, error)) in [
        ("stopRemoteComms", json!([]), None),
        ("resetAllBackoffs", json!([]), None),
        ("wantLink", want.clone(), Some(not_yet.clone())),
        ("initializeRemoteComms", start.clone(), None),
        ("initializeRemoteComms", start.clone(), Some(json!("remote comms already initialized"))),
        ("wantLink", want.clone(), None),
        ("stopRemoteComms", json!([]), None),
        ("stopRemoteComms", json!([]), None),
        ("wantLink", want.clone(), Some(not_yet)),
        ("initializeRemoteComms", start, None),
        ("wantLink", want, None),
    ]
    .into_iter()
    .enumerate()
    {
        let id = id.try_into().unwrap();
        raw.say(call(id, method, &params)).await;
        let answer = raw.json().await;
        assert_eq!(answer["id"], json!(format!("m{id}")));
        assert_eq!(answer.pointer("/error/message").cloned(), error, "{id} {method}");
    }
    assert!(matches!(below.next().await, Told::Order(_)));
    assert_eq!(below.next().await, Told::Stopped);
    assert!(matches!(below.next().await, Told::Order(_)));
    below.is_quiet();
    assert_eq!(below.started.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn r170_the_network_stops_when_its_kernel_is_gone() {
    let (above, mut below) = hop().await;
    above.drained.abort();
    let _ = above.drained.await;
    drop(above.end);
    assert_eq!(below.next().await, Told::Stopped);
    within(below.served).await.unwrap().unwrap();
}

#[tokio::test]
async fn r170_a_network_that_cannot_start_says_why() {
    let (ours, theirs) = duplex(1 << 16);
    let (reader, writer) = tokio::io::split(theirs);
    let start = |_: Options, _| Err::<crate::ends::Fake, _>("cannot listen on /x".to_owned());
    tokio::spawn(capstan_hop::serve(reader, writer, start));
    let (reader, writer) = tokio::io::split(ours);
    let (end, drained) = KernelEnd::new(reader, writer, Arc::new(|_| {}));
    tokio::spawn(drained);
    let refused = within(end.initialize(Options::new(KeySeed([1; 32])))).await;
    assert_eq!(refused.unwrap_err().message, "cannot listen on /x");
}
