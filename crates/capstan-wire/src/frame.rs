//! Application frames: one JSON object each, numbered or an acknowledgement only (03 C.1, C.2).
//!
//! **Invariant:** references are flipped here and nowhere else: a [`Frame`] is always in our own c-list's terms,
//! whether it is going out or has come in.

mod decode;
mod encode;

pub use decode::decode;
pub use encode::{encode_ack, encode_numbered};

use capstan_model::capdata::{Message, Resolution};
use capstan_model::peer::Seq;
use capstan_model::refs::RRef;

/// What one kernel says to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Call an object or a promise.
    Message {
        /// Whom.
        target: RRef,
        /// What; `result` is absent if no answer is wanted.
        message: Message<RRef>,
    },
    /// These promises are settled.
    Notify(Vec<Resolution<RRef>>),
    /// The sender no longer reaches these objects of the receiver.
    DropExports(Vec<RRef>),
    /// The sender no longer even recognises these objects of the receiver.
    RetireExports(Vec<RRef>),
    /// These objects of the sender are gone.
    RetireImports(Vec<RRef>),
    /// Run your garbage collection toward me.
    BringOutYourDead,
    /// What object is behind this URL of yours?
    RedeemUrl {
        /// The URL.
        url: String,
        /// Names the answer.
        reply_key: String,
    },
    /// The answer to [`Frame::RedeemUrl`].
    RedeemUrlReply {
        /// Which question.
        reply_key: String,
        /// The object, or why there is none.
        outcome: Result<RRef, String>,
    },
}

/// An application frame as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// Its number; `None`: an acknowledgement only.
    pub seq: Option<Seq>,
    /// What it acknowledges.
    pub ack: Option<Seq>,
    /// What it says, in our terms; `None` exactly if there is no number. An error here is a poison frame (03 C-30):
    /// its number is consumed like any other's.
    pub body: Option<Result<Frame, FrameError>>,
}

/// The most that is accepted in one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    /// Its text, bytes.
    pub frame_bytes_max: usize,
    /// The slots of one value, and the references of one GC list.
    pub refs_max: usize,
    /// The settlements of one notify.
    pub resolutions_max: usize,
    /// A URL, a reply key or the text of a failed redemption, bytes.
    pub text_bytes_max: usize,
}

impl Default for FrameLimits {
    /// 16 MiB between session kernels (03 B-33a); counts as a vat may make them in one syscall (01 §4).
    fn default() -> Self {
        FrameLimits {
            frame_bytes_max: 16 << 20,
            refs_max: 10_000,
            resolutions_max: 10_000,
            text_bytes_max: 64 << 10,
        }
    }
}

/// Why a frame was not understood. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than agreed.
    #[error("frame of {got} bytes, limit {limit}")]
    TooLong {
        /// Its length.
        got: usize,
        /// What is allowed.
        limit: usize,
    },
    /// Not a JSON object.
    #[error("frame is not a JSON object")]
    NotAnObject,
    /// The number is no integer from 1.
    #[error("invalid message seq: {0}")]
    BadSeq(String),
    /// The acknowledgement is no integer from 1.
    #[error("invalid message ack: {0}")]
    BadAck(String),
    /// Neither a number nor an acknowledgement.
    #[error("frame has neither seq nor ack")]
    Empty,
    /// No such method.
    #[error("unknown remote message type {0}")]
    UnknownMethod(String),
    /// No such kind of delivery.
    #[error("unknown remote delivery method {0}")]
    UnknownDelivery(String),
    /// The result is there, but not as text.
    #[error("message result must be a string")]
    BadResult,
    /// A part is missing, superfluous or of the wrong type.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// A text that is no remote reference, or one of the wrong kind or sign for its place.
    #[error("{text:?} is not {expected}")]
    BadRef {
        /// The text, cut to a printable length.
        text: String,
        /// What the place takes.
        expected: &'static str,
    },
    /// More elements than allowed.
    #[error("{got} {what}, limit {limit}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there are.
        got: usize,
        /// How many are allowed.
        limit: usize,
    },
}
