//! The simulated network: streams of frames between process lives, with cuts and frozen pipes.

use crate::world::KernelId;
use capstan_model::peer::{ChannelId, Millis};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Names one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StreamId(pub(crate) u64);

/// One end of a stream: in which life of which kernel, under which number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) kernel: KernelId,
    pub(crate) life: u64,
    pub(crate) channel: ChannelId,
    /// Its kernel still uses it.
    pub(crate) open: bool,
    /// Its kernel has written a numbered frame.
    pub(crate) used: bool,
}

/// What travels through a pipe.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// The stream is there.
    Up { dialed: bool },
    /// Frames written together.
    Texts(Vec<Arc<str>>),
    /// The stream is gone.
    End(&'static str),
}

/// One direction of a stream.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    items: VecDeque<Item>,
    /// When the last item arrives: none overtakes another.
    last: Millis,
    frozen: bool,
    /// Arrivals that fell due while frozen.
    owed: usize,
}

/// A stream: `pipes[i]` is written by `ends[i]`.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) ends: [End; 2],
    pipes: [Pipe; 2],
}

/// Everything between the kernels.
#[derive(Debug, Default)]
pub(crate) struct Net {
    pub(crate) streams: BTreeMap<StreamId, Stream>,
    cut: BTreeSet<(KernelId, KernelId)>,
    next: u64,
}

/// What can happen to frames that were written together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Spoil {
    /// They come twice.
    Double,
    /// The last one is cut short.
    Truncate,
    /// The first one is lost.
    Lose,
    /// The last one overtakes the others.
    Swap,
}

impl Spoil {
    fn apply(self, texts: &mut Vec<Arc<str>>) {
        match self {
            Spoil::Double => texts.extend_from_within(..),
            Spoil::Truncate => {
                if let Some(last) = texts.last_mut() {
                    *last = last.chars().take(last.chars().count() / 2).collect::<String>().into();
                }
            }
            Spoil::Lose => drop(texts.remove(0)),
            Spoil::Swap => texts.rotate_right(1),
        }
    }
}

fn pair(a: KernelId, b: KernelId) -> (KernelId, KernelId) {
    if a <= b { (a, b) } else { (b, a) }
}

impl Net {
    pub(crate) fn reachable(&self, a: KernelId, b: KernelId) -> bool {
        !self.cut.contains(&pair(a, b))
    }

    pub(crate) fn set_cut(&mut self, a: KernelId, b: KernelId, cut: bool) {
        if cut {
            self.cut.insert(pair(a, b));
        } else {
            self.cut.remove(&pair(a, b));
        }
    }

    pub(crate) fn open(&mut self, dialer: End, answerer: End) -> StreamId {
        self.next += 1;
        let id = StreamId(self.next);
        let stream = Stream { ends: [dialer, answerer], pipes: Default::default() };
        self.streams.insert(id, stream);
        id
    }

    /// The stream and side that a kernel's channel is.
    pub(crate) fn side(&self, kernel: KernelId, life: u64, channel: ChannelId) -> Option<(StreamId, usize)> {
        let is = |end: &End| end.kernel == kernel && end.life == life && end.channel == channel;
        self.streams.iter().find_map(|(id, stream)| Some((*id, stream.ends.iter().position(is)?)))
    }

    /// All streams between two kernels, or of one with anybody.
    pub(crate) fn of(&self, a: KernelId, b: Option<KernelId>) -> Vec<StreamId> {
        let with = |stream: &Stream, kernel| stream.ends.iter().any(|end| end.kernel == kernel);
        let between = |stream: &&Stream| with(stream, a) && b.is_none_or(|b| with(stream, b));
        self.streams.iter().filter(|(_, stream)| between(stream)).map(|(id, _)| *id).collect()
    }

    /// Takes note that a side writes a numbered frame; says whether its process has a second stream to the same kernel
    /// that it wrote some to and still uses.
    pub(crate) fn use_for_frames(&mut self, id: StreamId, side: usize) -> bool {
        let end_of =
            |stream: &Stream, side: usize| Some((*stream.ends.get(side)?, *stream.ends.get(1 - side)?));
        let Some((writer, reader)) = self.streams.get(&id).and_then(|stream| end_of(stream, side)) else {
            return false;
        };
        let second = |stream: &Stream| {
            [0, 1].into_iter().filter_map(|side| end_of(stream, side)).any(|(end, far)| {
                let own = end.kernel == writer.kernel && end.life == writer.life;
                own && far.kernel == reader.kernel && end.open && end.used
            })
        };
        let found = self.streams.iter().any(|(other, stream)| *other != id && second(stream));
        if let Some(end) = self.streams.get_mut(&id).and_then(|stream| stream.ends.get_mut(side)) {
            end.used = true;
        }
        found
    }

    /// Puts an item into the pipe written by side `from`; returns when it arrives, at the earliest at `at`.
    pub(crate) fn push(&mut self, id: StreamId, from: usize, at: Millis, item: Item) -> Option<Millis> {
        let pipe = self.streams.get_mut(&id)?.pipes.get_mut(from)?;
        pipe.last = pipe.last.max(at);
        pipe.items.push_back(item);
        Some(pipe.last)
    }

    /// Takes the item that is due at the far end of the pipe written by `from`, and who gets it.
    pub(crate) fn arrive(&mut self, id: StreamId, from: usize) -> Option<(End, Item)> {
        let stream = self.streams.get_mut(&id)?;
        let pipe = stream.pipes.get_mut(from)?;
        if pipe.frozen {
            pipe.owed += 1;
            return None;
        }
        let item = pipe.items.pop_front()?;
        let reader = *stream.ends.get(1 - from)?;
        Some((reader, item))
    }

    /// Loses the frames in the pipe written by `from`. That the stream was there is not lost: a dial is answered.
    pub(crate) fn lose(&mut self, id: StreamId, from: usize) {
        if let Some(pipe) = self.streams.get_mut(&id).and_then(|stream| stream.pipes.get_mut(from)) {
            pipe.items.retain(|item| matches!(item, Item::Up { .. }));
        }
    }

    /// Says that a side uses the stream no more.
    pub(crate) fn leave(&mut self, id: StreamId, side: usize) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if let Some(end) = stream.ends.get_mut(side) {
            end.open = false;
        }
        if stream.ends.iter().all(|end| !end.open) && stream.pipes.iter().all(|pipe| pipe.items.is_empty()) {
            self.streams.remove(&id);
        }
    }

    /// Spoils the frames written together that have travelled longest from `from` to `to`; says whether there are any.
    pub(crate) fn spoil(&mut self, from: KernelId, to: KernelId, how: Spoil) -> bool {
        for stream in self.streams.values_mut() {
            let [dialer, answerer] = stream.ends;
            let [forth, back] = &mut stream.pipes;
            let pipe = match (dialer.kernel, answerer.kernel) {
                pair if pair == (from, to) => forth,
                pair if pair == (to, from) => back,
                (_, _) => continue,
            };
            let texts = pipe.items.iter_mut().find_map(|item| match item {
                Item::Texts(texts) if !texts.is_empty() => Some(texts),
                Item::Texts(_) | Item::Up { .. } | Item::End(_) => None,
            });
            if let Some(texts) = texts {
                how.apply(texts);
                return true;
            }
        }
        false
    }

    /// Stops the pipe from `from`'s kernel of every present stream; later streams are not affected.
    pub(crate) fn freeze(&mut self, from: KernelId, to: KernelId) {
        for stream in self.streams.values_mut() {
            let [dialer, answerer] = stream.ends;
            let [forth, back] = &mut stream.pipes;
            if dialer.kernel == from && answerer.kernel == to {
                forth.frozen = true;
            } else if answerer.kernel == from && dialer.kernel == to {
                back.frozen = true;
            }
        }
    }

    /// Lets frozen pipes run again; returns the arrivals that are overdue.
    pub(crate) fn thaw(&mut self) -> Vec<(StreamId, usize)> {
        let mut due = Vec::new();
        for (id, stream) in &mut self.streams {
            for (from, pipe) in stream.pipes.iter_mut().enumerate() {
                pipe.frozen = false;
                due.extend((0..std::mem::take(&mut pipe.owed)).map(|_| (*id, from)));
            }
        }
        due
    }
}
