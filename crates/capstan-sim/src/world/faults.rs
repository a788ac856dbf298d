//! Deaths, starts, cuts.

use super::{Event, KernelId, Strike, World};
use crate::node::Process;
use capstan_kernel::input::Input;
use capstan_model::peer::Millis;
use capstan_store::schema::ChangeSet;
use capstan_wire::link::Links;
use capstan_wire::seam::LinkEvent;

/// What a restarted kernel finds on its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Everything that was durable.
    Keep,
    /// Nothing but its key: the same peer, a fresh incarnation.
    Wipe,
    /// What was there at [`World::snapshot`].
    RestoreSnapshot(usize),
}

impl World {
    /// Ends the process: nothing of it is told to anybody, except that its streams end.
    pub fn kill(&mut self, kernel: KernelId) {
        let node = self.node_mut(kernel);
        let (name, life) = (node.name.clone(), node.life);
        if node.process.take().is_none() {
            return;
        }
        self.trace.say(self.now, format_args!("{name} dies"));
        self.active = self.now;
        self.calls_died(kernel);
        for stream in self.net.of(kernel, None) {
            let ends = self.net.streams.get(&stream).map(|stream| stream.ends);
            for (side, end) in ends.into_iter().flatten().enumerate() {
                if end.kernel == kernel && end.life == life && end.open {
                    self.end(stream, side, "the peer died");
                    self.net.leave(stream, side);
                }
            }
        }
    }

    /// Starts a process on what is on the disk.
    pub fn start(&mut self, kernel: KernelId) {
        let now = self.now;
        let node = self.node_mut(kernel);
        if node.process.is_some() {
            return;
        }
        node.start(now);
        let (name, life) = (node.name.clone(), node.life);
        if let Some(Process { turn_due, .. }) = &mut node.process {
            *turn_due = true;
        }
        self.trace.say(now, format_args!("{name} starts"));
        self.active = self.now;
        self.schedule(now, Event::Turn(kernel, life));
    }

    /// Kills the kernel and starts it again on a disk that is as `how` says. Nobody else moves in between.
    pub fn restart(&mut self, kernel: KernelId, how: Restart) {
        self.kill(kernel);
        self.swap_disk(kernel, how);
        self.start(kernel);
    }

    /// Changes what a dead kernel will find.
    pub fn swap_disk(&mut self, kernel: KernelId, how: Restart) {
        let lineage = self.next_lineage();
        let node = self.node_mut(kernel);
        assert!(node.process.is_none(), "{} is alive", node.name);
        match how {
            Restart::Keep => {}
            Restart::Wipe => node.wipe(),
            Restart::RestoreSnapshot(number) => {
                node.lineage = lineage;
                let rows = node.snapshots.get(number).cloned();
                node.overwrite(&rows.unwrap_or_default());
            }
        }
    }

    /// Takes a backup of what is durable; returns its number.
    pub fn snapshot(&mut self, kernel: KernelId) -> usize {
        let node = self.node_mut(kernel);
        let rows = node.snapshot();
        node.snapshots.push(rows);
        node.snapshots.len() - 1
    }

    /// Everything that is durable, as rows.
    pub fn rows(&self, kernel: KernelId) -> ChangeSet {
        self.node(kernel).snapshot()
    }

    /// Writes rows to the disk of a dead kernel, as no sound kernel would.
    pub fn tamper(&mut self, kernel: KernelId, rows: &ChangeSet) {
        let node = self.node_mut(kernel);
        assert!(node.process.is_none(), "{} is alive", node.name);
        node.write(rows);
    }

    /// Whether the process runs.
    pub fn is_up(&self, kernel: KernelId) -> bool {
        self.node(kernel).process.is_some()
    }

    /// How many batches the kernel has made durable in all its lives.
    pub fn commits(&self, kernel: KernelId) -> u64 {
        self.node(kernel).commits
    }

    /// Lets the kernel die at the batch with that number, counted as by [`World::commits`].
    pub fn strike_at(&mut self, kernel: KernelId, commit: u64, strike: Strike) {
        self.node_mut(kernel).strike = Some((commit, strike));
    }

    /// Takes a strike back; says whether it was still to come.
    pub fn spare(&mut self, kernel: KernelId) -> bool {
        self.node_mut(kernel).strike.take().is_some()
    }

    /// Ends every stream between two kernels, loses what travels, and lets no dial through.
    pub fn cut(&mut self, a: KernelId, b: KernelId) {
        self.net.set_cut(a, b, true);
        self.drop_streams(a, b);
    }

    /// Lets dials through again.
    pub fn heal(&mut self, a: KernelId, b: KernelId) {
        self.net.set_cut(a, b, false);
    }

    /// Ends every stream between two kernels and loses what travels; a new dial works.
    pub fn drop_streams(&mut self, a: KernelId, b: KernelId) {
        let (from, to) = (self.node(a).name.clone(), self.node(b).name.clone());
        self.trace.say(self.now, format_args!("the streams between {from} and {to} break"));
        for stream in self.net.of(a, Some(b)) {
            for side in [0, 1] {
                self.net.lose(stream, side);
                self.end(stream, side, "connection lost");
            }
        }
    }

    /// Ends the links of a kernel that runs on, as when they are another process that dies: every stream ends, and new links
    /// know nothing.
    pub fn restart_links(&mut self, kernel: KernelId) {
        let node = self.node_mut(kernel);
        let (name, life) = (node.name.clone(), node.life);
        let (own, options) = (node.config.peer.clone(), node.options);
        let Some(process) = &mut node.process else { return };
        process.links = Links::new(own, options);
        self.trace.say(self.now, format_args!("the links of {name} die"));
        for stream in self.net.of(kernel, None) {
            let ends = self.net.streams.get(&stream).map(|stream| stream.ends);
            for (side, end) in ends.into_iter().flatten().enumerate() {
                if end.kernel == kernel && end.life == life && end.open {
                    self.end(stream, side, "the peer's links died");
                    self.net.leave(stream, side);
                    let reason = "the links died".into();
                    self.happened(kernel, LinkEvent::ChannelClosed { channel: end.channel, reason });
                }
            }
        }
        self.happened(kernel, LinkEvent::Restarted);
    }

    /// The next verdicts of a kernel do not reach its links, which then use no channel (03 D-20).
    pub fn lose_verdicts(&mut self, kernel: KernelId, count: u32) {
        self.node_mut(kernel).verdicts_lost = count;
    }

    fn happened(&mut self, kernel: KernelId, event: LinkEvent) {
        let fresh = self.node_mut(kernel).fresh();
        self.input(kernel, Input::Link { event, fresh });
    }

    /// Holds up what travels from `from` to `to` on the present streams. Later streams are not affected.
    pub fn freeze(&mut self, from: KernelId, to: KernelId) {
        self.net.freeze(from, to);
    }

    /// Lets everything that is held up arrive.
    pub fn thaw(&mut self) {
        let now = self.now.after(Millis(1));
        for (stream, from) in self.net.thaw() {
            self.schedule(now, Event::Flows(stream, from));
        }
    }
}
