//! Frames on a stream: an unsigned-varint length in bytes, then that many bytes of UTF-8.

use std::sync::Arc;

/// Frames in one batch.
const BATCH_FRAMES_MAX: usize = 256;
/// Bytes after which a batch ends.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// A length of four groups of seven bits: 256 MiB, beyond every limit.
const PREFIX_BYTES_MAX: usize = 4;

/// Why a stream's frames cannot be read on. The framing is lost: the channel must be closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FramingError {
    #[error("length prefix is not minimal or too long")]
    Prefix,
    #[error("frame of {got} bytes, limit {limit}")]
    TooLong { got: usize, limit: usize },
    #[error("frame is not UTF-8")]
    Text,
}

/// Appends one frame.
pub(crate) fn push(out: &mut Vec<u8>, text: &str) {
    push_bytes(out, text.as_bytes());
}

/// Appends bytes with their length before them.
pub(crate) fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
}

/// Cuts bytes into frames. Holds at most one frame and one read's worth of bytes.
pub(crate) struct Cutter {
    bytes: Vec<u8>,
    limit: usize,
}

impl Cutter {
    pub(crate) fn new(limit: usize) -> Self {
        Cutter { bytes: Vec::new(), limit }
    }
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }
    /// Whether the bytes end between two frames.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
    /// The next complete frames, as many as fit a batch; empty: more bytes are needed.
    pub(crate) fn batch(&mut self) -> Result<Vec<Arc<str>>, FramingError> {
        let (mut texts, mut at) = (Vec::new(), 0);
        while texts.len() < BATCH_FRAMES_MAX && at < BATCH_BYTES_MAX {
            let rest = self.bytes.get(at..).unwrap_or_default();
            let Some((prefix, length)) = prefix(rest, self.limit)? else { break };
            let Some(frame) = rest.get(prefix..prefix + length) else { break };
            texts.push(std::str::from_utf8(frame).map_err(|_| FramingError::Text)?.into());
            at += prefix + length;
        }
        self.bytes.drain(..at);
        Ok(texts)
    }
}

/// The sizes of a length prefix and of its frame; `None`: the prefix is incomplete.
fn prefix(bytes: &[u8], limit: usize) -> Result<Option<(usize, usize)>, FramingError> {
    let mut length = 0;
    for (at, byte) in bytes.iter().take(PREFIX_BYTES_MAX).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            if at > 0 && *byte == 0 {
                return Err(FramingError::Prefix);
            }
            if length > limit {
                return Err(FramingError::TooLong { got: length, limit });
            }
            return Ok(Some((at + 1, length)));
        }
    }
    if bytes.len() >= PREFIX_BYTES_MAX { Err(FramingError::Prefix) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(bytes: &[u8]) -> Result<Vec<Arc<str>>, FramingError> {
        let mut cutter = Cutter::new(1_000);
        cutter.feed(bytes);
        cutter.batch()
    }

    #[test]
    fn r40_chunks_join_and_frames_stay_separate() {
        let long = "x".repeat(300);
        let mut bytes = Vec::new();
        ["", "one", &long, "zwölf"].iter().for_each(|text| push(&mut bytes, text));
        let (mut cutter, mut all) = (Cutter::new(1_000), Vec::new());
        for byte in bytes {
            cutter.feed(&[byte]);
            all.extend(cutter.batch().unwrap_or_default());
        }
        assert!(cutter.is_empty());
        assert_eq!(all, ["".into(), "one".into(), Arc::from(long), "zwölf".into()]);
    }

    #[test]
    fn r41_bad_prefixes_and_long_frames_are_refused() {
        assert_eq!(cut(&[0xe8, 0x07]), Ok(vec![]));
        assert_eq!(cut(&[0xe9, 0x07]), Err(FramingError::TooLong { got: 1_001, limit: 1_000 }));
        assert_eq!(cut(&[0x80, 0x00]), Err(FramingError::Prefix));
        assert_eq!(cut(&[0xff; 4]), Err(FramingError::Prefix));
        assert_eq!(cut(&[1, 0xff]), Err(FramingError::Text));
    }
}
