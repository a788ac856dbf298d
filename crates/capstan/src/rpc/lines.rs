//! Lines from a stream, each of bounded length.

use std::io;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// What reading the next line came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// A line, without its end. The last one may lack a line end.
    Text(Vec<u8>),
    /// A line longer than the limit; reading on is senseless.
    TooLong,
    /// The stream ended.
    End,
}

/// Reads lines. Dropping a pending [`Lines::next`] loses nothing.
pub(crate) struct Lines<R> {
    reader: BufReader<R>,
    partial: Vec<u8>,
    bytes_max: usize,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(crate) fn new(reader: R, bytes_max: usize) -> Self {
        Lines { reader: BufReader::new(reader), partial: Vec::new(), bytes_max }
    }

    pub(crate) async fn next(&mut self) -> io::Result<Line> {
        loop {
            let available = self.reader.fill_buf().await?;
            if available.is_empty() {
                let rest = std::mem::take(&mut self.partial);
                return Ok(if rest.is_empty() { Line::End } else { Line::Text(rest) });
            }
            let (taken, used, complete) = match available.iter().position(|byte| *byte == b'\n') {
                Some(end) => (available.get(..end).unwrap_or_default(), end + 1, true),
                None => (available, available.len(), false),
            };
            if self.partial.len() + taken.len() > self.bytes_max {
                return Ok(Line::TooLong);
            }
            self.partial.extend_from_slice(taken);
            self.reader.consume(used);
            if complete {
                return Ok(Line::Text(std::mem::take(&mut self.partial)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn n207_lines_are_cut_at_their_ends_and_at_the_limit() {
        let mut lines = Lines::new(&b"one\n\ntwo\r\nlast"[..], 5);
        for expected in [&b"one"[..], b"", b"two\r", b"last"] {
            assert_eq!(lines.next().await.unwrap_or(Line::End), Line::Text(expected.to_vec()));
        }
        assert_eq!(lines.next().await.unwrap_or(Line::TooLong), Line::End);
        let mut long = Lines::new(&b"123456\n"[..], 5);
        assert_eq!(long.next().await.unwrap_or(Line::End), Line::TooLong);
    }
}
