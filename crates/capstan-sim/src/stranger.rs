//! A peer that is no kernel: the test decides every handshake and every frame that a bare kernel meets.

use crate::world::{KernelId, World};
use capstan_model::peer::{ChannelId, Digest, Epoch, Incarnation, PeerId, Seq};
use capstan_wire::facts::{Facts, SessionFacts};
use capstan_wire::seam::{LinkEvent, LinkOrder, SendFault, Verdict};
use capstan_wire::window::digest_extend;
use serde_json::{Value, json};
use std::sync::Arc;

/// One peer as its kernel sees it. Its rows are public, so that a test can make it lie.
#[derive(Clone, Debug)]
pub struct Stranger {
    /// Its public name.
    pub peer: PeerId,
    /// Its present life.
    pub life: Incarnation,
    /// Whether it speaks the session generation.
    pub session: bool,
    /// The life of the kernel's that it has on record.
    pub believes: Option<Incarnation>,
    /// Its epoch.
    pub epoch: Epoch,
    /// The last number it assigned.
    pub sent: Seq,
    /// What the kernel has acknowledged of it.
    pub acked: Seq,
    /// The last number it received.
    pub recv: Seq,
    /// The digest of what it received.
    pub digest: Digest,
    /// Its channel.
    pub channel: ChannelId,
    /// Whether its links note another incarnation than before.
    pub note_changed: bool,
    kernel: KernelId,
    orders: Vec<LinkOrder>,
}

impl Stranger {
    /// A peer of the kernel, not yet connected.
    pub fn new(name: &str, session: bool, kernel: KernelId) -> Self {
        Stranger {
            peer: PeerId::new(format!("peer-{name}")),
            life: Incarnation::new(format!("{name}-1")),
            session,
            believes: None,
            epoch: Epoch(0),
            sent: Seq(0),
            acked: Seq(0),
            recv: Seq(0),
            digest: Digest::default(),
            channel: ChannelId(0),
            note_changed: false,
            kernel,
            orders: Vec::new(),
        }
    }

    /// Loses everything but its name; its next life is called `life`.
    pub fn wipe(&mut self, life: &str) {
        *self = Stranger {
            peer: self.peer.clone(),
            life: Incarnation::new(life),
            channel: self.channel,
            orders: std::mem::take(&mut self.orders),
            ..Stranger::new("", self.session, self.kernel)
        };
    }

    /// What it says in a handshake.
    pub fn facts(&self) -> Facts {
        let session = SessionFacts {
            believes: self.believes.clone(),
            epoch: self.epoch,
            base: self.epoch,
            una: self.acked.next(),
            sent: self.sent,
            recv: self.recv,
            digest: self.digest,
            left: None,
            classic_born: false,
            frame_bytes_max: 16 << 20,
            credit: 1_000,
            words: Vec::new(),
            listen: Vec::new(),
        };
        Facts { incarnation: self.life.clone(), session: self.session.then_some(session) }
    }

    /// Opens a channel and completes the handshake; returns the kernel's last word on it. `dialed`: by the kernel.
    ///
    /// # Panics
    /// If the kernel does not answer.
    #[track_caller]
    pub fn connect(&mut self, world: &mut World, channel: u64, dialed: bool) -> Verdict {
        let greeting = self.greet(world, channel, dialed);
        let mut verdict = self.judge(world);
        if verdict == Verdict::AwaitConfirm {
            self.tell(world, LinkEvent::Confirmed { channel: self.channel });
            verdict = self.verdict();
        }
        if verdict == Verdict::Register && self.session {
            self.believes = Some(greeting.incarnation.clone());
            let theirs = greeting.session.map_or(Epoch(0), |session| session.epoch);
            self.epoch = theirs.max(self.epoch).max(Epoch(1));
        }
        verdict
    }

    /// Opens a channel; returns what the kernel says of itself.
    ///
    /// # Panics
    /// If it says nothing.
    #[track_caller]
    pub fn greet(&mut self, world: &mut World, channel: u64, dialed: bool) -> Facts {
        self.channel = ChannelId(channel);
        let event = LinkEvent::FactsWanted { channel: self.channel, peer: self.peer.clone(), dialed };
        self.tell(world, event);
        let at = self.orders.iter().position(|order| matches!(order, LinkOrder::Greet { .. }));
        match at.map(|at| self.orders.remove(at)) {
            Some(LinkOrder::Greet { facts, .. }) => facts,
            _ => panic!("no greeting among {:?}\n{}", self.orders, world.trace(40)),
        }
    }

    /// Says what it is, and returns the kernel's first verdict.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn judge(&mut self, world: &mut World) -> Verdict {
        let theirs = self.facts();
        let (channel, note_changed) = (self.channel, self.note_changed);
        self.tell(world, LinkEvent::HandshakeRead { channel, theirs, note_changed });
        self.verdict()
    }

    #[track_caller]
    fn verdict(&mut self) -> Verdict {
        let at = self.orders.iter().position(|order| matches!(order, LinkOrder::Answer { .. }));
        match at.map(|at| self.orders.remove(at)) {
            Some(LinkOrder::Answer { verdict, .. }) => verdict,
            _ => panic!("no verdict among {:?}", self.orders),
        }
    }

    /// Tells the kernel a fact about its links.
    pub fn tell(&mut self, world: &mut World, event: LinkEvent) {
        world.tell(self.kernel, event);
        self.orders.extend(world.orders(self.kernel));
    }

    /// Its channel is gone.
    pub fn hang_up(&mut self, world: &mut World) {
        let event = LinkEvent::ChannelClosed { channel: self.channel, reason: "lost".into() };
        self.tell(world, event);
    }

    /// Sends a text as it is.
    pub fn say(&mut self, world: &mut World, text: &str) {
        let event = LinkEvent::FramesRead { channel: self.channel, frames: vec![text.into()] };
        self.tell(world, event);
    }

    /// Makes the next numbered frame; it acknowledges all that was received.
    pub fn next_frame(&mut self, method: &str, params: Value) -> String {
        self.sent = self.sent.next();
        self.frame(self.sent, method, params)
    }

    /// Makes a frame with that number.
    pub fn frame(&self, seq: Seq, method: &str, params: Value) -> String {
        if self.recv == Seq(0) {
            return json!({"seq": seq, "method": method, "params": params}).to_string();
        }
        json!({"seq": seq, "ack": self.recv, "method": method, "params": params}).to_string()
    }

    /// Sends the next numbered frame.
    pub fn send(&mut self, world: &mut World, method: &str, params: Value) {
        let text = self.next_frame(method, params);
        self.say(world, &text);
    }

    /// Sends a call; references are in the kernel's terms.
    pub fn call(&mut self, world: &mut World, target: &str, method: &str, result: Option<&str>) {
        let params = message(target, &format!("#[\"{method}\",[]]"), &[], result);
        self.send(world, "deliver", params);
    }

    /// Acknowledges all that was received.
    pub fn acknowledge(&mut self, world: &mut World) {
        let text = json!({"ack": self.recv}).to_string();
        self.say(world, &text);
    }

    /// Takes the orders since the last time.
    pub fn orders(&mut self, world: &mut World) -> Vec<LinkOrder> {
        self.orders.extend(world.orders(self.kernel));
        std::mem::take(&mut self.orders)
    }

    /// Lets every write succeed and returns the frames that were written on its channel, in order. Numbered ones are
    /// received, others only read.
    pub fn heard(&mut self, world: &mut World) -> Vec<Arc<str>> {
        let mut texts = Vec::new();
        loop {
            let orders = self.orders(world);
            let mut more = false;
            for order in orders {
                let LinkOrder::Send { channel, frames, awaited } = order else { continue };
                let last = frames.last().and_then(|frame| frame.seq);
                if channel == self.channel {
                    texts.extend(frames.into_iter().map(|frame| frame.text));
                }
                if awaited {
                    more = true;
                    self.tell(world, LinkEvent::Sent { channel, seq: last, outcome: Ok(()) });
                }
            }
            if !more {
                break;
            }
        }
        for text in &texts {
            self.read(text);
        }
        texts
    }

    /// Takes one text as received.
    pub fn read(&mut self, text: &str) {
        let frame: Value = serde_json::from_str(text).unwrap_or_default();
        if let Some(ack) = frame.get("ack").and_then(Value::as_u64) {
            self.acked = self.acked.max(Seq(ack));
        }
        if frame.get("seq").and_then(Value::as_u64) == Some(self.recv.next().0) {
            self.recv = self.recv.next();
            self.digest = digest_extend(self.digest, text);
        }
    }

    /// Lets an awaited write fail.
    pub fn fail_write(&mut self, world: &mut World, seq: Option<Seq>, fault: SendFault) {
        let event = LinkEvent::Sent { channel: self.channel, seq, outcome: Err(fault) };
        self.tell(world, event);
    }
}

/// The parameters of a `deliver` that is a message.
pub fn message(target: &str, body: &str, slots: &[&str], result: Option<&str>) -> Value {
    let methargs = json!({"body": body, "slots": slots});
    match result {
        Some(result) => json!(["message", target, {"methargs": methargs, "result": result}]),
        None => json!(["message", target, {"methargs": methargs}]),
    }
}

/// The parameters of a `deliver` that settles one promise.
pub fn notify(promise: &str, rejected: bool, body: &str, slots: &[&str]) -> Value {
    json!(["notify", [[promise, rejected, {"body": body, "slots": slots}]]])
}
