//! Two kernels, the channels between them, and what must hold of every state.

use super::side::{At, Event, Kernels, Left, MESSAGES, Moment, Order, Parcel, Written, life_number};

/// Channels at one time.
const CHANNELS: usize = 2;
/// Parcels on their way on one channel in one direction.
const QUEUE: usize = 10;

/// What a search may do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Messages of each side.
    pub(super) messages: u8,
    /// Crashes and the like, together.
    pub(super) faults: u8,
    /// Channels lost at one end, together.
    pub(super) losses: u8,
    /// Dials, together.
    pub(super) dials: u8,
    /// Kinds of faults.
    pub(super) keep: bool,
    pub(super) wipe: bool,
    pub(super) restore: bool,
    pub(super) forget: bool,
    /// The second side speaks classic at first, and changes over at each crash.
    pub(super) mixed: bool,
}

/// How far one end of a channel is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum End {
    /// Closed, or not yet there.
    #[default]
    Gone,
    /// The peer's handshake is on its way.
    Unread,
    /// We have answered it; the verdict is to come.
    Greeted,
    /// We dialled; the peer's answer is to be read.
    AwaitAck,
    AwaitConfirm,
    Bound,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Wire {
    dialer: u8,
    end: [End; 2],
    /// Spoke classic in the handshake.
    classic: [bool; 2],
    /// The link's note held another life when the handshake was read.
    note_changed: [bool; 2],
    /// The side's life when it spoke.
    life: [u8; 2],
    /// The handshake of the one who dialled, once read.
    hello: Parcel,
    /// By who wrote it.
    queue: [[Parcel; QUEUE]; 2],
}

/// What is known of a side's rows beyond the rows: goes back with them, ends with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Ghost {
    /// The messages processed in this session, in order (see [`push`]).
    processed: u16,
    /// The messages numbered in this session, in order.
    numbered: u16,
    /// All messages processed ever, as a set.
    done: u8,
    /// Both lives when this session began.
    lives: [u8; 2],
}

/// A state of the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct State {
    moment: [Moment; 2],
    ghost: [Ghost; 2],
    backup: [Option<(Moment, Ghost)>; 2],
    restored: [bool; 2],
    /// Counts what ends a life: wipes, restored backups, forgetting, rebirths.
    life: [u8; 2],
    /// Names of lives used.
    names: [u8; 2],
    said: [u8; 2],
    /// For each message, what its side had numbered in its session up to it.
    history: [[u16; MESSAGES as usize]; 2],
    /// Messages of each side processed by anybody ever.
    ever: [u8; 2],
    /// Messages of the other side processed by lives that were wiped since.
    done_before: [u8; 2],
    /// The link's note of the peer's last life; 0: none.
    note: [u8; 2],
    classic: [bool; 2],
    wires: [Wire; CHANNELS],
    faults: u8,
    losses: u8,
    dials: u8,
}

/// One thing that can happen. Channels and sides by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    Say(At),
    Dial(At, usize),
    /// The dialled side reads the handshake and answers.
    Greet(usize),
    /// The handshake of a channel that its dialler has left is lost.
    LoseHello(usize),
    /// The dialled side concludes.
    Conclude(usize),
    Read(usize, At),
    SeeClosed(usize, At),
    Lose(usize, At),
    Crash(At),
    /// A crash, and the next process speaks the other generation.
    CrashAndTurn(At),
    Wipe(At),
    BackUp(At),
    Restore(At),
    Forget(At),
}

fn name(at: At) -> &'static str {
    ["Ann", "Bob"][at]
}

/// Adds a message to a sequence of messages.
fn push(sequence: u16, message: u8) -> u16 {
    sequence * (u16::from(MESSAGES) + 1) + u16::from(message) + 1
}

fn enqueue(queue: &mut [Parcel; QUEUE], parcel: Parcel) {
    let free = queue.iter().position(|parcel| *parcel == 0).expect("a channel with room");
    queue[free] = parcel;
}

fn dequeue(queue: &mut [Parcel; QUEUE]) -> Parcel {
    queue.rotate_left(1);
    std::mem::take(&mut queue[QUEUE - 1])
}

impl Wire {
    fn is_free(&self) -> bool {
        self.end == [End::Gone, End::Gone]
    }

    fn is_classic(&self) -> bool {
        self.classic[0] || self.classic[1]
    }

    fn close(&mut self, at: At) {
        self.end[at] = End::Gone;
        self.queue[1 - at] = [0; QUEUE];
        if self.is_free() {
            *self = Wire::default();
        }
    }

    /// Whether the kernel at this end knows of the channel.
    fn is_known(&self, at: At) -> bool {
        !matches!(self.end[at], End::Gone | End::Unread)
    }
}

pub(super) type Broken = String;

/// The rules of the pair, with the kernels in it.
pub(super) struct Pair {
    pub(super) kernels: Kernels,
    pub(super) bounds: Bounds,
}

impl Pair {
    pub(super) fn new(bounds: Bounds) -> Self {
        Pair { kernels: Kernels::default(), bounds }
    }

    /// Two kernels that have never met.
    pub(super) fn strangers(&mut self) -> State {
        let classic = [false, self.bounds.mixed];
        let moment = [self.kernels.blank(0, 1, classic[0]), self.kernels.blank(1, 1, classic[1])];
        State {
            moment,
            ghost: [Ghost::default(); 2],
            backup: [None; 2],
            restored: [false; 2],
            life: [0; 2],
            names: [1; 2],
            said: [0; 2],
            history: [[0; MESSAGES as usize]; 2],
            ever: [0; 2],
            done_before: [0; 2],
            note: [0; 2],
            classic,
            wires: [Wire::default(); CHANNELS],
            faults: 0,
            losses: 0,
            dials: 0,
        }
    }

    /// Two kernels that have agreed on a session, with nothing between them any more.
    pub(super) fn acquainted(&mut self) -> State {
        let mut state = self.strangers();
        for next in [Move::Dial(0, 0), Move::Greet(0), Move::Read(0, 0), Move::Conclude(0), Move::Read(0, 1)]
        {
            state = self.take(&state, next).unwrap();
        }
        for next in [Move::Lose(0, 0), Move::SeeClosed(0, 1)] {
            state = self.take(&state, next).unwrap();
        }
        assert!(self.kernels.view(state.moment[1]).believes && state.wires[0].is_free(), "{state:?}");
        (state.dials, state.losses) = (0, 0);
        state
    }

    /// All that can happen. Without faults: only what brings the two together, and always something unless they are.
    pub(super) fn moves(&self, state: &State, faults: bool) -> Vec<Move> {
        let mut moves = Vec::new();
        let bounds = &self.bounds;
        for at in 0..2 {
            if faults && state.said[at] < bounds.messages {
                moves.push(Move::Say(at));
            }
            let idle = |wire: &Wire| wire.end[at] != End::Bound && wire.end[at] != End::AwaitAck;
            let may_dial = if faults { state.dials < bounds.dials } else { state.wires.iter().all(idle) };
            let free = state.wires.iter().position(Wire::is_free);
            moves.extend(free.filter(|_| may_dial).map(|channel| Move::Dial(at, channel)));
        }
        for (channel, wire) in state.wires.iter().enumerate().filter(|(_, wire)| !wire.is_free()) {
            let dialer = usize::from(wire.dialer);
            let dialled = 1 - dialer;
            match wire.end[dialled] {
                End::Unread => {
                    moves.push(Move::Greet(channel));
                    if wire.end[dialer] == End::Gone {
                        moves.push(Move::LoseHello(channel));
                    }
                }
                End::Greeted => moves.push(Move::Conclude(channel)),
                End::Gone | End::AwaitAck | End::AwaitConfirm | End::Bound => {}
            }
            for at in 0..2 {
                let reads = matches!(wire.end[at], End::AwaitAck | End::AwaitConfirm | End::Bound);
                if reads && wire.queue[1 - at][0] != 0 {
                    moves.push(Move::Read(channel, at));
                }
                if !wire.is_known(at) {
                    continue;
                }
                if wire.end[1 - at] == End::Gone {
                    moves.push(Move::SeeClosed(channel, at));
                } else if faults && state.losses < bounds.losses {
                    moves.push(Move::Lose(channel, at));
                }
            }
        }
        if faults && state.faults < bounds.faults {
            for at in 0..2 {
                self.faults(state, at, &mut moves);
            }
        }
        moves
    }

    fn faults(&self, state: &State, at: At, moves: &mut Vec<Move>) {
        let bounds = &self.bounds;
        if bounds.keep && (state.note[at] != 0 || state.wires.iter().any(|wire| wire.is_known(at))) {
            moves.push(Move::Crash(at));
        }
        if bounds.mixed && at == 1 {
            moves.push(Move::CrashAndTurn(at));
        }
        if bounds.wipe {
            moves.push(Move::Wipe(at));
        }
        if bounds.restore && !state.restored[at] {
            match state.backup[at] {
                None => moves.push(Move::BackUp(at)),
                Some((moment, _)) if moment != state.moment[at] => moves.push(Move::Restore(at)),
                Some(_) => {}
            }
        }
        if bounds.forget && self.kernels.view(state.moment[at]).forgettable {
            moves.push(Move::Forget(at));
        }
    }

    /// Lets something happen, and checks what can be seen of it and of the state after it.
    pub(super) fn take(&mut self, state: &State, next: Move) -> Result<State, Broken> {
        let mut state = *state;
        match next {
            Move::Say(at) => self.say(&mut state, at)?,
            Move::Dial(at, channel) => {
                state.dials = state.dials.saturating_add(1);
                let wire = &mut state.wires[channel];
                wire.dialer = u8::try_from(at).unwrap();
                (wire.end[at], wire.end[1 - at]) = (End::AwaitAck, End::Unread);
                self.greet(&mut state, channel, at)?;
            }
            Move::Greet(channel) => {
                let wire = &mut state.wires[channel];
                let dialer = usize::from(wire.dialer);
                wire.hello = dequeue(&mut wire.queue[dialer]);
                wire.end[1 - dialer] = End::Greeted;
                let hello = wire.hello;
                self.note(&mut state, channel, 1 - dialer, hello);
                self.greet(&mut state, channel, 1 - dialer)?;
            }
            Move::LoseHello(channel) => state.wires[channel] = Wire::default(),
            Move::Conclude(channel) => {
                let wire = &state.wires[channel];
                let (at, hello) = (1 - usize::from(wire.dialer), wire.hello);
                self.hear(&mut state, channel, at, hello)?;
            }
            Move::Read(channel, at) => self.read(&mut state, channel, at)?,
            Move::SeeClosed(channel, at) => self.lose(&mut state, channel, at)?,
            Move::Lose(channel, at) => {
                state.losses += 1;
                self.lose(&mut state, channel, at)?;
            }
            Move::Crash(at) => {
                state.faults += 1;
                self.crash(&mut state, at)?;
            }
            Move::CrashAndTurn(at) => {
                state.faults += 1;
                state.classic[at] = !state.classic[at];
                self.crash(&mut state, at)?;
            }
            Move::Wipe(at) => {
                state.faults += 1;
                self.crash(&mut state, at)?;
                self.wipe(&mut state, at);
            }
            Move::BackUp(at) => {
                let moment = self.kernels.step(state.moment[at], Event::Begin(state.classic[at])).after;
                state.backup[at] = Some((moment, state.ghost[at]));
            }
            Move::Restore(at) => {
                state.faults += 1;
                self.crash(&mut state, at)?;
                let (moment, ghost) = state.backup[at].take().expect("a backup");
                (state.moment[at], state.ghost[at]) = (moment, ghost);
                state.restored[at] = true;
                state.life[at] += 1;
            }
            Move::Forget(at) => {
                state.faults += 1;
                state.life[at] += 1;
                self.happen(&mut state, at, Event::Forget, 0)?;
                state.ghost[at] = Ghost { done: state.ghost[at].done, lives: state.life, ..Ghost::default() };
            }
        }
        self.check(&state)?;
        Ok(state)
    }

    fn say(&mut self, state: &mut State, at: At) -> Result<(), Broken> {
        let message = state.said[at];
        state.said[at] += 1;
        state.ghost[at].numbered = push(state.ghost[at].numbered, message);
        state.history[at][usize::from(message)] = state.ghost[at].numbered;
        self.happen(state, at, Event::Say(message), 0)
    }

    fn greet(&mut self, state: &mut State, channel: usize, at: At) -> Result<(), Broken> {
        let wire = &mut state.wires[channel];
        wire.classic[at] = state.classic[at];
        wire.life[at] = state.life[at];
        let dialed = usize::from(wire.dialer) == at;
        self.happen(state, at, Event::FactsWanted(number(channel), dialed), channel)
    }

    /// The link compares with its note.
    fn note(&self, state: &mut State, channel: usize, at: At, handshake: Parcel) {
        let Written::Handshake(facts) = self.kernels.written(handshake) else { panic!("no handshake") };
        let life = life_number(&facts.incarnation);
        state.wires[channel].note_changed[at] = state.note[at] != 0 && state.note[at] != life;
        state.note[at] = life;
    }

    fn hear(&mut self, state: &mut State, channel: usize, at: At, parcel: Parcel) -> Result<(), Broken> {
        let next = state.names[at] + 1;
        self.happen(state, at, Event::HandshakeRead(number(channel), parcel, next), channel)
    }

    fn read(&mut self, state: &mut State, channel: usize, at: At) -> Result<(), Broken> {
        let wire = &mut state.wires[channel];
        let parcel = dequeue(&mut wire.queue[1 - at]);
        let end = wire.end[at];
        match (self.kernels.written(parcel).clone(), end) {
            (Written::Handshake(_), End::AwaitAck) => {
                self.note(state, channel, at, parcel);
                self.hear(state, channel, at, parcel)
            }
            (Written::Confirm, End::AwaitConfirm) => {
                let next = state.names[at] + 1;
                self.happen(state, at, Event::Confirmed(number(channel), next), channel)
            }
            (Written::Confirm, End::Bound) => Ok(()),
            (Written::Frame { message, .. }, End::Bound) => {
                let received = self.receive(state, channel, at, parcel)?;
                match message.filter(|_| received) {
                    Some(message) => process(state, at, message),
                    None => Ok(()),
                }
            }
            (written, end) => Err(format!("{} reads {written:?} while {end:?}", name(at))),
        }
    }

    fn receive(&mut self, state: &mut State, channel: usize, at: At, parcel: Parcel) -> Result<bool, Broken> {
        let event = Event::FrameRead(number(channel), parcel);
        let received = self.kernels.step(state.moment[at], event).received;
        self.happen(state, at, event, channel)?;
        Ok(received)
    }

    fn lose(&mut self, state: &mut State, channel: usize, at: At) -> Result<(), Broken> {
        state.wires[channel].close(at);
        self.happen(state, at, Event::Closed(number(channel)), channel)
    }

    fn crash(&mut self, state: &mut State, at: At) -> Result<(), Broken> {
        for wire in state.wires.iter_mut().filter(|wire| wire.is_known(at)) {
            wire.close(at);
        }
        state.note[at] = 0;
        self.happen(state, at, Event::Begin(state.classic[at]), 0)
    }

    fn wipe(&mut self, state: &mut State, at: At) {
        state.life[at] += 1;
        state.names[at] += 1;
        state.done_before[at] |= state.ghost[at].done;
        state.ghost[at] = Ghost { lives: state.life, ..Ghost::default() };
        (state.backup[at], state.restored[at]) = (None, false);
        state.moment[at] = self.kernels.blank(at, state.names[at], state.classic[at]);
    }

    /// One step of one kernel, its consequences, and what may be said against it. `channel`: where it came from.
    fn happen(&mut self, state: &mut State, at: At, event: Event, channel: usize) -> Result<(), Broken> {
        let outcome = self.kernels.step(state.moment[at], event).clone();
        state.moment[at] = outcome.after;
        if let Some(trouble) = outcome.trouble.filter(|_| !state.restored[0] && !state.restored[1]) {
            return Err(format!("{}: {trouble}", name(at)));
        }
        for (message, how) in &outcome.left {
            if *how == Left::Acknowledged && state.ever[at] >> message & 1 == 0 {
                return Err(format!("silent loss: {} lets go of message {message} unprocessed", name(at)));
            }
        }
        let by_handshake = matches!(event, Event::HandshakeRead(..) | Event::Confirmed(..));
        if outcome.reset && !outcome.reborn && by_handshake && state.ghost[at].lives == state.life {
            return Err(format!("false restart: {} ends the session, and no life has ended", name(at)));
        }
        if outcome.reset {
            (state.ghost[at].processed, state.ghost[at].numbered) = (0, 0);
        }
        if outcome.reborn {
            if !state.restored[at] {
                return Err(format!("false regression: {} was never restored", name(at)));
            }
            state.life[at] += 1;
            state.names[at] += 1;
            state.ghost[at].lives = state.life;
        } else if outcome.renamed {
            let mut lives = state.life;
            lives[1 - at] = state.wires[channel].life[1 - at];
            state.ghost[at].lives = lives;
        }
        for order in outcome.orders {
            self.obey(state, at, order)?;
        }
        Ok(())
    }

    fn obey(&mut self, state: &mut State, at: At, order: Order) -> Result<(), Broken> {
        match order {
            Order::Greet(channel, parcel) => {
                let wire = &mut state.wires[usize::from(channel)];
                if wire.end[1 - at] != End::Gone {
                    enqueue(&mut wire.queue[at], parcel);
                }
            }
            Order::Register(channel) => return self.register(state, usize::from(channel), at),
            Order::AwaitConfirm(channel) => {
                state.wires[usize::from(channel)].end[at] = End::AwaitConfirm;
            }
            Order::Close(channel) => state.wires[usize::from(channel)].close(at),
            Order::Write(channel, parcels, awaited) => {
                let wire = &mut state.wires[usize::from(channel)];
                if wire.end[at] != End::Bound {
                    return Ok(());
                }
                if wire.end[1 - at] != End::Gone {
                    parcels.iter().for_each(|parcel| enqueue(&mut wire.queue[at], *parcel));
                }
                if let Some(seq) = awaited {
                    return self.happen(state, at, Event::Sent(channel, seq), usize::from(channel));
                }
            }
            Order::ForgetPeer => {
                for wire in state.wires.iter_mut().filter(|wire| wire.is_known(at)) {
                    wire.close(at);
                }
                state.note[at] = 0;
            }
            Order::ResetNote => state.note[at] = 0,
        }
        Ok(())
    }

    /// What the link does with a verdict that says yes.
    fn register(&mut self, state: &mut State, channel: usize, at: At) -> Result<(), Broken> {
        let wire = &mut state.wires[channel];
        if wire.is_classic() && wire.note_changed[at] {
            return self.lose(state, channel, at);
        }
        wire.end[at] = End::Bound;
        if !wire.is_classic() && usize::from(wire.dialer) == at && wire.end[1 - at] != End::Gone {
            let confirm = self.kernels.parcel(Written::Confirm);
            enqueue(&mut wire.queue[at], confirm);
        }
        Ok(())
    }

    fn check(&self, state: &State) -> Result<(), Broken> {
        for at in 0..2 {
            let view = self.kernels.view(state.moment[at]);
            let in_use = || view.bound.iter().flatten();
            if in_use().count() > 1 {
                return Err(format!("two channels in use at {}", name(at)));
            }
            if let Some(other) = in_use().find(|bound| view.name != Some(**bound)) {
                return Err(format!("{} uses a channel of {other:?} in {:?}", name(at), view.name));
            }
            for (channel, wire) in state.wires.iter().enumerate() {
                if (wire.end[at] == End::Bound) != view.bound[channel].is_some() {
                    return Err(format!("{} and its link differ about channel {channel}", name(at)));
                }
            }
        }
        for (channel, wire) in state.wires.iter().enumerate() {
            let name_at = |at: At| self.kernels.view(state.moment[at]).bound[channel];
            if let (Some((ann, bob, epoch)), Some((bob_too, ann_too, epoch_too))) = (name_at(0), name_at(1))
                && !wire.is_classic()
                && (ann, bob, epoch) != (ann_too, bob_too, epoch_too)
            {
                return Err(format!("channel {channel} belongs to two sessions"));
            }
        }
        if self.is_settled(state) {
            for at in 0..2 {
                if state.ghost[1 - at].processed != state.ghost[at].numbered {
                    return Err(format!("at rest, and {} has not processed what was sent", name(1 - at)));
                }
            }
        }
        Ok(())
    }

    /// Both use the same channel, and nothing waits or is on its way.
    pub(super) fn is_settled(&self, state: &State) -> bool {
        let in_use = |wire: &Wire| wire.end == [End::Bound, End::Bound] && wire.queue == [[0; QUEUE]; 2];
        let drained = (0..2).all(|at| self.kernels.view(state.moment[at]).drained);
        drained && state.wires.iter().any(in_use)
    }
}

/// A message of the other side was acted on: in order, in its own session, and never before.
fn process(state: &mut State, at: At, message: u8) -> Result<(), Broken> {
    let from = 1 - at;
    let (me, bit) = (name(at), 1 << message);
    let ghost = &mut state.ghost[at];
    let processed = push(ghost.processed, message);
    if processed != state.history[from][usize::from(message)] {
        return Err(format!("out of order: {me} processes message {message} after another history"));
    }
    if ghost.done & bit != 0 || (state.done_before[at] & bit != 0 && !state.restored[from]) {
        return Err(format!("twice: {me} processes message {message} again"));
    }
    ghost.processed = processed;
    ghost.done |= bit;
    state.ever[from] |= bit;
    Ok(())
}

fn number(channel: usize) -> u8 {
    u8::try_from(channel).unwrap()
}
