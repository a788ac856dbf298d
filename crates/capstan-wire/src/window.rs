//! Sequence arithmetic of one session and direction: arrivals, acknowledgements, the running digest (03 C-13, C-14, C-29).

use capstan_model::peer::{Digest, Seq};
use sha2::{Digest as _, Sha256};

/// How far we have received: everything up to `recv`, with nothing missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiveMark {
    /// The last number received; 0: none.
    pub recv: Seq,
    /// The digest of the frames `1..=recv`.
    pub digest: Digest,
}

/// What a frame's number says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The one that is due: act on it, and [`ReceiveMark::advance`] in the same transaction.
    Next,
    /// Already received: change nothing, acknowledge again.
    Duplicate,
    /// Something before it is missing: neither act nor advance (03 C-29).
    Gap {
        /// What is due.
        expected: Seq,
    },
}

impl ReceiveMark {
    /// Judges a number before anything is touched.
    pub fn judge(self, seq: Seq) -> Arrival {
        if seq <= self.recv {
            Arrival::Duplicate
        } else if seq == self.recv.next() {
            Arrival::Next
        } else {
            Arrival::Gap { expected: self.recv.next() }
        }
    }

    /// Returns the mark after the frame that was due, given its exact text.
    #[must_use]
    pub fn advance(self, text: &str) -> ReceiveMark {
        ReceiveMark { recv: self.recv.next(), digest: digest_extend(self.digest, text) }
    }
}

/// Extends a running digest by one frame: the first half of SHA-256 over the digest so far and the frame's text.
pub fn digest_extend(digest: Digest, text: &str) -> Digest {
    let hash = Sha256::new().chain_update(digest.0).chain_update(text.as_bytes()).finalize();
    let mut half = [0; 16];
    half.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
    Digest(half)
}

/// What a cumulative acknowledgement does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckJudgement {
    /// The frames `from..=to` are acknowledged now; the first unacknowledged number becomes `to + 1`.
    Moves {
        /// The first.
        from: Seq,
        /// The last.
        to: Seq,
    },
    /// Says nothing new.
    Old,
    /// Acknowledges what was never sent: confusion of sessions or a rollback of ours; report it (03 C-14).
    BeyondSent,
}

/// Judges an acknowledgement of `n`, where `una` is the first unacknowledged and `sent` the last assigned number.
pub fn acked(una: Seq, sent: Seq, n: Seq) -> AckJudgement {
    if n > sent {
        AckJudgement::BeyondSent
    } else if n < una {
        AckJudgement::Old
    } else {
        AckJudgement::Moves { from: una, to: n }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_strictly_in_order() {
        let mark = ReceiveMark { recv: Seq(3), ..ReceiveMark::default() };
        assert_eq!(mark.judge(Seq(3)), Arrival::Duplicate);
        assert_eq!(mark.judge(Seq(4)), Arrival::Next);
        for seq in [5, (1 << 53) - 1, u64::MAX] {
            assert_eq!(mark.judge(Seq(seq)), Arrival::Gap { expected: Seq(4) });
        }
        assert_eq!(ReceiveMark::default().judge(Seq(0)), Arrival::Duplicate);
    }

    #[test]
    fn digest_depends_on_every_frame_and_their_order() {
        let of =
            |frames: &[&str]| frames.iter().fold(ReceiveMark::default(), |mark, text| mark.advance(text));
        assert_eq!(of(&["a", "b"]).recv, Seq(2));
        assert_ne!(of(&["a", "b"]).digest, of(&["b", "a"]).digest);
        assert_ne!(of(&["ab"]).digest, of(&["a", "b"]).digest);
        assert_ne!(of(&[""]).digest, of(&[]).digest);
    }

    #[test]
    fn acknowledgements_are_cumulative() {
        assert_eq!(acked(Seq(3), Seq(5), Seq(2)), AckJudgement::Old);
        assert_eq!(acked(Seq(3), Seq(5), Seq(4)), AckJudgement::Moves { from: Seq(3), to: Seq(4) });
        assert_eq!(acked(Seq(3), Seq(5), Seq(6)), AckJudgement::BeyondSent);
        assert_eq!(acked(Seq(1), Seq(0), Seq(40)), AckJudgement::BeyondSent);
        assert_eq!(acked(Seq(6), Seq(5), Seq(5)), AckJudgement::Old);
    }
}
