//! What the fuzz targets of this crate do with their bytes: cut a stream into frames, negotiate a stream's protocol.

use crate::framing::{Cutter, FramingError, push};
use crate::reference::{CHANNEL, SERVED, answer, propose};
use futures::executor::block_on;
use futures::{AsyncRead, AsyncWrite};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

#[cfg(test)]
#[path = "../../../fuzz/src/mangle.rs"]
mod mangle;

/// Small, so that inputs of a few hundred bytes reach it.
const FRAME_BYTES_MAX: usize = 300;

/// Cuts what follows the first byte into frames, that many bytes at a time, and at once.
pub fn framing(data: &[u8]) {
    let Some((step, bytes)) = data.split_first() else { return };
    let (texts, end) = cut(bytes, usize::from(*step).max(1));
    // An error hides the frames of its own batch: they will be sent again.
    let at_once = cut(bytes, usize::MAX);
    assert!(texts.starts_with(&at_once.0) && end == at_once.1, "{texts:?} {end:?}, at once {at_once:?}");
    assert!(end.is_some() || texts == at_once.0);
    assert!(texts.iter().all(|text| text.len() <= FRAME_BYTES_MAX));
    let mut again = Vec::new();
    texts.iter().for_each(|text| push(&mut again, text));
    assert!(bytes.starts_with(&again), "frames are not what was read");
}

/// All frames up to an error, and the error.
fn cut(bytes: &[u8], step: usize) -> (Vec<Arc<str>>, Option<FramingError>) {
    let (mut cutter, mut all) = (Cutter::new(FRAME_BYTES_MAX), Vec::new());
    for chunk in bytes.chunks(step.min(bytes.len().max(1))) {
        cutter.feed(chunk);
        loop {
            match cutter.batch() {
                Ok(texts) if texts.is_empty() => break,
                Ok(texts) => all.extend(texts),
                Err(error) => return (all, Some(error)),
            }
        }
    }
    (all, None)
}

/// Answers a negotiation in which these bytes are what the other end says, and opens one.
pub fn negotiation(data: &[u8]) {
    let mut end = End { input: data, output: Vec::new() };
    if let Ok(name) = block_on(answer(&mut end)) {
        assert!(SERVED.contains(&name));
        // What was answered agrees with the same proposal made by us.
        let mut other = End { input: &end.output, output: Vec::new() };
        let agreed = block_on(propose(&mut other, name));
        assert!(agreed.is_ok() || end.output.windows(3).any(|bytes| bytes == b"na\n"), "{agreed:?}");
    }
    assert!(end.output.len() < 1_000, "a peer's proposals are answered without end");
    let mut end = End { input: data, output: Vec::new() };
    if block_on(propose(&mut end, CHANNEL)).is_ok() {
        let mut other = End { input: &end.output, output: Vec::new() };
        assert!(matches!(block_on(answer(&mut other)), Ok(CHANNEL)));
    }
}

/// A stream whose other end has said everything already.
struct End<'d> {
    input: &'d [u8],
    output: Vec<u8>,
}

impl AsyncRead for End<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.input).poll_read(cx, bytes)
    }
}

impl AsyncWrite for End<'_> {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.output.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_cut_into_frames_or_refused() {
        let long = "x".repeat(FRAME_BYTES_MAX);
        let mut seed = vec![3];
        ["", "{}", &long, "zwölf"].iter().for_each(|text| push(&mut seed, text));
        let seeds = [seed, vec![1, 0x80, 0x00], vec![7, 0xff, 0xff, 0xff, 0x7f], vec![255, 0xac, 0x02]];
        mangle::mangle(&seeds, 20_000, framing);
    }

    #[test]
    fn negotiations_end() {
        let spoken = |lines: &[&str]| {
            let mut bytes = Vec::new();
            lines.iter().for_each(|line| push(&mut bytes, &format!("{line}\n")));
            bytes
        };
        let header = "/multistream/1.0.0";
        let proposals =
            [header, "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q"];
        let seeds = [
            spoken(&[header, CHANNEL]),
            spoken(&[header, "/other/1", "/ipfs/ping/1.0.0"]),
            spoken(&[header, "na"]),
            spoken(&proposals),
        ];
        mangle::mangle(&seeds, 10_000, negotiation);
    }
}
