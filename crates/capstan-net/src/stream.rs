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
/// A peer that takes nothing for so long is lost.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

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
    /// Starts both tasks.
    pub(crate) fn start(
        channel: ChannelId,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        frame_bytes_max: usize,
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
            if let Err(reason) = write(channel, to, queue, &facts).await {
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
                    flush(&mut to, &mut buffer).await?;
                }
            }
            tokens.extend(writing.token);
        }
        flush(&mut to, &mut buffer).await?;
        for token in tokens {
            let _ = facts.send(LinkFact::Written { channel, token, outcome: Ok(()) });
        }
    }
    // A clean end looks like the end of the stream to the peer, not like a reset.
    let _ = tokio::time::timeout(WRITE_TIMEOUT, to.close()).await;
    Ok(())
}

async fn flush(to: &mut WriteHalf<impl AsyncWrite + Unpin>, buffer: &mut Vec<u8>) -> Result<(), String> {
    let whole = async {
        to.write_all(buffer).await?;
        to.flush().await
    };
    match tokio::time::timeout(WRITE_TIMEOUT, whole).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err(format!("Message send timed out after {}ms", WRITE_TIMEOUT.as_millis())),
    }
    buffer.clear();
    buffer.shrink_to(2 * WRITE_BYTES);
    Ok(())
}
