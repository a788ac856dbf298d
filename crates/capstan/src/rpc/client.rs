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
            if let Some(error) = response.get_mut("error").map(Json::take) {
                let error: RpcError = serde_json::from_value(error)
                    .map_err(|error| CliError::internal(format!("the daemon's error: {error}")))?;
                return Err(error.into_cli());
            }
            if id == json!(self.next) {
                return Ok(response.get_mut("result").map(Json::take).unwrap_or_default());
            }
        }
    }

    /// Like [`Client::call`], for a result of a known shape.
    pub async fn call_as<T: DeserializeOwned>(&mut self, method: &str, params: Json) -> Result<T, CliError> {
        let result = self.call(method, params).await?;
        serde_json::from_value(result)
            .map_err(|error| CliError::internal(format!("result of {method}: {error}")))
    }
}
