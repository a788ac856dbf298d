//! The classic generation's verdict: a persisted comparison, OR-ed with the link's note (03 D.2, D.6).

use capstan_model::peer::Incarnation;

/// What the persisted incarnation says about the observed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelVerdict {
    /// Nothing on file: record the observed one (K1).
    FirstContact,
    /// The life we know: write nothing (K2).
    Same,
    /// Another life: reset toward it (K3), or record it with a warning where there is no remote (K4).
    Restarted,
}

impl KernelVerdict {
    /// The boolean that crosses a process boundary (03 S3): do not use this channel.
    pub fn is_restart(self) -> bool {
        self == KernelVerdict::Restarted
    }
}

/// Compares the incarnation on file for a peer with the one it just announced.
#[doc(alias = "handleIncarnationChange")]
pub fn restart_verdict(stored: Option<&Incarnation>, observed: &Incarnation) -> KernelVerdict {
    match stored {
        None => KernelVerdict::FirstContact,
        Some(stored) if stored == observed => KernelVerdict::Same,
        Some(_) => KernelVerdict::Restarted,
    }
}

/// Whether the channel is refused: the link's note changed, or the kernel says restarted. The authority is the kernel.
pub fn channel_verdict(note_change: bool, kernel_verdict: bool) -> bool {
    note_change || kernel_verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(text: &str) -> Incarnation {
        Incarnation::new(text)
    }

    #[test]
    fn r112_nothing_on_file_is_first_contact() {
        assert_eq!(restart_verdict(None, &life("A")), KernelVerdict::FirstContact);
        assert!(!KernelVerdict::FirstContact.is_restart());
    }

    #[test]
    fn r113_same_life_is_no_restart() {
        assert_eq!(restart_verdict(Some(&life("A")), &life("A")), KernelVerdict::Same);
        assert!(!KernelVerdict::Same.is_restart());
    }

    #[test]
    fn r114_r115_another_life_is_a_restart_whoever_holds_a_remote() {
        assert_eq!(restart_verdict(Some(&life("A")), &life("B")), KernelVerdict::Restarted);
        assert!(KernelVerdict::Restarted.is_restart());
    }

    #[test]
    fn r134_nine_rows() {
        let observed = life("B");
        let note_change = |note: Option<&str>| note.is_some_and(|note| life(note) != observed);
        let rows = [
            (None, None, false, false),
            (None, Some("B"), false, false),
            (None, Some("A"), false, true),
            (Some("B"), None, false, false),
            (Some("B"), Some("B"), false, false),
            (Some("B"), Some("A"), false, true),
            (Some("A"), None, true, true),
            (Some("A"), Some("B"), true, true),
            (Some("A"), Some("A"), true, true),
        ];
        for (stored, note, kernel, changed) in rows {
            let verdict = restart_verdict(stored.map(life).as_ref(), &observed).is_restart();
            assert_eq!(verdict, kernel, "{stored:?} {note:?}");
            assert_eq!(channel_verdict(note_change(note), verdict), changed, "{stored:?} {note:?}");
        }
    }
}
