//! What a handshake frame tells (03 G.3; the corrected rules of the handshake model).

use capstan_model::peer::{Digest, Epoch, Hint, Incarnation, Seq};
use serde::{Deserialize, Serialize};

/// Everything one side says in a handshake frame, as of the moment the frame was built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The life of the sender's durable state.
    pub incarnation: Incarnation,
    /// What only the session generation says; `None`: the sender is classic.
    pub session: Option<SessionFacts>,
}

/// The part of [`Facts`] that a kernel of the reference neither sends nor reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionFacts {
    /// The incarnation the sender has on record for the receiver; `None`: *nascent*, its entries have been
    /// offered to nobody.
    pub believes: Option<Incarnation>,
    /// The epoch of the sender's current session with the receiver; survives forgetting.
    pub epoch: Epoch,
    /// The oldest epoch in which an entry now in the sender's outbox was offered.
    pub base: Epoch,
    /// The sender's first unacknowledged number: 1 when nothing was ever acknowledged.
    pub una: Seq,
    /// The last number the sender assigned; 0: none.
    pub sent: Seq,
    /// The last contiguous number the sender has received and made durable; 0: none.
    pub recv: Seq,
    /// The digest of the frames `1..=recv` as received.
    pub digest: Digest,
    /// The last *confirmed* session with the receiver that the sender has left: whose life, which epoch.
    pub left: Option<Left>,
    /// The session was recorded or reset by a classic exchange: its epoch was agreed by nobody.
    pub classic_born: bool,
    /// The longest frame the sender accepts, bytes.
    pub frame_bytes_max: u64,
    /// How many frames the sender is ready to take beyond `recv`.
    pub credit: u64,
    /// Capabilities, by word.
    pub words: Vec<String>,
    /// Where the sender can be dialled.
    pub listen: Vec<Hint>,
}

/// A confirmed session that was left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// The peer's life at that time.
    pub life: Incarnation,
    /// The epoch left.
    pub epoch: Epoch,
}

impl SessionFacts {
    /// Whether both ends are known to have used the session: something was acknowledged or received.
    pub fn confirmed(&self) -> bool {
        self.una > Seq(1) || self.recv > Seq(0)
    }
}
