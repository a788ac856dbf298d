//! The other end of the control socket.

use super::error::RpcError;
use super::lines::{Line, Lines};
use crate::error::{CliError, Code};
use crate::home::Home;
use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json};
use std::io;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// The longest response that is read, bytes; our own daemon stays far below.
const RESPONSE_BYTES_MAX: usize = 1 << 30;

/// A connection to a daemon; requests go one after another.
pub struct Client {
    lines: Lines<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    next: u64,
}

impl Client {
    /// Connects to the daemon at a home; `None` if nobody answers there.
    pub async fn connect(home: &Home) -> Result<Option<Client>, CliError> {
        let connected = home.with_socket_path(|path| {
            let stream = std::os::unix::net::UnixStream::connect(path)?;
            stream.set_nonblocking(true)?;
            UnixStream::from_std(stream)
        });
        match connected {
            Ok(stream) => {
                let (reader, writer) = stream.into_split();
                Ok(Some(Client { lines: Lines::new(reader, RESPONSE_BYTES_MAX), writer, next: 0 }))
            }
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                Ok(None)
            }
            Err(error) => Err(CliError::io(home.socket().display(), error)),
        }
    }

    /// Like [`Client::connect`], but a daemon that is just ending counts as none.
    pub async fn connect_alive(home: &Home) -> Result<Option<Client>, CliError> {
        let Some(mut client) = Client::connect(home).await? else { return Ok(None) };
        match client.call("daemonStatus", json!([])).await {
            Ok(_) => Ok(Some(client)),
            Err(error) if error.code == Code::Io => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends one request and waits for its answer.
    pub async fn call(&mut self, method: &str, params: Json) -> Result<Json, CliError> {
        self.next += 1;
        let request = json!({"jsonrpc": "2.0", "id": self.next, "method": method, "params": params});
        let line = format!("{request}\n");
        if line.len() > super::REQUEST_BYTES_MAX {
            let message = format!("a request may have {} bytes at most", super::REQUEST_BYTES_MAX);
            return Err(CliError::new(Code::Usage, message));
        }
        let lost = |error: io::Error| CliError::io("the daemon closed the connection", error);
        self.writer.write_all(line.as_bytes()).await.map_err(lost)?;
        loop {
            let text = match self.lines.next().await.map_err(lost)? {
                Line::Text(text) => text,
                Line::TooLong => return Err(CliError::io("the daemon's response", "too long")),
                Line::End => {
                    return Err(CliError::io("the daemon's response", "connection closed before it came"));
                }
            };
            let mut response: Json = serde_json::from_slice(&text)
                .map_err(|error| CliError::internal(format!("the daemon's response: {error}")))?;
            let id = response.get("id").cloned().unwrap_or_default();
            // Without an id: the daemon could not even read the request.
            if id != json!(self.next) && !id.is_null() {
                continue;
            }
            if let Some(error) = response.get_mut("error").map(Json::take) {
                let error: RpcError = serde_json::from_value(error)
                    .map_err(|error| CliError::internal(format!("the daemon's error: {error}")))?;
                return Err(error.into_cli());
            }
            let result = response.get_mut("result").map(Json::take);
            return result.ok_or_else(|| CliError::internal("the daemon's response has no result"));
        }
    }

    /// Like [`Client::call`], for a result of a known shape.
    pub async fn call_as<T: DeserializeOwned>(&mut self, method: &str, params: Json) -> Result<T, CliError> {
        let result = self.call(method, params).await?;
        serde_json::from_value(result)
            .map_err(|error| CliError::internal(format!("result of {method}: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::net::UnixListener;

    /// Calls a daemon that answers the first request with these lines and hangs up.
    async fn answered(lines: &'static str) -> anyhow::Result<Result<u32, CliError>> {
        let dir = tempfile::tempdir()?;
        let home = Home::new(dir.path())?;
        let listener = UnixListener::bind(home.socket())?;
        let daemon = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await?;
            let mut request = [0; 1024];
            let read = stream.read(&mut request).await?;
            stream.write_all(lines.as_bytes()).await?;
            Ok::<_, io::Error>(String::from_utf8_lossy(request.get(..read).unwrap_or_default()).into_owned())
        });
        let mut client = Client::connect(&home).await?.ok_or_else(|| anyhow::anyhow!("no daemon"))?;
        let outcome = client.call_as("n", json!([])).await;
        let request: Json = serde_json::from_str(&daemon.await??)?;
        assert_eq!(request, json!({"jsonrpc": "2.0", "id": 1, "method": "n", "params": []}));
        Ok(outcome)
    }

    #[tokio::test]
    async fn k205_answers_are_matched_by_id_and_strange_ones_ignored_or_refused() -> anyhow::Result<()> {
        let strange = "{\"id\":7,\"result\":3}\n{\"id\":\"1\",\"error\":{\"code\":1,\"message\":\"x\"}}\n{\"id\":1,\"result\":4}\n";
        assert_eq!(answered(strange).await?, Ok(4));
        for (lines, why) in [
            ("{\"id\":7,\"result\":3}\n", "connection closed before it came"),
            ("{\"id\":1,\"result\":\"four\"}\n", "result of n: invalid type"),
            ("{\"id\":1}\n", "has no result"),
            ("{\"id\":1,\"error\":3}\n", "the daemon's error"),
            ("{\"id\":null,\"error\":{\"code\":-32700,\"message\":\"unread\"}}\n", "unread"),
            ("{\"id\":1,\"error\":{\"code\":-32603,\"message\":\"no\"}}\n", "no"),
            ("nonsense\n", "the daemon's response"),
        ] {
            let error = answered(lines).await?.err().map(|error| error.message).unwrap_or_default();
            assert!(error.contains(why), "{lines}: {error}");
        }
        Ok(())
    }
}
