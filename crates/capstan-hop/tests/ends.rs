//! A kernel and a network that do what a test tells them, with the hop between them.

use capstan_hop::message::{KeySeed, Options};
use capstan_hop::{Kernel, KernelEnd, Network, Sink, serve};
use capstan_model::peer::{ChannelId, Incarnation, PeerId};
use capstan_wire::facts::Facts;
use capstan_wire::seam::{LinkEvent, LinkOrder, Verdict};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// No step of these tests takes longer (r141).
pub(crate) const LIMIT: Duration = Duration::from_secs(2);
pub(crate) const ANN: &str = "ann";

/// What the network was told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Order(LinkOrder),
    Consumed(ChannelId),
    Stopped,
}

pub(crate) struct Fake(mpsc::UnboundedSender<Told>);

impl Network for Fake {
    fn order(&self, order: LinkOrder) {
        let _ = self.0.send(Told::Order(order));
    }
    fn consumed(&self, channel: ChannelId) {
        let _ = self.0.send(Told::Consumed(channel));
    }
    fn ping(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(std::future::ready(()))
    }
    fn stop(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let told = self.0.clone();
        Box::pin(async move { drop(told.send(Told::Stopped)) })
    }
}

/// A kernel that hands its events to the test.
pub(crate) struct Listening {
    pub(crate) events: mpsc::UnboundedSender<LinkEvent>,
    pub(crate) compares: bool,
    /// Panics instead.
    pub(crate) throws: bool,
}

impl Kernel for Listening {
    fn happened(&self, event: LinkEvent) {
        assert!(!self.throws, "as the test wants it");
        let _ = self.events.send(event);
    }
    fn compares(&self) -> bool {
        self.compares
    }
}

/// The network's process: both what it was told and how it reports.
pub(crate) struct Below {
    pub(crate) told: mpsc::UnboundedReceiver<Told>,
    sink: Arc<Mutex<Option<Sink>>>,
    pub(crate) started: Arc<Mutex<Vec<Options>>>,
    pub(crate) served: JoinHandle<std::io::Result<()>>,
}

impl Below {
    pub(crate) fn new(stream: DuplexStream) -> Below {
        let (reader, writer) = split(stream);
        let (sender, told) = mpsc::unbounded_channel();
        let (sink, started) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(Vec::new())));
        let (kept, seen) = (sink.clone(), started.clone());
        let start = move |options, sink| {
            seen.lock().unwrap().push(options);
            *kept.lock().unwrap() = Some(sink);
            Ok(Fake(sender.clone()))
        };
        Below { told, sink, started, served: tokio::spawn(serve(reader, writer, start)) }
    }
    pub(crate) fn report(&self, event: LinkEvent) {
        let sink = self.sink.lock().unwrap().clone().unwrap();
        sink(event);
    }
    pub(crate) async fn next(&mut self) -> Told {
        within(self.told.recv()).await.unwrap()
    }
    pub(crate) async fn order(&mut self) -> LinkOrder {
        match self.next().await {
            Told::Order(order) => order,
            other => panic!("{other:?}"),
        }
    }
    pub(crate) async fn verdict(&mut self) -> Verdict {
        match self.order().await {
            LinkOrder::Answer { verdict, .. } => verdict,
            other => panic!("{other:?}"),
        }
    }
    /// Nothing has been said that was not read.
    pub(crate) fn is_quiet(&mut self) {
        assert!(self.told.try_recv().is_err());
    }
}

/// The kernel's process.
pub(crate) struct Above {
    pub(crate) end: KernelEnd,
    pub(crate) events: mpsc::UnboundedReceiver<LinkEvent>,
    pub(crate) drained: JoinHandle<std::io::Result<()>>,
}

impl Above {
    pub(crate) async fn next(&mut self) -> LinkEvent {
        within(self.events.recv()).await.unwrap()
    }
}

pub(crate) fn options() -> Options {
    Options::new(KeySeed([7; 32]))
}

pub(crate) fn kernel(compares: bool, throws: bool) -> (Listening, mpsc::UnboundedReceiver<LinkEvent>) {
    let (events, received) = mpsc::unbounded_channel();
    (Listening { events, compares, throws }, received)
}

/// Both ends, the network started.
pub(crate) async fn hop() -> (Above, Below) {
    let (listening, events) = kernel(true, false);
    hop_of(listening, events).await
}

pub(crate) async fn hop_of(
    listening: Listening,
    events: mpsc::UnboundedReceiver<LinkEvent>,
) -> (Above, Below) {
    let (ours, theirs) = duplex(1 << 16);
    let below = Below::new(theirs);
    let (reader, writer) = split(ours);
    let (end, drained) = KernelEnd::new(reader, writer, Arc::new(listening));
    let above = Above { end, events, drained: tokio::spawn(drained) };
    within(above.end.initialize(options())).await.unwrap();
    (above, below)
}

/// The end that is played by the test, line by line.
pub(crate) struct Raw {
    reader: ReadHalf<DuplexStream>,
    writer: WriteHalf<DuplexStream>,
    rest: Vec<u8>,
}

impl Raw {
    pub(crate) fn new(stream: DuplexStream) -> Raw {
        let (reader, writer) = split(stream);
        Raw { reader, writer, rest: Vec::new() }
    }
    pub(crate) async fn say(&mut self, line: impl std::fmt::Display) {
        self.writer.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }
    pub(crate) async fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return String::from_utf8(line).unwrap().trim_end().to_owned();
            }
            let mut bytes = vec![0; 4096];
            let length = within(self.reader.read(&mut bytes)).await.unwrap();
            assert!(length > 0, "the end of the stream");
            self.rest.extend_from_slice(&bytes[..length]);
        }
    }
    pub(crate) async fn json(&mut self) -> serde_json::Value {
        serde_json::from_str(&self.line().await).unwrap()
    }
}

/// The network's end, started, with the kernel's end played by the test.
pub(crate) async fn below() -> (Raw, Below) {
    let (ours, theirs) = duplex(1 << 16);
    let (mut raw, below) = (Raw::new(ours), Below::new(theirs));
    let seed = "07".repeat(32);
    raw.say(format_args!(
        r#"{{"jsonrpc":"2.0","id":"m1","method":"initializeRemoteComms","params":{{"keySeed":"{seed}"}}}}"#
    ))
    .await;
    assert_eq!(raw.line().await, r#"{"jsonrpc":"2.0","id":"m1","result":null}"#);
    (raw, below)
}

/// The kernel's end, with the network's end played by the test.
pub(crate) fn above(compares: bool, throws: bool) -> (Raw, Above) {
    let (ours, theirs) = duplex(1 << 16);
    let (listening, events) = kernel(compares, throws);
    let (reader, writer) = split(theirs);
    let (end, drained) = KernelEnd::new(reader, writer, Arc::new(listening));
    (Raw::new(ours), Above { end, events, drained: tokio::spawn(drained) })
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("in time")
}

pub(crate) fn classic(life: &str) -> Facts {
    Facts { incarnation: Incarnation::new(life), session: None }
}

/// A channel of Ann's, greeted: the next is her handshake.
pub(crate) async fn greeted(above: &mut Above, below: &mut Below, number: u64) -> ChannelId {
    let channel = ChannelId(number);
    let wanted = LinkEvent::FactsWanted { channel, peer: PeerId::new(ANN), dialed: true };
    below.report(wanted.clone());
    assert_eq!(above.next().await, wanted);
    above.end.order(LinkOrder::Greet { channel, facts: classic("ours") });
    assert_eq!(below.order().await, LinkOrder::Greet { channel, facts: classic("ours") });
    channel
}

/// A classic channel of Ann's, registered.
pub(crate) async fn registered(above: &mut Above, below: &mut Below, number: u64) -> ChannelId {
    let channel = greeted(above, below, number).await;
    below.report(LinkEvent::HandshakeRead { channel, theirs: classic("A"), note_changed: false });
    above.next().await;
    above.end.order(LinkOrder::Answer { channel, verdict: Verdict::Register });
    assert_eq!(below.verdict().await, Verdict::Register);
    channel
}
