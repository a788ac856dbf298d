//! What else may happen to kernels and to what travels between them: late disks, clocks, copies, spoilt frames.

use super::{KernelId, World};
use crate::net::Spoil;
use crate::node::Node;
use capstan_kernel::input::Input;

/// How far a clock may be off, milliseconds.
const AHEAD_MAX: i64 = 1 << 40;

impl World {
    /// From now on batches take up to so long to become durable, milliseconds.
    pub(crate) fn slow_disk(&mut self, kernel: KernelId, millis: u64) {
        self.node_mut(kernel).slow = millis;
    }

    /// Sets the clock of a kernel on or back; `told`: its process is told that the machine slept.
    pub(crate) fn jump(&mut self, kernel: KernelId, millis: i64, told: bool) {
        let node = self.node_mut(kernel);
        node.ahead = node.ahead.saturating_add(millis).clamp(0, AHEAD_MAX);
        if told {
            self.input(kernel, Input::Woke);
        }
    }

    /// Starts another process with the same key on a copy of what is on the disk. It is never dialled.
    pub(crate) fn copy(&mut self, kernel: KernelId) -> KernelId {
        let original = self.node(kernel);
        let (rows, name) = (original.snapshot(), format!("{}'", original.name));
        let mut node = Node::new(&name, original.config.clone(), original.options);
        node.overwrite(&rows);
        node.names = self.nodes.iter().map(|node| node.names).sum();
        node.lineage = self.next_lineage();
        let copy = KernelId(self.nodes.len());
        self.nodes.push(node);
        self.start(copy);
        copy
    }

    /// Loses whatever travels to or from a kernel, and ends its streams.
    pub(crate) fn flush(&mut self, kernel: KernelId) {
        self.thaw();
        for stream in self.net.of(kernel, None) {
            for side in [0, 1] {
                self.net.lose(stream, side);
                self.end(stream, side, "connection lost");
            }
        }
    }

    pub(crate) fn next_lineage(&self) -> u64 {
        self.nodes.iter().map(|node| node.lineage).max().unwrap_or(0) + 1
    }

    /// Spoils frames on their way from one kernel to another; says whether there were any.
    pub(crate) fn spoil(&mut self, from: KernelId, to: KernelId, how: Spoil) -> bool {
        let now = self.now;
        let found = self.net.spoil(from, to, how);
        if found {
            self.trace.say(now, format_args!("a frame to {} is spoilt: {how:?}", self.nodes[to.0].name));
        }
        found
    }
}
