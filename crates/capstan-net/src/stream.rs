//! The two tasks of a channel: one reads, one writes.

use crate::framing::{Cutter, push};
use capstan_model::peer::ChannelId;
use capstan_wire::link::{LinkFact, WriteToken};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, io::ReadHalf, io::WriteHalf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

/// Batches of frames a channel's reader may have under way that nobody has consumed yet.
pub const BATCHES_AHEAD: usize = 8;
/// Bytes asked of the stream at once.
const READ_BYTES: usize = 64 * 1024;
/// Bytes after which a buffer is written; more gains nothing.
const WRITE_BYTES: usize = 256 * 1024;
/// Queued writes joined into one buffer.
const WRITES_JOINED: usize = 64;
/// A stream that was told to end does so within this.
const CLOSE_MAX: Duration = Duration::from_secs(10);

/// One order to the writer.
pub(crate) struct Writing {
    pub(crate) texts: Vec<Arc<str>>,
    pub(crate) token: Option<WriteToken>,
}

/// The driver's end of a channel.
pub(crate) struct OpenChannel {
    writes: mpsc::UnboundedSender<Writing>,
    credit: Arc<Semaphore>,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
}

impl OpenChannel {
    /// Starts both tasks. A peer that takes nothing for `write_timeout` is lost.
    pub(crate) fn start(
        channel: ChannelId,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        frame_bytes_max: usize,
        write_timeout: Duration,
        facts: mpsc::UnboundedSender<LinkFact>,
    ) -> Self {
        let (from, to) = stream.split();
        let credit = Arc::new(Semaphore::new(BATCHES_AHEAD));
        let (writes, queue) = mpsc::unbounded_channel();
        let (down, budget) = (facts.clone(), credit.clone());
        let reader = tokio::spawn(async move {
            let reason = read(channel, from, Cutter::new(frame_bytes_max), &down, &budget).await;
            // A driver that is gone has nobody left to tell.
            let _ = down.send(LinkFact::ChannelDown { channel, reason });
        });
        let writer = tokio::spawn(async move {
            if let Err(reason) = write(channel, to, queue, write_timeout, &facts).await {
                let _ = facts.send(LinkFact::ChannelDown { channel, reason });
            }
        });
        OpenChannel { writes, credit, reader, writer }
    }

    pub(crate) fn write(&self, writing: Writing) {
        // A writer that has ended has reported its channel down.
        let _ = self.writes.send(writing);
    }

    /// Lets the reader go on by one batch.
    pub(crate) fn release(&self) {
        if self.credit.available_permits() < BATCHES_AHEAD {
            self.credit.add_permits(1);
        }
    }

    /// Stops reading; what is queued is written first if `graceful`. Returns the writer that is to end.
    pub(crate) fn close(self, graceful: bool) -> JoinHandle<()> {
        self.reader.abort();
        if !graceful {
            self.writer.abort();
        }
        self.writer
    }
}

async fn read(
    channel: ChannelId,
    mut from: ReadHalf<impl AsyncRead>,
    mut cutter: Cutter,
    facts: &mpsc::UnboundedSender<LinkFact>,
    credit: &Semaphore,
) -> String {
    let mut chunk = vec![0; READ_BYTES];
    loop {
        loop {
            let texts = match cutter.batch() {
                Ok(texts) if texts.is_empty() => break,
                Ok(texts) => texts,
                Err(error) => return error.to_string(),
            };
            match credit.acquire().await {
                Ok(permit) => permit.forget(),
                Err(_) => return "closed".to_owned(),
            }
            if facts.send(LinkFact::TextsRead { channel, texts }).is_err() {
                return "stopped".to_owned();
            }
        }
        match from.read(&mut chunk).await {
            Ok(0) if cutter.is_empty() => return "end of stream".to_owned(),
            Ok(0) => return "end of stream within a frame".to_owned(),
            Ok(length) => cutter.feed(chunk.get(..length).unwrap_or_default()),
            Err(error) => return error.to_string(),
        }
    }
}

async fn write(
    channel: ChannelId,
    mut to: WriteHalf<impl AsyncWrite + Unpin>,
    mut queue: mpsc::UnboundedReceiver<Writing>,
    timeout: Duration,
    facts: &mpsc::UnboundedSender<LinkFact>,
) -> Result<(), String> {
    let mut writings = Vec::new();
    let mut buffer = Vec::new();
    while queue.recv_many(&mut writings, WRITES_JOINED).await > 0 {
        let mut tokens = Vec::new();
        for writing in writings.drain(..) {
            for text in &writing.texts {
                push(&mut buffer, text);
                if buffer.len() >= WRITE_BYTES {
                    flush(&mut to, &mut buffer, timeout).await?;
                }
            }
            tokens.extend(writing.token);
        }
        flush(&mut to, &mut buffer, timeout).await?;
        for token in tokens {
            let _ = facts.send(LinkFact::Written { channel, token, outcome: Ok(()) });
        }
    }
    // A clean end looks like the end of the stream to the peer, not like a reset.
    let _ = tokio::time::timeout(CLOSE_MAX, to.close()).await;
    Ok(())
}

async fn flush(
    to: &mut WriteHalf<impl AsyncWrite + Unpin>,
    buffer: &mut Vec<u8>,
    timeout: Duration,
) -> Result<(), String> {
    let whole = async {
        to.write_all(buffer).await?;
        to.flush().await
    };
    match tokio::time::timeout(timeout, whole).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err(format!("Message send timed out after {}ms", timeout.as_millis())),
    }
    buffer.clear();
    buffer.shrink_to(2 * WRITE_BYTES);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use tokio::time::Instant;

    /// A stream on which nothing ever comes; what becomes of writes is given, and nobody is woken for one that hangs.
    struct Stuck(fn() -> Poll<io::Result<usize>>);

    impl AsyncRead for Stuck {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Stuck {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            (self.0)()
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Writes one frame; returns how long it took until the channel was reported down, and why.
    async fn write_one(stream: Stuck) -> (Duration, String) {
        let (facts, mut told) = mpsc::unbounded_channel();
        let begun = Instant::now();
        let open = OpenChannel::start(ChannelId(1), stream, 1_000, Duration::from_secs(7), facts);
        open.write(Writing { texts: vec!["x".into()], token: None });
        match told.recv().await {
            Some(LinkFact::ChannelDown { reason, .. }) => (begun.elapsed(), reason),
            other => (Duration::MAX, format!("{other:?}")),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn r46_a_write_that_hangs_ends_the_channel_after_the_timeout() {
        let hung = write_one(Stuck(|| Poll::Pending)).await;
        assert_eq!(hung, (Duration::from_secs(7), "Message send timed out after 7000ms".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn r47_a_write_to_a_stream_that_is_closed_or_reset_fails_at_once() {
        for (stream, reason) in [
            (Stuck(|| Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))), "broken pipe"),
            (Stuck(|| Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))), "connection reset"),
            (Stuck(|| Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))), "connection aborted"),
            (Stuck(|| Poll::Ready(Ok(0))), "write zero"),
        ] {
            assert_eq!(write_one(stream).await, (Duration::ZERO, reason.to_owned()));
        }
    }
}
