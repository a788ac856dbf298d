//! A node with a kernel that says yes.

use capstan_model::peer::{ChannelId, Hint, Incarnation, PeerId};
use capstan_net::{Node, NodeConfig};
use capstan_wire::facts::Facts;
use capstan_wire::seam::{LinkEvent, LinkOrder, OutFrame, Verdict};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// No wait in these tests is longer.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Station {
    pub(crate) node: Node,
    pub(crate) events: mpsc::UnboundedReceiver<LinkEvent>,
    pub(crate) address: Vec<Hint>,
    /// The channel of the last verdict that was not closed since.
    pub(crate) channel: Option<ChannelId>,
    pub(crate) received: Vec<Arc<str>>,
    life: String,
}

impl Station {
    pub(crate) async fn start(seed: u8) -> Self {
        Station::with(NodeConfig {
            listen: vec!["/ip4/127.0.0.1/tcp/0".into()],
            ..NodeConfig::new([seed; 32])
        })
        .await
    }
    pub(crate) async fn with(config: NodeConfig) -> Self {
        let life = format!("life-{}", config.seed[0]);
        let (sender, events) = mpsc::unbounded_channel();
        let node = Node::spawn(config, move |event| drop(sender.send(event))).unwrap();
        let mut station = Station { node, events, address: vec![], channel: None, received: vec![], life };
        station.until(|station, _| !station.address.is_empty()).await;
        station
    }
    pub(crate) fn peer(&self) -> PeerId {
        self.node.peer().clone()
    }
    pub(crate) fn want(&self, other: &Station) {
        let (peer, hints) = (other.peer(), other.address.clone());
        self.node.order(LinkOrder::Want { peer, hints, for_send: false });
    }
    pub(crate) fn send(&self, texts: impl IntoIterator<Item = String>) {
        let frames = texts.into_iter().map(|text| OutFrame { seq: None, text: text.into() }).collect();
        self.node.order(LinkOrder::Send { channel: self.channel.unwrap(), frames, awaited: false });
    }
    /// Handles one event as the kernel would, and returns it.
    pub(crate) async fn turn(&mut self) -> LinkEvent {
        let event = tokio::time::timeout(PATIENCE, self.events.recv()).await.expect("an event").unwrap();
        match &event {
            LinkEvent::FactsWanted { channel, .. } => {
                let facts = Facts { incarnation: Incarnation::new(self.life.clone()), session: None };
                self.node.order(LinkOrder::Greet { channel: *channel, facts });
            }
            LinkEvent::HandshakeRead { channel, .. } => {
                self.channel = Some(*channel);
                self.node.order(LinkOrder::Answer { channel: *channel, verdict: Verdict::Register });
            }
            LinkEvent::FramesRead { channel, frames } => {
                self.received.extend(frames.iter().cloned());
                self.node.consumed(*channel);
            }
            LinkEvent::ChannelClosed { channel, .. } => {
                self.channel = self.channel.filter(|open| open != channel);
            }
            LinkEvent::Listening { addresses } => self.address = addresses.clone(),
            _ => {}
        }
        event
    }
    pub(crate) async fn until(&mut self, done: impl Fn(&Station, &LinkEvent) -> bool) {
        loop {
            let event = self.turn().await;
            if done(self, &event) {
                return;
            }
        }
    }
    /// Handles what comes until `count` frames have been received in all.
    pub(crate) async fn receive(&mut self, count: usize) {
        while self.received.len() < count {
            self.turn().await;
        }
    }
}

/// Lets both handle events until a text sent by each has reached the other.
pub(crate) async fn talk(one: &mut Station, two: &mut Station) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let (mut sent_one, mut sent_two) = (None, None);
    one.received.clear();
    two.received.clear();
    while one.received.is_empty() || two.received.is_empty() {
        assert!(tokio::time::Instant::now() < deadline, "they do not talk");
        for (station, sent) in [(&mut *one, &mut sent_one), (&mut *two, &mut sent_two)] {
            if station.channel.is_some() && station.channel != *sent {
                *sent = station.channel;
                station.send(["hello".to_owned()]);
            }
        }
        tokio::select! {
            _ = one.turn() => {}
            _ = two.turn() => {}
        }
    }
}
